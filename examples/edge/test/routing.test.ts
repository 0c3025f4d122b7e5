// Where a search goes, without a runtime around it.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as routing from "../src/routing.ts";
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
const [half, other] = [target("a", 0.5), target("b", 0.5)];
const split = (...targets: Target[]) => routing.shares(alias(...targets), false);
const rollout = split(target("v1", 0.7), target("v2", 0.2), target("v3", 0.1));
const pick = (shares: routing.Share[], id: string) =>
  routing.pick(shares, routing.pointOf(id))?.index_id;

test("an id always has the same hash and the same target", () => {
  for (const [id, hash, expected] of VECTORS)
    assert.deepEqual([routing.fnv1a(id), pick(rollout, id)], [hash, expected], id);
});

test("a weight that grows takes over users, and moves no others", () => {
  const before = split(target("old", 0.9), target("new", 0.1));
  const after = split(target("old", 0.5), target("new", 0.5));
  const users = Array.from({ length: 1_000 }, (_, n) => `user-${n}`);
  const moved = users.filter((user) => pick(before, user) !== pick(after, user));
  assert.ok(moved.length > 300 && moved.length < 500, `${moved.length}`);
  assert.ok(moved.every((user) => pick(after, user) === "new"));
});

const counts: [when: string, alias: DocReads | undefined, internal: boolean, shares: object][] = [
  ["no alias", undefined, false, {}],
  ["an alias that is off", { ...alias(half), enabled: false }, true, {}],
  ["no targets", alias(), false, {}],
  ["no weight", alias(target("a", 0)), false, {}],
  ["a target that is off", alias(half, { ...other, enabled: false }), false, { a: 1 }],
  ["a target that is on", alias(half, { ...other, enabled: true }), false, { a: 0.5, b: 0.5 }],
  ["internal, to others", alias(half, { ...other, internal: true }), false, { a: 1 }],
  ["internal", alias(half, { ...other, internal: true }), true, { a: 0.5, b: 0.5 }],
  ["weights above 1", alias(target("a", 1), target("b", 1)), false, { a: 0.5, b: 0.5 }],
];
for (const [when, doc_reads, internal, expected] of counts)
  test(`shares with ${when}`, () => {
    const found = routing.shares(doc_reads, internal);
    assert.deepEqual(Object.fromEntries(found.map((one) => [one.index_id, one.share])), expected);
  });

test("the last target has the end of the scale, whatever rounding leaves", () => {
  const tenths = ["a", "b", "c"].map((id) => target(id, 0.1));
  assert.equal(routing.pick(split(...tenths), 1 - 2 ** -32)?.index_id, "c");
  assert.equal(routing.pick([], 0.5), undefined);
});

test("a target's share is of the searches that it counts for, also while the alias is off", () => {
  const targets = [target("a", 0.3), target("b", 0.1), target("c", 0.4, { internal: true })];
  targets.push(target("d", 0), target("e", 1, { enabled: false }));
  const off = { enabled: false, targets };
  const shares = targets.map((one) => Math.round(routing.shareOf(one, off) * 1000));
  assert.deepEqual(shares, [750, 250, 500, 0, 0]);
});

test("analytics of another index are used if the alias is on, and not for others", () => {
  const analytics = { enabled: true, index_id: "a", internal: false };
  assert.equal(routing.analyticsIndex(analytics, false), "a");
  assert.equal(routing.analyticsIndex(undefined, true), null);
  assert.equal(routing.analyticsIndex({ ...analytics, enabled: false }, true), null);
  assert.equal(routing.analyticsIndex({ ...analytics, internal: true }, false), null);
  assert.equal(routing.analyticsIndex({ ...analytics, internal: true }, true), "a");
});

test("an API key goes nowhere but to the URL beside it", () => {
  const settings = (name: string): Settings => ({
    system_account_id: name,
    index_name: "i",
    marqo_api_key: `key-${name}`,
    index_url: `https://${name}.example`,
    pixel_id: name,
  });
  const searched = routing.searchSettings(settings("own"), settings("target"));
  assert.deepEqual(searched, { ...settings("target"), pixel_id: "own" });
});
