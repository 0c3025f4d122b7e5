// `make probe-local`: what the exporter relies on, asked of wrangler's local KV.

import { spawn } from "node:child_process";

import { freePort, startWrangler } from "./processes.ts";

const [command, ...options] = process.argv.slice(2);
if (command === undefined) throw new Error("usage: probe.ts COMMAND...");

const wrangler = await startWrangler(await freePort());
const url = wrangler.kvUrl.replace("{namespace_id}", "settings");
const env = { ...process.env, PROBE_LOCAL_KV_URL: url };
const probes = spawn(command, options, { stdio: "inherit", env, cwd: "../.." });
process.exitCode = await new Promise((resolve) =>
  probes.on("close", (status) => resolve(status ?? 1)),
);
await wrangler.stop();
