// Where a search goes, without a runtime around it.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  analyticsIndex,
  fnv1a,
  pick,
  pointOf,
  searchSettings,
  shareOf,
  shares,
} from "../src/routing.ts";
import type { DocReads, Settings, Target } from "../src/types.ts";

/** Our own vectors. A reader in another language has to agree with them. */
const VECTORS: [id: string, hash: number, target: string][] = [
  ["", 0x811c9dc5, "v1"],
  ["a", 0xe40c292c, "v2"],
  ["ada", 0x38390dbb, "v1"],
  ["grace", 0x9c487a6b, "v1"],
  ["user-1", 0xf5537974, "v3"],
  ["größe 42", 0x945712f4, "v1"],
  ["靴", 0x664064fd, "v1"],
  ["b2c0c5f4-2f0e-4e7e-9d0f-1f7a3c1e8a55", 0x8f030859, "v1"],
];

const target = (index_id: string, weight: number, more: Partial<Target> = {}): Target => ({
  index_id,
  internal: false,
  weight,
  ...more,
});
const alias = (...targets: Target[]): DocReads => ({ enabled: true, targets });
const rollout = alias(target("v1", 0.7), target("v2", 0.2), target("v3", 0.1));
const sharesOf = (doc_reads: DocReads | undefined, internal = false) =>
  Object.fromEntries(shares(doc_reads, internal).map(({ index_id, share }) => [index_id, share]));

test("an id always has the same hash and the same target", () => {
  for (const [id, hash, expected] of VECTORS) {
    assert.equal(fnv1a(id), hash, id);
    assert.equal(pick(shares(rollout, false), pointOf(id))?.index_id, expected, id);
  }
});

test("targets get as many users as their weights say", () => {
  const counts = new Map<string, number>();
  for (let user = 0; user < 20_000; user++) {
    const chosen = pick(shares(rollout, false), pointOf(`user-${user}`))?.index_id ?? "";
    counts.set(chosen, (counts.get(chosen) ?? 0) + 1);
  }
  for (const { index_id, weight } of rollout.targets) {
    const share = (counts.get(index_id) ?? 0) / 20_000;
    assert.ok(Math.abs(share - weight) < 0.02, `${index_id}: ${share}`);
  }
});

test("a weight that grows takes over users and moves no others", () => {
  const before = shares(alias(target("old", 0.9), target("new", 0.1)), false);
  const after = shares(alias(target("old", 0.5), target("new", 0.5)), false);
  for (let user = 0; user < 1_000; user++) {
    const point = pointOf(`user-${user}`);
    if (pick(before, point)?.index_id === "new") assert.equal(pick(after, point)?.index_id, "new");
  }
});

test("a target counts if it is on, has a weight, and is not for others", () => {
  const rows: [DocReads | undefined, boolean, Record<string, number>][] = [
    [undefined, false, {}],
    [{ enabled: false, targets: rollout.targets }, true, {}],
    [alias(), false, {}],
    [alias(target("a", 0)), false, {}],
    [alias(target("a", 0.5), target("b", 0.5, { enabled: false })), false, { a: 1 }],
    [alias(target("a", 0.5), target("b", 0.5, { enabled: true })), false, { a: 0.5, b: 0.5 }],
    [alias(target("a", 0.5), target("b", 0.5, { internal: true })), false, { a: 1 }],
    [alias(target("a", 0.5), target("b", 0.5, { internal: true })), true, { a: 0.5, b: 0.5 }],
    [alias(target("a", 1), target("b", 1)), false, { a: 0.5, b: 0.5 }],
  ];
  for (const [doc_reads, internal, expected] of rows) {
    assert.deepEqual(sharesOf(doc_reads, internal), expected);
  }
});

test("the last target has the end of the scale, whatever rounding leaves", () => {
  const thirds = shares(alias(target("a", 0.1), target("b", 0.1), target("c", 0.1)), false);
  assert.equal(pick(thirds, 1 - 2 ** -32)?.index_id, "c");
  assert.equal(pick([], 0.5), undefined);
});

test("analytics of another index are used if the alias is on, and not for others", () => {
  const analytics = { enabled: true, index_id: "a", internal: false };
  assert.equal(analyticsIndex(analytics, false), "a");
  assert.equal(analyticsIndex(undefined, true), null);
  assert.equal(analyticsIndex({ ...analytics, enabled: false }, true), null);
  assert.equal(analyticsIndex({ ...analytics, internal: true }, false), null);
  assert.equal(analyticsIndex({ ...analytics, internal: true }, true), "a");
});

test("an API key goes nowhere but to the URL that it stands beside", () => {
  const settings = (name: string): Settings => ({
    system_account_id: name,
    index_name: "i",
    shop_id: `${name}.example`,
    marqo_api_key: `key-${name}`,
    index_url: `https://${name}.example`,
    search_config: { of: name },
    index_aliases: { doc_reads: rollout },
  });
  const { system_account_id, marqo_api_key, index_url, ...rest } = settings("target");
  const searched = searchSettings(settings("own"), settings("target"));
  assert.deepEqual(searched, {
    ...settings("own"),
    system_account_id,
    marqo_api_key,
    index_url,
  });
  assert.notDeepEqual(searched.search_config, rest.search_config);
});

test("a target's share is that of the searches that it counts for, also while the alias is off", () => {
  const off = {
    ...alias(target("a", 0.3), target("b", 0.1), target("c", 0.4, { internal: true })),
    enabled: false,
  };
  assert.deepEqual(
    off.targets.map((one) => Math.round(shareOf(one, off) * 1000)),
    [750, 250, 500],
  );
  const none = alias(target("a", 0), target("b", 1, { enabled: false }));
  assert.deepEqual(
    none.targets.map((one) => shareOf(one, none)),
    [0, 0],
  );
});
