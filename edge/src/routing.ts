// Where a search goes. Pure: the same input always gives the same answer.

import type { Analytics, DocReads, Target } from "./types.ts";

/** A target that counts for a request, and its share of such requests. */
export interface Share {
  index_id: string;
  weight: number;
  share: number;
}

/**
 * The targets that count: switched on, with a weight, and internal ones for internal requests only.
 * The others share what the rest would have got.
 */
export function shares(alias: DocReads | undefined, internal: boolean): Share[] {
  const counts = (target: Target) =>
    target.enabled !== false && target.weight > 0 && (internal || !target.internal);
  const targets = alias?.enabled ? alias.targets.filter(counts) : [];
  const sum = targets.reduce((sum, target) => sum + target.weight, 0);
  return targets.map(({ index_id, weight }) => ({ index_id, weight, share: weight / sum }));
}

/**
 * The target at a point from 0 to 1. The shares lie side by side in their order, so that a weight
 * that grows takes over users and does not shuffle the others.
 */
export function pick(shares: Share[], point: number): Share | undefined {
  let end = 0;
  return shares.find((share) => point < (end += share.share)) ?? shares.at(-1);
}

/** The point of a user or session, the same each time. */
export function pointOf(id: string): number {
  return fnv1a(id) / 2 ** 32;
}

/** FNV-1a of 32 bits, over the bytes of the UTF-8 text. */
export function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return hash >>> 0;
}

/** The index whose analytics are used instead of the index's own. */
export function analyticsIndex(alias: Analytics | undefined, internal: boolean): string | null {
  return alias?.enabled && (internal || !alias.internal) ? alias.index_id : null;
}
