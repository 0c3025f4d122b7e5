// Where a search goes. Pure: the same input always gives the same result.

import type { Analytics, DocReads, Settings, Target } from "./types.ts";

/** A target that counts for a request, and its share of requests of that kind. */
export interface Share {
  index_id: string;
  weight: number;
  share: number;
}

/**
 * The targets that count: those that are on and have a weight, internal ones for internal requests
 * only. Each gets its weight divided by their sum. If none counts, the index itself serves.
 */
export function shares(alias: DocReads | undefined, internal: boolean): Share[] {
  const targets = alias?.enabled ? alias.targets.filter((target) => counts(target, internal)) : [];
  const sum = targets.reduce((sum, target) => sum + target.weight, 0);
  return targets.map(({ index_id, weight }) => ({ index_id, weight, share: weight / sum }));
}

function counts(target: Target, internal: boolean): boolean {
  return target.enabled !== false && target.weight > 0 && (internal || !target.internal);
}

/**
 * A target's share of all requests while its alias is on. An internal target's share is of the
 * internal requests.
 */
export function shareOf(target: Target, alias: DocReads): number {
  if (!counts(target, target.internal)) return 0;
  const all = shares({ ...alias, enabled: true }, target.internal);
  return target.weight / all.reduce((sum, { weight }) => sum + weight, 0);
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

export function indexId(index: Settings): string {
  return `${index.system_account_id}-${index.index_name}`;
}

/**
 * Whether the value that was found under a target's index id is the target of an alias of `own`. As
 * `a`/`b-c` and `a-b`/`c` have one index id, an id that can be of the own account has to be of it.
 */
export function isTarget(found: Settings, id: string, own: Settings): boolean {
  const account = own.system_account_id;
  if (indexId(found) !== id) return false;
  return found.system_account_id === account || !id.startsWith(`${account}-`);
}

/**
 * The settings of a search. Where it goes, and with which API key, comes from the target, always
 * together; everything else from the index that was asked for. The target's own alias does not count.
 */
export function searchSettings(own: Settings, target: Settings): Settings {
  const { system_account_id, index_name, marqo_api_key, index_url } = target;
  return { ...own, system_account_id, index_name, marqo_api_key, index_url };
}
