// One pass of `make edge`: from the table through the function and wrangler's KV to the Worker.
// TESTBED is the program.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import * as processes from "../scripts/processes.ts";
import { example, Namespace, pairs } from "./examples.ts";

/** How soon a change must be seen, also on a busy machine. */
const SECONDS = 20;

const program = process.env["TESTBED"];
if (program === undefined) throw new Error("TESTBED is not set: run `make test-edge`");

// `make local` may run, and have the ports that are taken by default.
const ports = new Map<string, number>();
let wrangler: processes.Wrangler;
let testbed: processes.Running;

before(async () => {
  for (const name of ["dynamodb", "lambda", "api-keys", "secrets", "faults"])
    ports.set(name, await processes.freePort());
  wrangler = await processes.startWrangler(await processes.freePort());
  const options = [...ports].flatMap(([name, port]) => [`--${name}-port`, `${port}`]);
  testbed = await processes.startTestbed(program, wrangler.kvUrl, options);
});
after(async () => {
  await testbed?.stop();
  await wrangler?.stop();
});

const put = (name: string) => {
  const item = new URL(`../../../schema/examples/${name}.json`, import.meta.url).pathname;
  const options = ["dynamodb", "lambda"].flatMap((to) => [`--${to}-port`, `${ports.get(to)}`]);
  return promisify(execFile)(program, ["put", item, ...options]);
};
const reconcile = async (apply: boolean) => {
  const path = "/2015-03-31/functions/ecom-settings-exporter/invocations";
  const url = `http://127.0.0.1:${ports.get("lambda")}${path}`;
  const body = JSON.stringify({ reconcile: { apply } });
  return (await (await fetch(url, { method: "POST", body })).json()) as any;
};
/** Asks the Worker until it responds as expected. */
const route = async (key: string, expected: (body: any) => boolean) => {
  const end = Date.now() + SECONDS * 1000;
  for (;;) {
    const response = await fetch(`${wrangler.url}/route/${key}?q=red%20running%20shoes`);
    const body = (await response.json()) as any;
    if (expected(body)) return body;
    assert.ok(Date.now() < end, `after ${SECONDS} s: ${JSON.stringify(body)}`);
    await sleep(50);
  }
};

test("what is put into the table, or changed there, shows at the Worker", async () => {
  for (const name of ["minimal", "all-fields", "query-config", "weighted-alias"]) await put(name);
  const on = await route("acme.myshopify.com", ({ alias, override }) => alias === "on" && override);
  assert.match(on.target.index_id, /^acme-products-v[12]$/);
  assert.deepEqual(on.override.pinned_ids, ["sku-7", "sku-12"]);

  await put("alias-off");
  const off = await route("acme.myshopify.com", ({ alias }) => alias === "off");
  assert.equal(off.target.index_id, "acme-products");
});

test("a reconcile over wrangler's KV finds what differs, and repairs it", async () => {
  const audit = await reconcile(false);
  assert.deepEqual([audit.complete, audit.query_configs.listed], [true, 1]);
  const { listed, missing, stale, orphaned } = audit.settings;
  assert.deepEqual([listed, missing, stale, orphaned], [5, 0, 0, 0]);

  const orphan = example("shop-id-is-index-id");
  orphan.metadata.environment = "local";
  const kv = new Namespace(wrangler.kvUrl, "KV");
  await kv.put(pairs(orphan));
  await kv.delete(["acme-products-v1"]);
  const { complete, settings } = await reconcile(true);
  assert.deepEqual([complete, settings.missing, settings.orphaned], [true, 1, 1]);
  await route("acme-products-v1", ({ alias }) => alias === "none");
  await route("acme-api", ({ error }) => error === "No index has this key.");
});
