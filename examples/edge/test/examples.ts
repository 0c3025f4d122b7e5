// The examples in schema/, and a namespace of wrangler's KV to put them into.

import { readdirSync, readFileSync } from "node:fs";
import type { Metadata, QueryConfig, Settings } from "../src/types.ts";

const schemas = new URL("../../../schema/", import.meta.url);

export interface Example {
  item: Record<string, unknown>;
  kv: {
    namespace: "KV" | "KV_QCFG";
    keys: string[];
    value: Settings | QueryConfig;
    metadata: Metadata;
  };
}

export interface Broken {
  rule: string;
  schema: string;
  example: string;
  at: string;
  with?: unknown;
}

const read = (file: string) => JSON.parse(readFileSync(new URL(file, schemas), "utf8"));

export const broken: Broken[] = read("broken.json");

export const examples = new Map<string, Example>(
  readdirSync(new URL("examples", schemas)).map((file) => [
    file.replace(".json", ""),
    read(`examples/${file}`),
  ]),
);

export function example(name: string): Example {
  const found = examples.get(name);
  if (found === undefined) throw new Error(`there is no example ${name}`);
  return structuredClone(found);
}

export interface Pair {
  key: string;
  value: string;
  metadata?: unknown;
}

/** The pairs of an example. */
export function pairs({ kv }: Example): Pair[] {
  return kv.keys.map((key) => ({ key, value: JSON.stringify(kv.value), metadata: kv.metadata }));
}

/** Wrangler's REST API of one namespace: the part of Cloudflare's that the exporter uses. */
export class Namespace {
  private readonly url: string;

  constructor(kvUrl: string, binding: "KV" | "KV_QCFG") {
    this.url = kvUrl.replace("{namespace_id}", binding === "KV" ? "settings" : "query-configs");
  }

  put(pairs: Pair[]) {
    return this.send("PUT", "bulk", pairs);
  }

  delete(keys: string[]) {
    return this.send("POST", "bulk/delete", keys);
  }

  get(keys: string[]) {
    return this.send("POST", "bulk/get", { keys, type: "text", withMetadata: true });
  }

  list() {
    return this.send("GET", "keys?limit=1000");
  }

  private async send(method: string, path: string, body?: unknown) {
    const response = await fetch(`${this.url}/${path}`, {
      method,
      headers: { "content-type": "application/json" },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const { result, success } = (await response.json()) as { result: any; success: boolean };
    if (!success) throw new Error(`${method} ${path}: ${response.status}`);
    return result;
  }
}
