// One pass of `make edge`: from the table through the function and wrangler's KV to the Worker and
// its page. TESTBED is the program; SCREENSHOT is a file for a picture of the page.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { Locator } from "playwright-core";
import {
  freePort,
  LOCAL_PORTS,
  type Running,
  startTestbed,
  startWrangler,
  type TestbedPorts,
} from "../scripts/processes.ts";
import { card, launch, skip, widths } from "./browser.ts";

/** How soon a change is to be seen, also on a busy machine. */
const SECONDS = 20;

const program = process.env["TESTBED"];
if (program === undefined) throw new Error("TESTBED is not set: run `make test-edge`");

let ports: TestbedPorts;
let wrangler: Running;
let testbed: Running;

/** `make local` may run: the ports that it takes are taken here, where nobody has them. */
const taken = Object.values(LOCAL_PORTS).map((port) =>
  createServer()
    .on("error", () => {})
    .listen(port),
);

before(async () => {
  const free = await Promise.all(
    Object.keys(LOCAL_PORTS).map(async (name) => [name, await freePort()]),
  );
  ports = Object.fromEntries(free);
  const started = await startWrangler(await freePort());
  wrangler = started;
  testbed = await startTestbed(program, started.kvUrl, ports);
});
after(async () => {
  await testbed?.stop();
  await wrangler?.stop();
  for (const server of taken) server.close();
});

const run = promisify(execFile);
const put = (name: string) => {
  const item = new URL(`../../../schema/examples/${name}.json`, import.meta.url).pathname;
  return run(program, ["put", item, "--dynamodb-port", `${ports.dynamodb}`]);
};
const invoke = async (payload: object) => {
  const path = "/2015-03-31/functions/ecom-settings-exporter/invocations";
  const body = JSON.stringify(payload);
  const answer = await fetch(`http://127.0.0.1:${ports.lambda}${path}`, { method: "POST", body });
  return (await answer.json()) as any;
};
const remove = async (pk: string, sk: string) => {
  const answer = await fetch(testbed.url, {
    method: "POST",
    headers: {
      "content-type": "application/x-amz-json-1.0",
      "x-amz-target": "DynamoDB_20120810.DeleteItem",
      "x-amz-date": "20260101T000000Z",
      authorization:
        "AWS4-HMAC-SHA256 Credential=local/20260101/local/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
    },
    body: JSON.stringify({
      TableName: "local-EcomIndexSettingsTable",
      Key: { pk: { S: pk }, sk: { S: sk } },
    }),
  });
  assert.equal(answer.status, 200);
};
/** Asks the Worker until it answers as expected. */
const route = async (key: string, expected: (answer: any) => boolean) => {
  const end = Date.now() + SECONDS * 1000;
  for (;;) {
    const answer = (await (
      await fetch(`${wrangler.url}/route/${key}?q=red%20running%20shoes`)
    ).json()) as any;
    if (expected(answer)) return answer;
    assert.ok(Date.now() < end, `after ${SECONDS} s: ${JSON.stringify(answer)}`);
    await sleep(50);
  }
};

test("an item that is put into the table shows at the Worker's URL within seconds", async () => {
  for (const name of ["minimal", "all-fields", "query-config", "weighted-alias"]) await put(name);
  const answer = await route("acme.myshopify.com", ({ weights, override }) => weights && override);
  assert.equal(answer.alias, "on");
  assert.match(answer.target.index_id, /^acme-products-v[12]$/);
  assert.deepEqual(answer.override.pinned_ids, ["sku-7", "sku-12"]);
});

test("a reconcile over wrangler's KV finds what is missing, and repairs it", async () => {
  const audit = await invoke({ reconcile: {} });
  assert.deepEqual(
    [audit.complete, audit.settings.listed, audit.query_configs.listed],
    [true, 5, 1],
  );
  assert.deepEqual(
    [audit.settings.missing, audit.settings.stale, audit.settings.orphaned],
    [0, 0, 0],
  );
  const kvUrl = `${wrangler.url}/cdn-cgi/local/explorer/api/storage/kv/namespaces/settings`;
  const headers = { "content-type": "application/json" };
  await fetch(`${kvUrl}/bulk/delete`, { method: "POST", headers, body: '["acme-products-v1"]' });
  const repair = await invoke({ reconcile: { apply: true } });
  assert.deepEqual(
    [repair.complete, repair.settings.missing, repair.settings.written],
    [true, 1, 1],
  );
  await route("acme-products-v1", ({ alias }) => alias === "none");
});

test("an index that is removed from the table is removed from wrangler's KV", async () => {
  await put("shop-id-is-index-id");
  await route("acme-api", ({ index_id }) => index_id === "acme-api");
  await remove("acme", "INDEX#api");
  await route("acme-api", ({ error }) => error === "No index has this key.");
});

test(
  "the page follows the table, and an alias that is switched off goes grey",
  { skip },
  async () => {
    const launched = await launch();
    try {
      const page = await launched.newPage({
        viewport: { width: 900, height: 760 },
        deviceScaleFactor: 2,
      });
      const problems: string[] = [];
      page.on("pageerror", (error) => problems.push(error.message));
      page.setDefaultTimeout(SECONDS * 1000);
      await page.goto(wrangler.url);

      const products = card(page, "acme-products");
      const alias = products.locator("section");
      await products.getByText("Keys: acme-products, acme.myshopify.com").waitFor();
      await products.getByText(/Written .* by stream \(local\), changed /).waitFor();
      await products.locator("summary").click();
      await alias.getByText("Searches on").waitFor();
      assert.deepEqual(await widths(alias), [0.778, 0.222, 0.1]);
      assert.equal(await grey(alias), false);

      await put("target-off");
      await card(page, "acme-shoes").locator("summary").click();
      await card(page, "acme-shoes").getByText("Searches on").waitFor();
      await put("alias-off");
      await alias.getByText("Searches off").waitFor();
      assert.equal(await grey(alias), true);
      assert.deepEqual(await widths(alias), [0.778, 0.222, 0.1]);
      await route("acme.myshopify.com", (answer) => answer.alias === "off");

      assert.ok(!(await page.content()).includes("key-acme"));
      const picture = process.env["SCREENSHOT"];
      if (picture !== undefined) {
        await page.locator(".new").first().waitFor({ state: "detached" });
        await page.screenshot({ path: picture, fullPage: true });
      }
      await put("weighted-alias");
      await alias.getByText("Searches on").waitFor();
      assert.equal(await grey(alias), false);
      assert.deepEqual(problems, []);
    } finally {
      await launched.close();
    }
  },
);

/** Whether the bars have no colour. */
function grey(alias: Locator): Promise<boolean> {
  return alias.evaluate((section) => {
    const color = getComputedStyle(section.querySelector(".bar > i")!).backgroundColor;
    return new Set(color.match(/\d+/g)!.slice(0, 3)).size === 1;
  });
}
