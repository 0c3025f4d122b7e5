// The Worker in workerd, and the KV that `wrangler dev` serves beside it.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { freePort, type Running, startWrangler } from "../scripts/processes.ts";
import type { Settings, Target } from "../src/types.ts";
import { broken, example, examples, Namespace, type Pair, pairs } from "./examples.ts";

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
  for (const header of ["", "false", "1", "TRUE"])
    assert.equal(
      await target({ "x-user-id": "user-1", "x-marqo-internal": header }),
      "acme-products-v2",
    );
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

/** Points the alias of acme-bags at these targets. */
const bags = (...targets: Partial<Target>[]) => {
  const changed: any = example("legacy-read-alias");
  changed.kv.value.index_aliases.doc_reads.targets = targets.map((target) => ({
    internal: false,
    weight: 1,
    ...target,
  }));
  return kv.KV.put(pairs(changed));
};
/** A value under its index id, and the metadata of it. */
const named = (system_account_id: string, index_name: string, more: object = {}): Pair => {
  const { value, metadata } = example("minimal").kv;
  const names = { system_account_id, index_name };
  return {
    key: `${system_account_id}-${index_name}`,
    value: JSON.stringify({ ...value, ...names, ...more }),
    metadata: { ...metadata, ...names },
  };
};

test("a target that KV does not hold whole is answered for by the index itself", async () => {
  const targets: [id: string, value: string | null][] = [
    ["acme-products-v1", null],
    ["acme-products-v1", "not JSON"],
    // As an older exporter may have written it.
    ["acme-products-v1", named("acme", "products-v1", { pixel_id: null }).value],
    ["acme-products-v1", named("acme", "products-v1", { index_url: "http://256.0.0.1/" }).value],
    // What KV cannot hold.
    ["", null],
    [".", null],
    ["x".repeat(600), null],
    // The shop id of another index, which names no target.
    ["acme-shop", named("acme", "other", { shop_id: "acme-shop" }).value],
  ];
  for (const [id, value] of targets) {
    if (value !== null) await kv.KV.put([{ key: id, value }]);
    await bags({ index_id: id });
    const { target, missing } = await route("acme-bags");
    assert.deepEqual([target.index_id, missing], ["acme-bags", id], `${id}: ${value}`);
  }
});

test("where no target counts, the index itself answers", async () => {
  await hold("minimal");
  const index_id = "acme-products-v1";
  for (const targets of [
    [],
    [{ index_id, weight: 0 }],
    [{ index_id, internal: true }],
    [{ index_id, enabled: false }],
  ]) {
    await bags(...targets);
    const { target, weights, missing } = await route("acme-bags");
    assert.deepEqual([target.index_id, weights, missing], ["acme-bags", [], null]);
  }
});

test("the URL is the target's, what else there is the index's own, and a chain ends", async () => {
  const doc_reads = {
    enabled: true,
    targets: [{ index_id: "acme-c", internal: false, weight: 1 }],
  };
  const next = { index_aliases: { doc_reads }, pixel_id: "px-b", index_url: "https://b.example/" };
  await kv.KV.put([named("acme", "b", next), named("acme", "c")]);
  await bags({ index_id: "acme-b" });
  const { target, pixel_id } = await route("acme-bags");
  assert.deepEqual(target, { index_id: "acme-b", index_url: "https://b.example/" });
  assert.equal(pixel_id, undefined);
});

test("two indexes can have one key: what names the other one is not used", async () => {
  const query = example("query-config");
  const [key] = query.kv.keys;
  const other = { ...query.kv.value, system_account_id: "a", index_name: "b-c" };
  const qcfg = key!.replace("acme-products", "a-b-c");
  await kv.KV.put([named("a-b", "c")]);
  await kv.KV_QCFG.put([{ key: qcfg, value: JSON.stringify(other) }]);
  const override = async () =>
    ((await (await ask("/route/a-b-c?q=red%20running%20shoes")).json()) as any).override;
  assert.equal(await override(), null);
  for (const broken of ["not JSON", JSON.stringify({ ...other, normalized_query: "red" })]) {
    await kv.KV_QCFG.put([{ key: qcfg, value: broken }]);
    assert.equal(await override(), null);
  }
  const own = { ...other, system_account_id: "a-b", index_name: "c" };
  await kv.KV_QCFG.put([{ key: qcfg, value: JSON.stringify(own) }]);
  assert.deepEqual(await override(), own);

  // An alias of a-b means a-b/c. One of another account can mean either.
  const doc_reads = { enabled: true, targets: [{ index_id: "a-b-c", internal: false, weight: 1 }] };
  const alias = { index_aliases: { doc_reads } };
  await kv.KV.put([named("a-b", "x", alias), named("a", "x", alias), named("z", "x", alias)]);
  const missing = async (key: string) => (await route(key)).missing;
  assert.deepEqual(await Promise.all(["a-b-x", "a-x", "z-x"].map(missing)), [null, "a-b-c", null]);
  await kv.KV.put([named("a", "b-c")]);
  assert.deepEqual(await Promise.all(["a-b-x", "a-x", "z-x"].map(missing)), ["a-b-c", null, null]);

  await kv.KV.put([{ ...named("a-b", "c"), key: "other.example" }]);
  const strange = await ask("/route/other.example");
  assert.equal(strange.status, 502);
  assert.match(await strange.text(), /names another index/);
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
    const keys = kv.keys.map(encodeURIComponent);
    paths.push(...keys.map((key) => `/route/${key}?q=red%20running%20shoes`));
    paths.push(...keys.map((key) => `/indexes/${key}`));
  }
  for (const path of paths) {
    const response = await ask(path, { "x-marqo-internal": "true" });
    const headers = JSON.stringify([...response.headers]);
    const text = (await response.text()) + headers;
    assert.ok(!text.includes("key-acme") && !text.includes("marqo_api_key"), path);
  }
});

test("the list has the keys with their metadata, in pages, whatever their values are", async () => {
  const { metadata } = example("minimal").kv;
  const later = { ...metadata, later: "x" };
  const value = JSON.stringify("x".repeat(300_000));
  const key = (number: number) => `k${String(number).padStart(3, "0")}`;
  for (let number = 0; number < 100; number += 50) {
    const some = Array.from({ length: 50 }, (_, n) => ({ key: key(number + n), value }));
    await kv.KV.put(some.map((pair) => ({ ...pair, metadata: later })));
  }
  await kv.KV.put(Array.from({ length: 160 }, (_, n) => ({ key: key(100 + n), value: "" })));
  const page = async (query: string) => (await (await ask(`/indexes?${query}`)).json()) as any;

  const first = await page("");
  assert.equal(first.keys.length, 250);
  assert.deepEqual(first.keys[0], { key: "k000", metadata });
  assert.deepEqual(first.keys[249], { key: "k249", metadata: null });
  const second = await page(new URLSearchParams({ cursor: first.cursor }).toString());
  assert.deepEqual([second.keys.length, second.keys[0].key, second.cursor], [10, "k250", null]);
  const found = await page("prefix=k25");
  assert.deepEqual([found.keys.length, found.cursor], [10, null]);
  assert.deepEqual(await page("prefix=none"), { keys: [], cursor: null });
});

test("what a key holds is shown field by field, and without what its URL hides", async () => {
  const changed: any = example("weighted-alias");
  const { index_aliases } = changed.kv.value;
  changed.kv.value.index_url = "https://user:hidden@products.example.com/search?token=hidden";
  index_aliases.later = "hidden";
  index_aliases.doc_reads.later = index_aliases.doc_reads.targets[0].later = "hidden";
  await kv.KV.put(pairs(changed));
  for (const path of ["/indexes/acme-products", "/route/acme-products"])
    assert.ok(!(await (await ask(path)).text()).includes("hidden"), path);
  const shown = (await (await ask("/indexes/acme-products")).json()) as any;
  assert.equal(shown.index_url, "https://products.example.com/search");
  assert.deepEqual(Object.keys(shown), ["digest", "index_url", "doc_reads"]);
  const targets = shown.doc_reads.targets.map((target: any) => [target.weight, target.share]);
  assert.deepEqual(targets, [
    [0.7, 0.7 / (0.7 + 0.2)],
    [0.2, 0.2 / (0.7 + 0.2)],
    [0.1, 0.1 / (0.7 + 0.2 + 0.1)],
  ]);

  await kv.KV.put([{ key: "zzz", value: "not JSON" }]);
  const broken = await ask("/indexes/zzz");
  assert.deepEqual(
    [broken.status, await broken.text()],
    [502, '{"error":"The value under this key is not JSON."}'],
  );
  assert.equal((await ask("/indexes/none")).status, 404);
});

test("a value of 24 MB is served and shown", async () => {
  const { pixel_id: _, ...value } = example("all-fields").kv.value as Settings;
  value.search_config = { text: "x".repeat(24_000_000) };
  await kv.KV.put([{ key: "acme-products-v2", value: JSON.stringify(value) }]);
  assert.equal((await route("acme-products-v2")).index_id, "acme-products-v2");
  assert.equal((await ask("/indexes/acme-products-v2")).status, 200);
});

test("a URL with U+FEFF, which is white space to JavaScript alone, is served", async () => {
  await kv.KV.put([named("acme", "bom", { index_url: "https://h.example/\ufeff" })]);
  assert.equal((await route("acme-bom")).target.index_url, "https://h.example/%EF%BB%BF");
});

test("where the Worker is not local, the lists are for whoever has the secret", async () => {
  const rows: [options: string[], authorization: string, status: number][] = [
    [[], "Bearer ", 403],
    [["--var", "LIST_SECRET:s3cret"], "Bearer s3cret", 200],
    [["--var", "LIST_SECRET:s3cret"], "Bearer s3cre", 403],
  ];
  const [closed, open] = await Promise.all([
    startWrangler(await freePort(), rows[0]![0]),
    startWrangler(await freePort(), rows[1]![0]),
  ]);
  try {
    for (const [options, authorization, status] of rows) {
      const { url } = options.length === 0 ? closed : open;
      for (const [path, found] of [
        ["/indexes", status],
        ["/indexes/none", status === 200 ? 404 : status],
      ]) {
        const answer = await fetch(`${url}${path}`, { headers: { authorization } });
        assert.equal(answer.status, found, `${options} ${authorization}`);
      }
      assert.equal((await fetch(`${url}/indexes`)).status, 403);
    }
  } finally {
    await Promise.all([closed.stop(), open.stop()]);
  }
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
    } else if (schema === "query-config") {
      // Only the shop's own entry has to be whole.
      assert.deepEqual([response.status, JSON.parse(text).override], [200, null], rule);
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
