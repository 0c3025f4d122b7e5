// The page at `/` in Chromium, over the Worker and wrangler's KV. SHOTS is a directory for pictures.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { freePort, type Running, startWrangler } from "../scripts/processes.ts";
import type { Settings } from "../src/types.ts";
import { card, contrasts, launch, skip, widths } from "./browser.ts";
import { example, Namespace, type Pair, pairs } from "./examples.ts";

const POLL = 10_000;

let wrangler: Running;
let kv: Namespace;
let browser: Browser;
let problems: string[] = [];

before(async () => {
  if (skip) return;
  const started = await startWrangler(await freePort());
  wrangler = started;
  kv = new Namespace(started.kvUrl, "KV");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await wrangler?.stop();
});
beforeEach(async () => {
  if (skip) return;
  for (;;) {
    const keys: { name: string }[] = await kv.list();
    if (keys.length === 0) break;
    await kv.delete(keys.map((key) => key.name));
  }
  await hold("weighted-alias", "minimal", "all-fields", "target-off");
});

const hold = async (...names: string[]) => {
  for (const name of names) await kv.put(pairs(example(name)));
};

/** Does something with the page. Its time passes only where the test says so. */
async function visit(
  at: { width: number; height?: number; colorScheme?: "light" | "dark" },
  visiting: (page: Page) => Promise<void>,
) {
  const { width, height = 900, colorScheme = "light" } = at;
  const context = await browser.newContext({ viewport: { width, height }, colorScheme });
  try {
    const page = await context.newPage();
    problems = [];
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("dialog", (dialog) => problems.push(dialog.message()));
    page.setDefaultTimeout(30_000);
    await page.clock.install();
    await visiting(page);
    assert.deepEqual(problems, []);
  } finally {
    await context.close();
  }
}

const open = async (page: Page, key: string) => {
  await card(page, key).locator("summary").click();
  return card(page, key);
};
const state = (page: Page, text: string | RegExp) =>
  page.getByRole("status").getByText(text).waitFor();

for (const width of [390, 1280]) {
  test(`at ${width} pixels, bars show shares and text can be read`, { skip }, async () => {
    await kv.put([{ key: "zzz", value: "not JSON" }]);
    for (const colorScheme of ["light", "dark"] as const) {
      await hold("weighted-alias");
      await visit({ width, colorScheme }, async (page) => {
        await page.goto(wrangler.url);
        const alias = await open(page, "acme-products");
        await alias.getByText("Searches on").waitFor();
        // Weights of 0.7, 0.2, and 0.1 for internal searches: the first two share the others.
        assert.deepEqual(await widths(alias), [0.778, 0.222, 0.1]);
        await alias.getByText("10 % of internal searches, weight 0.1").waitFor();
        const bars = await alias
          .locator(".bar")
          .evaluateAll((all) => all.map((bar) => bar.clientWidth));
        assert.ok(
          bars.every((bar) => bar > 100),
          `${bars}`,
        );
        await (await open(page, "acme-shoes")).getByText("off, weight").waitFor();
        await (
          await open(page, "zzz")
        )
          .getByText("The value under this key is not JSON.")
          .waitFor();
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${wide}`);

        const readable = async () => {
          const all = await contrasts(page);
          assert.ok(all.length > 20);
          assert.deepEqual(
            all.filter(([, contrast]) => contrast < 4.5),
            [],
          );
        };
        await readable();
        await hold("alias-off");
        await page.clock.runFor(POLL);
        await alias.getByText("Searches off").waitFor();
        assert.deepEqual(await widths(alias), [0.778, 0.222, 0.1]);
        await readable();
        await page.locator(".new").first().waitFor({ state: "detached" });
        const shots = process.env["SHOTS"];
        if (shots !== undefined)
          await page.screenshot({
            path: join(shots, `page-${width}-${colorScheme}.png`),
            fullPage: true,
          });
      });
    }
  });
}

test(
  "a poll leaves a selection and open cards, and shows what is new for a while",
  { skip },
  async () => {
    await visit({ width: 900 }, async (page) => {
      await page.goto(wrangler.url);
      const products = await open(page, "acme-products");
      await products.getByText("Searches on").waitFor();
      assert.equal(await page.locator(".new").count(), 0, "nothing is new at first");
      const name = card(page, "acme-products-v1").getByRole("heading");
      await name.selectText();
      const selected = () => page.evaluate(() => getSelection()!.toString());
      assert.equal(await selected(), "acme-products-v1");

      // Another key of this index than that which is listed first holds an older value.
      const older = structuredClone(example("weighted-alias"));
      older.kv.metadata.digest = "0".repeat(64);
      await kv.put(pairs(older).slice(0, 1));
      await kv.delete(["acme-shoes"]);
      await page.clock.runFor(POLL);
      await card(page, "acme.myshopify.com").waitFor();
      await page.getByText("Another key of this name holds another value.").first().waitFor();
      assert.equal(await card(page, "acme-shoes").count(), 0);
      const ids = await page.locator("details").evaluateAll((all) => all.map(({ id }) => id));
      assert.equal(new Set(ids).size, ids.length);
      assert.equal(await selected(), "acme-products-v1");
      await card(page, "acme-products").getByText("Searches on").waitFor();
      await page.locator(".new").first().waitFor({ state: "detached" });
      await page.clock.runFor(2 * POLL);
      assert.equal(await page.locator(".new").count(), 0, "what differs does not stay new");
    });
  },
);

test("an open tab asks for one page of keys at a time, while it is seen", { skip }, async () => {
  await visit({ width: 900 }, async (page) => {
    await page.goto(wrangler.url);
    await state(page, "4 indexes under 6 keys");
    const asked: string[] = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    const hide = (hidden: boolean) =>
      page.evaluate((hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      }, hidden);
    await page.clock.runFor(6 * POLL);
    await page.waitForTimeout(1_000);
    assert.deepEqual(asked, Array(6).fill("/indexes"));
    await hide(true);
    await page.clock.runFor(60 * POLL);
    await hide(false);
    assert.equal(asked.length, 6);
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await page.waitForTimeout(1_000);
    assert.equal(asked.length, 7, "who comes back sees what is there now");
  });
});

test(
  "of 1,500 indexes the page shows the first, and more on demand, and finds one",
  { skip },
  async () => {
    const { metadata } = example("minimal").kv;
    const indexes = Array.from({ length: 1_500 }, (_, n): Pair => {
      const index_name = `i${String(n).padStart(4, "0")}`;
      const digest = String(n).padStart(64, "0");
      return {
        key: `many-${index_name}`,
        value: "{}",
        metadata: { ...metadata, index_name, digest, system_account_id: "many" },
      };
    });
    for (let from = 0; from < 1_500; from += 500) await kv.put(indexes.slice(from, from + 500));
    await visit({ width: 1280 }, async (page) => {
      await page.goto(wrangler.url);
      await state(page, "248 indexes under the first 250 keys of more");
      for (let shown = 500; shown <= 1_750; shown += 250) {
        await page.getByRole("button", { name: "Show more" }).click();
        await state(page, new RegExp(`(first ${shown} keys of more|under 1506 keys)`));
      }
      await state(page, "1504 indexes under 1506 keys");
      assert.equal(await page.locator("details").count(), 1_504);
      assert.ok(await page.getByRole("button", { name: "Show more" }).isHidden());
      if (process.env["SHOTS"] !== undefined)
        await page.screenshot({ path: join(process.env["SHOTS"], "page-1280-1500-indexes.png") });

      // Each poll asks for one page, and in its turn comes every page.
      await kv.delete(["many-i1400"]);
      for (let turn = 0; turn < 7; turn++) await page.clock.runFor(POLL);
      await state(page, "1503 indexes under 1505 keys");

      await page.getByLabel("Keys that begin with").fill("many-i077");
      await page.getByRole("button", { name: "Find" }).click();
      await state(page, "10 indexes under 10 keys");
    });
  },
);

test("an empty page is not the end", { skip }, async () => {
  await visit({ width: 390 }, async (page) => {
    const entry = { key: "acme-shoes", metadata: null };
    await page.route("**/indexes?*", (route) => {
      const cursor = new URL(route.request().url()).searchParams.get("cursor");
      const next = { null: "a", a: "b", b: "c" }[String(cursor)] ?? null;
      return route.fulfill({ json: { keys: next === "c" ? [entry] : [], cursor: next } });
    });
    await page.goto(wrangler.url);
    await state(page, "1 index under the first 1 keys of more");
    await page.getByRole("button", { name: "Show more" }).click();
    await state(page, "1 index under 1 keys");
  });
});

test("a name is text, whatever stands in it", { skip }, async () => {
  const script = `<img src=x onerror="alert('name')"><script>alert("script")</script>`;
  const bags: any = example("legacy-read-alias");
  Object.assign(bags.kv.value, { index_name: script, shop_id: script });
  Object.assign(bags.kv.metadata, { index_name: script, system_account_id: "javascript:alert(1)" });
  bags.kv.metadata.environment = "prod";
  bags.kv.value.index_aliases.doc_reads.targets[0].index_id = script;
  bags.kv.value.index_aliases.analytics = { enabled: true, index_id: script, internal: false };
  bags.kv.keys = [script];
  await kv.put(pairs(bags));
  await visit({ width: 390 }, async (page) => {
    await page.goto(wrangler.url);
    const named = page.locator("details", { hasText: script });
    await named.locator("summary").click();
    await named.getByText("Searches on").waitFor();
    assert.equal(await named.getByText(script).count(), 5);
    assert.equal(await page.locator("main img, main script, main a").count(), 0);
  });
});

test("a value of 24 MB is shown on demand", { skip }, async () => {
  const value = example("minimal").kv.value as Settings;
  value.search_config = { text: "x".repeat(24_000_000) };
  const { metadata } = example("minimal").kv;
  await kv.put([{ key: "acme-products-v1", value: JSON.stringify(value), metadata }]);
  await visit({ width: 390 }, async (page) => {
    await page.goto(wrangler.url);
    await (
      await open(page, "acme-products-v1")
    )
      .getByText("https://products-v1.example.com/")
      .waitFor();
  });
});

test("the page sends the secret that stands behind the # of its address", { skip }, async () => {
  await visit({ width: 390 }, async (page) => {
    const request = page.waitForRequest("**/indexes?*");
    await page.goto(`${wrangler.url}/#s3cret%20%21`);
    assert.equal((await request).headers()["authorization"], "Bearer s3cret !");
  });
});
