// The Worker in workerd, over the KV of `wrangler dev`.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { freePort, startWrangler, type Wrangler } from "../scripts/processes.ts";
import type { Target } from "../src/types.ts";
import { broken, type Example, example, Namespace, names, pairs } from "./examples.ts";

let wrangler: Wrangler;
let kv: Record<"KV" | "KV_QCFG", Namespace>;

before(async () => {
  wrangler = await startWrangler(await freePort());
  const { kvUrl } = wrangler;
  kv = { KV: new Namespace(kvUrl, "KV"), KV_QCFG: new Namespace(kvUrl, "KV_QCFG") };
});
after(() => wrangler.stop());
beforeEach(() => Promise.all([kv.KV.clear(), kv.KV_QCFG.clear()]));

const put = async (...examples: (string | Example)[]) => {
  for (const name of examples) {
    const one = typeof name === "string" ? example(name) : name;
    await kv[one.namespace].put(pairs(one));
  }
};
const ask = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${wrangler.url}${path}`, { headers });
const json = async (path: string, headers: Record<string, string> = {}) => {
  const response = await ask(path, headers);
  assert.equal(response.status, 200, path);
  return (await response.json()) as any;
};
const route = (key: string, headers: Record<string, string> = {}) =>
  json(`/route/${encodeURIComponent(key)}`, headers);

/** Points the alias of acme-bags at these targets. */
const bags = (...targets: Partial<Target>[]) => {
  const changed = example("legacy-read-alias");
  const all = targets.map((target) => ({ internal: false, weight: 1, ...target }));
  changed.value.index_aliases.doc_reads.targets = all;
  return put(changed);
};
/** An index under its index id. */
const named = (system_account_id: string, index_name: string, more: object = {}) => {
  const { value, metadata } = example("minimal");
  return {
    key: `${system_account_id}-${index_name}`,
    value: JSON.stringify({ ...value, system_account_id, index_name, ...more }),
    metadata: { ...metadata, system_account_id, index_name },
  };
};

test("an index is found by its shop id and by its index id", async () => {
  await put("all-fields", "minimal");
  const found = await route("acme-next.myshopify.com");
  assert.equal(found.index_id, "acme-products-v2");
  assert.deepEqual(await route("acme-products-v2"), found);
  assert.equal((await ask("/route/nobody.myshopify.com")).status, 404);
});

test("a user keeps a target, and internal targets are for internal requests", async () => {
  await put("weighted-alias", "minimal", "all-fields", "null-and-empty");
  const target = async (headers: Record<string, string>) =>
    (await route("acme.myshopify.com", headers)).target.index_id;
  // The hash of "user-1" is near the end of the scale, that of "ada" near its beginning.
  for (const id of ["x-user-id", "x-session-id"]) {
    assert.equal(await target({ [id]: "ada" }), "acme-products-v1");
    assert.equal(await target({ [id]: "user-1" }), "acme-products-v2");
    assert.equal(await target({ [id]: "user-1", "x-marqo-internal": "true" }), "acme-blank");
    assert.equal(await target({ [id]: "user-1", "x-marqo-internal": "1" }), "acme-products-v2");
  }
  assert.equal(await target({ "x-user-id": "ada", "x-session-id": "user-1" }), "acme-products-v1");
});

const missing: [what: string, id: string, value: string | null][] = [
  ["not there", "acme-products-v1", null],
  ["not JSON", "acme-products-v1", "not JSON"],
  ["not of the schema", "acme-products-v1", named("acme", "products-v1", { pixel_id: null }).value],
  ["a URL of no host", "acme-x", named("acme", "x", { index_url: "http://256.0.0.1/" }).value],
  ["a key that is empty", "", null],
  ["a key that KV refuses", ".", null],
  ["a key that is too long", "x".repeat(600), null],
  ["a shop id", "acme-shop", named("acme", "other", { shop_id: "acme-shop" }).value],
];
for (const [what, id, value] of missing)
  test(`a missing target does not take the shop down: ${what}`, async () => {
    if (value !== null) await kv.KV.put([{ key: id, value }]);
    await bags({ index_id: id });
    const found = await route("acme-bags");
    assert.deepEqual([found.target.index_id, found.missing], ["acme-bags", id]);
    assert.equal((await json("/indexes/acme-bags")).doc_reads.targets[0].missing, true);
  });

test("the URL is the target's, all else the index's own, and a chain ends", async () => {
  const next = example("legacy-read-alias").value.index_aliases;
  next.doc_reads.targets[0].index_id = "acme-c";
  // U+FEFF is white space to JavaScript alone.
  const more = { index_aliases: next, pixel_id: "px-b", index_url: "https://b.example/\ufeff" };
  await kv.KV.put([named("acme", "b", more), named("acme", "c")]);
  await bags({ index_id: "acme-b" });
  const { target, pixel_id } = await route("acme-bags");
  assert.deepEqual(target, { index_id: "acme-b", index_url: "https://b.example/%EF%BB%BF" });
  assert.equal(pixel_id, undefined);
});

test("two indexes can have one key: a value that names the other one is not used", async () => {
  // An alias of a-b means a-b/c. One of another account can mean either.
  const { index_aliases } = example("legacy-read-alias").value;
  index_aliases.doc_reads.targets[0].index_id = "a-b-c";
  await kv.KV.put(["a-b", "a", "z"].map((account) => named(account, "x", { index_aliases })));
  const missing = () =>
    Promise.all(["a-b-x", "a-x", "z-x"].map(async (key) => (await route(key)).missing));
  await kv.KV.put([named("a-b", "c")]);
  assert.deepEqual(await missing(), [null, "a-b-c", null]);
  await kv.KV.put([named("a", "b-c")]);
  assert.deepEqual(await missing(), ["a-b-c", null, null]);

  await kv.KV.put([{ ...named("a-b", "c"), key: "other.example" }]);
  const strange = await ask("/route/other.example");
  assert.deepEqual([strange.status, /names another/.test(await strange.text())], [502, true]);
});

test("a query's override is found under its SHA-256, and only with its names", async () => {
  await put("weighted-alias", "query-config", "query-config-unicode");
  const override = async (query: string) =>
    (await json(`/route/acme.myshopify.com?q=${encodeURIComponent(query)}`)).override;
  assert.deepEqual(await override("red running shoes"), example("query-config").value);
  assert.deepEqual((await override("größe 42 #sale")).hidden_ids, ["sku-10", "sku-9"]);
  assert.equal(await override("blue shoes"), null);
  for (const name of ["system_account_id", "index_name", "normalized_query"]) {
    const changed = example("query-config");
    changed.value[name] = "other";
    await put(changed);
    assert.equal(await override("red running shoes"), null, name);
  }
});

test("a header says how long ago the table took the change", async () => {
  const minimal = example("minimal");
  minimal.metadata.changed_at = `${new Date(Date.now() - 40_000).toISOString().slice(0, 19)}Z`;
  await put(minimal);
  const age = Number((await ask("/route/acme-products-v1")).headers.get("x-settings-age"));
  assert.ok(age >= 40 && age < 60, `${age}`);
});

test("no response has the API key, what a URL hides, or a field that readers do not know", async () => {
  await put(...names);
  const changed = example("weighted-alias");
  changed.value.index_url = "https://user:key-acme@products.example.com/search?token=key-acme";
  for (const at of [changed.value, changed.value.index_aliases.doc_reads]) at.later = "key-acme";
  changed.value.index_aliases.doc_reads.targets[0].later = "key-acme";
  await put(changed);
  const keys = names.flatMap((name) => example(name).keys).map(encodeURIComponent);
  const paths = keys.flatMap((key) => [`/route/${key}?q=red%20running%20shoes`, `/indexes/${key}`]);
  for (const path of ["/", "/indexes", "/nowhere", ...paths]) {
    const response = await ask(path, { "x-marqo-internal": "true" });
    const all = JSON.stringify([...response.headers]) + (await response.text());
    assert.ok(!all.includes("key-acme") && !all.includes("marqo_api_key"), path);
  }
  const shown = await json("/indexes/acme-products");
  assert.equal(shown.index_url, "https://products.example.com/search");
  const shares = shown.doc_reads.targets.map(({ share }: { share: number }) => share);
  assert.deepEqual(shares, [0.7 / (0.7 + 0.2), 0.2 / (0.7 + 0.2), 0.1 / (0.7 + 0.2 + 0.1)]);
});

test("the list has the keys and what is known of their metadata, in pages", async () => {
  const { metadata } = example("minimal");
  const key = (number: number) => `k${String(number).padStart(3, "0")}`;
  const all = Array.from({ length: 260 }, (_, n) => ({ key: key(n), value: "" }));
  await kv.KV.put([{ ...all[0]!, metadata: { ...metadata, later: "x" } }, ...all.slice(1)]);
  const first = await json("/indexes");
  assert.deepEqual(first.keys[0], { key: "k000", metadata });
  assert.deepEqual(first.keys[1], { key: "k001", metadata: null });
  const second = await json(`/indexes?${new URLSearchParams({ cursor: first.cursor })}`);
  assert.deepEqual([first.keys.length, second.keys.length, second.cursor], [250, 10, null]);
  assert.equal((await json("/indexes?prefix=k25")).keys.length, 10);
});

test("a value of 24 MB is served and shown", async () => {
  const text = "x".repeat(24_000_000);
  await kv.KV.put([named("acme", "large", { search_config: { text } })]);
  assert.equal((await route("acme-large")).index_id, "acme-large");
  assert.equal((await ask("/indexes/acme-large")).status, 200);
});

test("where the Worker is not local, lists are for whoever has the secret", async () => {
  for (const secret of ["", "s3cret"]) {
    const options = secret ? ["--var", `LIST_SECRET:${secret}`] : [];
    const { url, stop } = await startWrangler(await freePort(), options);
    for (const authorization of [`Bearer ${secret}`, "Bearer s3cre", ""]) {
      const right = secret !== "" && authorization === "Bearer s3cret";
      const asked = ["/indexes", "/indexes/none"].map((path) =>
        fetch(url + path, { headers: { authorization } }),
      );
      const statuses = (await Promise.all(asked)).map(({ status }) => status);
      assert.deepEqual(statuses, right ? [200, 404] : [403, 403], authorization);
    }
    await stop();
  }
});

for (const { rule, schema, example: name, at, with: replacement } of broken)
  test(`a value that breaks a rule is not used: ${rule}`, async () => {
    const changed = example(name);
    const [field, ...path]: string[] = at.split("/").slice(1).reverse();
    const root: any = schema === "metadata" ? changed.metadata : changed.value;
    const parent = path.reduceRight((value, step) => value[step], root);
    if (replacement === undefined) delete parent[field!];
    else parent[field!] = replacement;
    await put("weighted-alias", changed);
    const key = schema === "query-config" ? "acme-products" : changed.keys[0];
    const response = await ask(`/route/${key}?q=red%20running%20shoes`);
    const { error, override } = (await response.json()) as any;
    // Only the shop's own settings have to be whole.
    assert.equal(response.status, schema === "settings" ? 502 : 200);
    if (schema === "settings") assert.match(error, /breaks its schema at #/);
    if (schema === "query-config") assert.equal(override, null);
    if (schema === "metadata") assert.equal(response.headers.get("x-settings-age"), null);
  });
