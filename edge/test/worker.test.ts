// The Worker in workerd, and the KV that `wrangler dev` serves beside it.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { freePort, type Running, startWrangler } from "../scripts/processes.ts";
import { broken, example, examples, Namespace, pairs } from "./examples.ts";

let wrangler: Running;
let kv: Record<"KV" | "KV_QCFG", Namespace>;

before(async () => {
  const started = await startWrangler(await freePort());
  wrangler = started;
  kv = { KV: new Namespace(started.kvUrl, "KV"), KV_QCFG: new Namespace(started.kvUrl, "KV_QCFG") };
});
after(() => wrangler.stop());
beforeEach(async () => {
  for (const namespace of Object.values(kv)) {
    const keys: { name: string }[] = await namespace.list();
    await namespace.delete(keys.map((key) => key.name));
  }
});

const hold = async (...names: string[]) => {
  for (const name of names) await kv[example(name).kv.namespace].put(pairs(example(name)));
};
const ask = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${wrangler.url}${path}`, { headers });
const route = async (key: string, headers: Record<string, string> = {}) => {
  const response = await ask(`/route/${encodeURIComponent(key)}`, headers);
  assert.equal(response.status, 200, key);
  return (await response.json()) as any;
};

test("an index is found by its shop id and by its index id", async () => {
  await hold("all-fields", "minimal");
  const answer = await route("acme-next.myshopify.com");
  assert.equal(answer.index_id, "acme-products-v2");
  assert.deepEqual(await route("acme-products-v2"), answer);
  const missing = await ask("/route/nobody.myshopify.com");
  assert.equal(missing.status, 404);
});

test("a user keeps a target, and internal targets are for internal requests", async () => {
  await hold("weighted-alias", "minimal", "all-fields", "null-and-empty");
  const target = async (headers: Record<string, string>) =>
    (await route("acme.myshopify.com", headers)).target.index_id;
  // The hash of "user-1" is near the end of the scale, that of "ada" near its beginning.
  for (const id of ["x-user-id", "x-session-id"]) {
    assert.equal(await target({ [id]: "ada" }), "acme-products-v1");
    assert.equal(await target({ [id]: "user-1" }), "acme-products-v2");
    assert.equal(await target({ [id]: "user-1", "x-marqo-internal": "true" }), "acme-blank");
  }
  assert.equal(await target({ "x-user-id": "ada", "x-session-id": "user-1" }), "acme-products-v1");
  const { weights } = await route("acme.myshopify.com");
  assert.deepEqual(
    weights.map(({ weight }: { weight: number }) => weight),
    [0.7, 0.2],
  );
});

test("an alias that is off, or a target that is off, does not count", async () => {
  await hold("alias-off", "target-off", "minimal", "all-fields");
  const off = await route("acme.myshopify.com", { "x-user-id": "ada" });
  assert.deepEqual([off.alias, off.weights, off.target.index_id], ["off", [], "acme-products"]);
  const shoes = await route("acme-shoes", { "x-user-id": "ada" });
  assert.deepEqual([shoes.alias, shoes.target.index_id], ["on", "acme-products-v2"]);
});

test("a legacy alias routes like any other", async () => {
  await hold("legacy-read-alias", "minimal");
  const bags = await route("acme-bags");
  assert.deepEqual([bags.alias, bags.target.index_id], ["on", "acme-products-v1"]);
  assert.equal((await route("acme-products-v1")).alias, "none");
});

test("a target that KV does not hold is answered for by the index itself", async () => {
  await hold("legacy-read-alias");
  const bags = await route("acme-bags");
  assert.deepEqual([bags.target.index_id, bags.missing], ["acme-bags", "acme-products-v1"]);
});

test("a target that KV cannot hold is a target that it does not hold", async () => {
  for (const impossible of ["", ".", "x".repeat(600)]) {
    const bags: any = example("legacy-read-alias");
    bags.kv.value.index_aliases.doc_reads.targets[0].index_id = impossible;
    await kv.KV.put(pairs(bags));
    const answer = await route("acme-bags");
    assert.deepEqual([answer.target.index_id, answer.missing], ["acme-bags", impossible]);
  }
});

test("a query's override is found under the SHA-256 of the query", async () => {
  await hold("weighted-alias", "query-config", "query-config-unicode");
  const override = async (query: string) => {
    const response = await ask(`/route/acme.myshopify.com?q=${encodeURIComponent(query)}`);
    return ((await response.json()) as any).override;
  };
  assert.deepEqual(await override("red running shoes"), example("query-config").kv.value);
  assert.deepEqual((await override("größe 42 #sale")).hidden_ids, ["sku-10", "sku-9"]);
  assert.equal(await override("blue shoes"), null);
});

test("a header says how long ago the table took the change", async () => {
  const minimal = example("minimal");
  const age = async () => (await ask("/route/acme-products-v1")).headers.get("x-settings-age");
  minimal.kv.metadata.changed_at = `${new Date(Date.now() - 40_000).toISOString().slice(0, 19)}Z`;
  await kv.KV.put(pairs(minimal));
  const seconds = Number(await age());
  assert.ok(seconds >= 40 && seconds < 60, `${seconds}`);
  delete minimal.kv.metadata.changed_at;
  await kv.KV.put(pairs(minimal));
  assert.equal(await age(), null);
});

test("no answer has the API key", async () => {
  await hold(...examples.keys());
  const paths = ["/", "/indexes", "/nowhere"];
  for (const { kv } of examples.values()) {
    paths.push(
      ...kv.keys.map((key) => `/route/${encodeURIComponent(key)}?q=red%20running%20shoes`),
    );
  }
  for (const path of paths) {
    const response = await ask(path, { "x-marqo-internal": "true" });
    const headers = JSON.stringify([...response.headers]);
    const text = (await response.text()) + headers;
    assert.ok(!text.includes("key-acme") && !text.includes("marqo_api_key"), path);
  }
});

test("the list has every index once, and when and by what it was written", async () => {
  await hold("weighted-alias", "minimal", "query-config");
  const stranger = { key: "old.example", value: JSON.stringify(example("target-off").kv.value) };
  await kv.KV.put([stranger, { key: "zzz", value: "not JSON" }]);
  const indexes = (await (await ask("/indexes")).json()) as any[];
  const shown = indexes.map(({ keys, index_id, written, broken }) => [
    index_id,
    keys,
    written?.source,
    broken,
  ]);
  assert.deepEqual(shown, [
    ["acme-products", ["acme-products", "acme.myshopify.com"], "stream", undefined],
    ["acme-products-v1", ["acme-products-v1"], "stream", undefined],
    ["acme-shoes", ["old.example"], undefined, undefined],
    [undefined, ["zzz"], undefined, "is not JSON"],
  ]);
});

test("a value that breaks a rule of its schema is not used", async () => {
  await hold("weighted-alias");
  for (const { rule, schema, example: name, at, with: replacement } of broken) {
    const changed = example(name);
    const root: any = schema === "metadata" ? changed.kv.metadata : changed.kv.value;
    const path = at.split("/").slice(1);
    const field = path.pop() ?? "";
    const parent = path.reduce((value, step) => value[step], root);
    if (replacement === undefined) delete parent[field];
    else parent[field] = replacement;
    await kv[changed.kv.namespace].put(pairs(changed));

    const key = changed.kv.namespace === "KV" ? changed.kv.keys[0] : "acme-products";
    const response = await ask(`/route/${key}?q=red%20running%20shoes`);
    const text = await response.text();
    if (schema === "metadata") {
      assert.equal(response.headers.get("x-settings-age"), null, rule);
    } else {
      assert.equal(response.status, 502, rule);
      assert.match(text, /breaks its schema at #/, rule);
    }
    await hold("weighted-alias");
  }
});

test("a field that a later exporter adds changes nothing", async () => {
  await hold("minimal", "legacy-read-alias");
  const before = await route("acme-bags");
  const later: any = example("legacy-read-alias");
  later.kv.value.later = 1;
  later.kv.value.index_aliases.later = {};
  later.kv.value.index_aliases.doc_reads.targets[0].later = null;
  later.kv.metadata.later = "x";
  await kv.KV.put(pairs(later));
  assert.deepEqual(await route("acme-bags"), before);
});

test("wrangler's KV answers the exporter's requests, but for metadata in bulk/get", async () => {
  const put = await kv.KV.put(pairs(example("weighted-alias")));
  assert.deepEqual(put, { successful_key_count: 2, unsuccessful_keys: [] });
  const { value, metadata } = example("weighted-alias").kv;
  const got = await kv.KV.get(["acme.myshopify.com", "missing"]);
  assert.deepEqual(got.values, { "acme.myshopify.com": JSON.stringify(value), missing: null });
  assert.deepEqual(await kv.KV.list(), [
    { name: "acme-products", metadata },
    { name: "acme.myshopify.com", metadata },
  ]);
  const deleted = await kv.KV.delete(["acme-products", "missing"]);
  assert.deepEqual(deleted.unsuccessful_keys, []);
});
