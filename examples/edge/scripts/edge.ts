// `make edge`: the table, the function and the Worker on this machine, until Ctrl-C.

import { startTestbed, startWrangler } from "./processes.ts";

const [program] = process.argv.slice(2);
if (program === undefined) throw new Error("usage: edge.ts TESTBED");

console.log("Starting wrangler dev …");
const wrangler = await startWrangler(8787);
const show = (text: string) => process.stdout.write(text);
const testbed = await startTestbed(program, wrangler.kvUrl, [], show).catch(async (error) => {
  await wrangler.stop();
  throw error;
});

console.log(`
Open             ${wrangler.url}/
Put an item      make put EXAMPLE=weighted-alias    (one of schema/examples/)
Switch it off    make put EXAMPLE=alias-off
Ask the Worker   curl -H 'x-user-id: ada' ${wrangler.url}/route/acme.myshopify.com
`);

const interrupted = new Promise<void>((resolve) => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(signal, () => resolve());
});
const ended = await Promise.race([interrupted, wrangler.ended, testbed.ended]);
await Promise.all([testbed.stop(), wrangler.stop()]);
if (ended !== undefined) {
  console.error(ended);
  process.exitCode = 1;
}
