// Reads KV, and checks what it finds against the exporter's schemas.

import { type Schema, Validator } from "@cfworker/json-schema";
import metadataSchema from "../../schema/metadata.json";
import queryConfigSchema from "../../schema/query-config.json";
import settingsSchema from "../../schema/settings.json";
import type { Metadata, QueryConfig, Settings } from "./types.ts";

export interface Env {
  KV: KVNamespace;
  KV_QCFG: KVNamespace;
}

export interface Entry<Value> {
  value: Value;
  /** Null if somebody else than the exporter wrote the entry. */
  metadata: Metadata | null;
}

/** A key, and what it holds. */
export interface Listed {
  key: string;
  entry: Entry<Settings> | BrokenValue;
}

/** A value that does not match its schema. The message names the place, and quotes nothing. */
export class BrokenValue extends Error {}

/** Seconds for which a location may serve what it read last. 30 is the least that KV takes. */
const CACHE_TTL = 30;

/** The most keys that KV reads, or this Worker lists, at once. */
const MAX_KEYS = 100;

const settingsValidator = new Validator(settingsSchema as Schema, "2020-12");
const queryConfigValidator = new Validator(queryConfigSchema as Schema, "2020-12");
const metadataValidator = new Validator(metadataSchema as Schema, "2020-12");

/** The settings under a shop id or an index id. */
export async function settings(env: Env, key: string): Promise<Entry<Settings> | null> {
  if (!isKey(key)) return null;
  const { value, metadata } = await env.KV.getWithMetadata(key, {
    type: "text",
    cacheTtl: CACHE_TTL,
  });
  return value === null
    ? null
    : { value: parse(settingsValidator, value), metadata: known(metadata) };
}

/** The override of a query, which is normalized already. */
export async function override(
  env: Env,
  index: Settings,
  query: string,
): Promise<QueryConfig | null> {
  const key = `qcfg-${indexId(index)}-${await sha256(query)}`;
  const value = await env.KV_QCFG.get(key, { type: "text", cacheTtl: CACHE_TTL });
  return value === null ? null : parse(queryConfigValidator, value);
}

/** The first keys of the settings namespace, with what they hold. */
export async function list(env: Env): Promise<Listed[]> {
  const { keys } = await env.KV.list({ limit: MAX_KEYS });
  const names = keys.map((key) => key.name);
  const values = names.length > 0 ? await env.KV.get(names, "text") : new Map<string, string>();
  return keys.flatMap(({ name, metadata }): Listed[] => {
    const value = values.get(name);
    // Deleted since it was listed.
    if (value == null) return [];
    try {
      const entry = { value: parse<Settings>(settingsValidator, value), metadata: known(metadata) };
      return [{ key: name, entry }];
    } catch (error) {
      if (error instanceof BrokenValue) return [{ key: name, entry: error }];
      throw error;
    }
  });
}

export function indexId(index: Settings): string {
  return `${index.system_account_id}-${index.index_name}`;
}

/** Whether KV can hold the key. It refuses to look for others, which an alias may well name. */
function isKey(key: string): boolean {
  return !["", ".", ".."].includes(key) && new TextEncoder().encode(key).length <= 512;
}

function parse<Value>(validator: Validator, text: string): Value {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new BrokenValue("is not JSON");
  }
  const { valid, errors } = validator.validate(value);
  if (!valid) throw new BrokenValue(`breaks its schema at ${errors.at(-1)?.instanceLocation}`);
  return value as Value;
}

function known(metadata: unknown): Metadata | null {
  return metadataValidator.validate(metadata ?? null).valid ? (metadata as Metadata) : null;
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
