// Reads KV, and checks what it finds against the exporter's schemas.

import { type Schema, Validator } from "@cfworker/json-schema";
import metadataSchema from "../../../schema/metadata.json";
import queryConfigSchema from "../../../schema/query-config.json";
import settingsSchema from "../../../schema/settings.json";
import { indexId } from "./routing.ts";
import type { Metadata, QueryConfig, Settings } from "./types.ts";

export interface Env {
  KV: KVNamespace;
  KV_QCFG: KVNamespace;
  /** "true" on a developer's machine: /indexes is open to anybody. */
  LOCAL?: string;
  /** Elsewhere, the secret that a request for /indexes has to send. */
  LIST_SECRET?: string;
}

export interface Entry<Value> {
  value: Value;
  /** Null if the exporter did not write the entry. */
  metadata: Metadata | null;
}

/** A value that does not match its schema or its key. The message quotes nothing of it. */
export class BrokenValue extends Error {}

/** For how long a location may serve what it read last. KV takes no less than 30 s. */
const READ = { type: "text", cacheTtl: 30 } as const;

/** Keys of a page: few enough for a small response. */
const PAGE_KEYS = 250;

const settingsValidator = new Validator(settingsSchema as Schema, "2020-12");
const queryConfigValidator = new Validator(queryConfigSchema as Schema, "2020-12");
const metadataValidator = new Validator(metadataSchema as Schema, "2020-12");

/** The settings under a shop id or an index id. */
export async function settings(env: Env, key: string): Promise<Entry<Settings> | null> {
  if (!isKey(key)) return null;
  const { value: text, metadata } = await env.KV.getWithMetadata(key, READ);
  if (text === null) return null;
  const value = parse<Settings>(settingsValidator, text);
  if (!URL.canParse(value.index_url)) throw new BrokenValue("breaks its schema at #/index_url");
  if (key !== value.shop_id && key !== indexId(value)) throw new BrokenValue("names another index");
  return { value, metadata: known(metadata) };
}

/** The override of a query, which is normalized already. A key can be that of two indexes. */
export async function override(env: Env, index: Settings, query: string) {
  const key = `qcfg-${indexId(index)}-${await sha256(query)}`;
  const text = await env.KV_QCFG.get(key, READ);
  if (text === null) return null;
  const value = parse<QueryConfig>(queryConfigValidator, text);
  const same =
    value.system_account_id === index.system_account_id &&
    value.index_name === index.index_name &&
    value.normalized_query === query;
  return same ? value : null;
}

/** What was read, or null if it is broken. */
export async function unlessBroken<Read>(reading: Promise<Read>): Promise<Read | null> {
  return reading.catch((error) => (error instanceof BrokenValue ? null : Promise.reject(error)));
}

/**
 * A page of the keys that begin with `prefix`, and where the next one begins. No value is read:
 * metadata says what they hold. Only a null cursor is the end: a page can be empty before it.
 */
export async function list(env: Env, prefix: string, cursor: string | null) {
  const page = await env.KV.list({ limit: PAGE_KEYS, prefix, cursor });
  const keys = page.keys.map(({ name, metadata }) => ({ key: name, metadata: known(metadata) }));
  return { keys, cursor: page.list_complete ? null : page.cursor };
}

/** Whether a request may list the keys of all customers: not without a secret, unless it is local. */
export async function mayList(env: Env, authorization: string | null): Promise<boolean> {
  if (env.LOCAL === "true") return true;
  if (!env.LIST_SECRET || authorization === null) return false;
  // Hashes take the same time to compare, however much of the secret is right.
  return (await sha256(authorization)) === (await sha256(`Bearer ${env.LIST_SECRET}`));
}

/** Whether KV can hold the key. It refuses to read any other, and an alias may name one. */
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

/** The known fields of the exporter's metadata. Null if it is not the exporter's. */
function known(metadata: unknown): Metadata | null {
  if (!metadataValidator.validate(metadata ?? null).valid) return null;
  const fields = Object.keys(metadataSchema.properties);
  const entries = Object.entries(metadata as Metadata).filter(([name]) => fields.includes(name));
  return Object.fromEntries(entries) as unknown as Metadata;
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
