// The page at `/` in Chromium, over the Worker and wrangler's KV. SCREENSHOTS is a folder for pictures.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { type Browser, chromium, type Page } from "playwright-core";
import { freePort, startWrangler, type Wrangler } from "../scripts/processes.ts";
import { example, Namespace, pairs } from "./examples.ts";

const POLL = 10_000;
const folders = (process.env["PATH"] ?? "").split(delimiter);
const programs = ["chromium", "chromium-browser", "google-chrome"];
const found = folders.flatMap((folder) => programs.map((name) => join(folder, name)));
const executablePath = process.env["CHROMIUM"] ?? found.find((path) => existsSync(path)) ?? "";
const skip = executablePath === "" && "no Chromium here: install it, or set CHROMIUM to its path";

let wrangler: Wrangler;
let kv: Namespace;
let browser: Browser;

before(async () => {
  if (skip) return;
  wrangler = await startWrangler(await freePort());
  kv = new Namespace(wrangler.kvUrl, "KV");
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
});
after(async () => {
  await browser?.close();
  await wrangler?.stop();
});

/** Visits the page two minutes after the examples were exported. Its time passes only on demand. */
function visit(name: string, width: number, visiting: (page: Page) => Promise<void>) {
  test(name, { skip }, async () => {
    await kv.clear();
    for (const name of ["weighted-alias", "minimal", "all-fields", "target-off"])
      await kv.put(pairs(example(name)));
    const context = await browser.newContext({ viewport: { width, height: 900 } });
    const page = await context.newPage();
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("dialog", (dialog) => problems.push(dialog.message()));
    await page.clock.install({ time: "2026-11-22T10:02:30Z" });
    await page.goto(wrangler.url);
    await state(page, /^Indexes/);
    await visiting(page).finally(() => context.close());
    assert.deepEqual(problems, []);
  });
}

const state = (page: Page, text: string | RegExp) =>
  page.getByRole("status").getByText(text).waitFor();
const card = (page: Page, name: string) =>
  page.locator("article", { has: page.getByRole("heading", { name, exact: true }) });

for (const width of [390, 760, 1280])
  visit(`at ${width} pixels, shares and what is on are seen at a glance`, width, async (page) => {
    const products = card(page, "acme-products");
    await products.getByText("Searches on").waitFor();
    // Of weights of 0.7, 0.2 and an internal 0.1, the first two share all but internal searches.
    assert.deepEqual(await products.locator(".target").allTextContents(), [
      "acme-products-v177.8 % · weight 0.7",
      "acme-products-v222.2 % · weight 0.2",
      "acme-blank missing in KV10 % · weight 0.1",
    ]);
    await products.getByText("Internal searches, 90 % as above").waitFor();
    const bars = products.locator("progress");
    const values = await bars.evaluateAll((all: HTMLProgressElement[]) =>
      all.map(({ value }) => Math.round(value * 1000)),
    );
    assert.deepEqual(values, [778, 222, 100]);
    const written = products.locator("[title*='2026-11-22T10:00:12.345Z']");
    assert.equal(await written.textContent(), "2 min ago · stream");
    assert.equal(await products.getByText("acme-products", { exact: true }).count(), 1);

    const off = example("legacy-read-alias");
    const { doc_reads } = off.value.index_aliases;
    doc_reads.enabled = false;
    doc_reads.targets.push({ ...doc_reads.targets[0], index_id: "acme-products-v2", weight: 0.1 });
    await kv.put(pairs(off));
    await page.clock.runFor(POLL);
    await card(page, "acme-bags").getByText("Searches off").waitFor();
    await page.getByText("Weights sum to 1.1, not 1. Shares are scaled.").waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${wide}`);
    const folder = process.env["SCREENSHOTS"];
    if (folder) await page.screenshot({ path: join(folder, `page-${width}.png`), fullPage: true });

    await kv.put(pairs(example("null-and-empty")));
    await page.clock.runFor(POLL);
    await products.getByText("missing").waitFor({ state: "detached" });
  });

visit("a poll changes only the cards that differ, so a selection stays", 900, async (page) => {
  await card(page, "acme-products").getByText("Searches on").waitFor();
  await card(page, "acme-products-v1").getByRole("heading").selectText();
  await kv.put(pairs(example("alias-off")).slice(0, 1));
  await kv.put([{ key: "0", value: "not JSON" }]);
  await kv.delete(["acme-shoes"]);
  await page.clock.runFor(POLL);
  await card(page, "acme-products").getByText("Its keys hold different values.").waitFor();
  await card(page, "0").getByText("The value under this key is not JSON.").waitFor();
  assert.equal(await card(page, "acme-shoes").count(), 0);
  assert.equal(await page.evaluate(() => String(getSelection())), "acme-products-v1");
});

visit("an open tab lists one page a poll, and only while it is seen", 900, async (page) => {
  let listings = 0;
  page.on("request", (request) => (listings += Number(request.url().includes("/indexes?"))));
  const poll = async (polls: number, hidden: boolean, expected: number) => {
    await page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
    }, hidden);
    await page.clock.runFor(polls * POLL);
    // This request is the test's own. It comes after the page's requests.
    await page.evaluate(() => fetch("/indexes/none"));
    assert.equal(listings, expected);
  };
  await poll(1, false, 1);
  await poll(60, true, 1);
  await poll(1, false, 2);
});

visit("a page of keys is listed, more on demand, and some are found", 900, async (page) => {
  const names = Array.from({ length: 300 }, (_, n) => `many-${String(n).padStart(3, "0")}`);
  await kv.put(names.map((key) => ({ key, value: "" })));
  await page.reload();
  await state(page, "Indexes: 248 · keys: 250 of more");
  await page.getByRole("button", { name: "Show more" }).click();
  await state(page, "Indexes: 304 · keys: 306 ·");
  // Each poll lists one page, and every page has its turn.
  await kv.delete(["many-299"]);
  await page.clock.runFor(2 * POLL);
  await state(page, "Indexes: 303 · keys: 305 ·");

  const find = async (prefix: string) => {
    await page.getByLabel("Keys that begin with").fill(prefix);
    await page.getByRole("button", { name: "Find" }).click();
  };
  await find("many-07");
  await state(page, "Indexes: 10 · keys: 10 ·");
  await find("Many");
  await page.getByText("There is no such key.").waitFor();
});

visit("a name is text, whatever is in it", 390, async (page) => {
  const script = `<img src=x onerror="alert('name')"><script>alert("script")</script>`;
  const bags = example("legacy-read-alias");
  bags.keys = [script];
  Object.assign(bags.value, { index_name: script, shop_id: script });
  Object.assign(bags.metadata, { index_name: script, system_account_id: "javascript:alert(1)" });
  bags.value.index_aliases.doc_reads.targets[0].index_id = script;
  bags.value.index_aliases.analytics = { enabled: true, index_id: script, internal: false };
  await kv.put(pairs(bags));
  await page.clock.runFor(POLL);
  const named = page.locator("article", { hasText: script });
  await named.scrollIntoViewIfNeeded();
  await named.getByText("Searches on").waitFor();
  // The heading, the key, the target, and the index of the analytics.
  assert.equal(await named.getByText(script).count(), 4);
  assert.equal(await page.locator("main img, main script, main a").count(), 0);
});

visit("the page sends the secret behind the # of its address", 390, async (page) => {
  await page.goto(`${wrangler.url}/#s3cret%20%21`);
  const listed = page.waitForRequest("**/indexes?*");
  await page.reload();
  assert.equal((await listed).headers()["authorization"], "Bearer s3cret !");
});
