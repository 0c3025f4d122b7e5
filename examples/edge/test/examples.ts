// The examples in schema/, and a namespace of wrangler's KV to put them into.

import { readdirSync, readFileSync } from "node:fs";
import type { Metadata } from "../src/types.ts";

const schemas = new URL("../../../schema/", import.meta.url);
const read = (file: string) => JSON.parse(readFileSync(new URL(file, schemas), "utf8"));

/** What an example's item becomes. Tests change the value as they need. */
export interface Example {
  namespace: "KV" | "KV_QCFG";
  keys: string[];
  value: any;
  metadata: Metadata;
}

/** The rules of the schemas, each with a change that breaks it. */
export const broken: any[] = read("broken.json");

export const names = readdirSync(new URL("examples", schemas)).map((file) => file.split(".")[0]!);

export const example = (name: string): Example => read(`examples/${name}.json`).kv;

/** The pairs that the exporter sends to KV. */
export const pairs = ({ keys, value, metadata }: Example) =>
  keys.map((key) => ({ key, value: JSON.stringify(value), metadata }));

/** Wrangler's REST API of one namespace: the part of Cloudflare's that the exporter uses. */
export class Namespace {
  private readonly url: string;

  constructor(kvUrl: string, binding: "KV" | "KV_QCFG") {
    this.url = kvUrl.replace("{namespace_id}", binding === "KV" ? "settings" : "query-configs");
  }

  put = (pairs: { key: string; value: string; metadata?: object }[]) =>
    this.send("PUT", "bulk", pairs);
  delete = (keys: string[]) => this.send("POST", "bulk/delete", keys);

  async clear() {
    for (;;) {
      const keys: { name: string }[] = await this.send("GET", "keys?limit=1000");
      if (keys.length === 0) return;
      await this.delete(keys.map(({ name }) => name));
    }
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
