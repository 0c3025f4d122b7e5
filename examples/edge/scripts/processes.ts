// The processes of the local stack: wrangler with the Worker, and the testbed with the function.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const WRANGLER = new URL("../node_modules/wrangler/bin/wrangler.js", import.meta.url).pathname;
const EDGE = new URL("..", import.meta.url).pathname;

/** No questions, no reports to Cloudflare, and no look at where this machine is. */
const QUIET = {
  CI: "true",
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  WRANGLER_SEND_ERROR_REPORTS: "false",
  WRANGLER_WRITE_LOGS: "false",
};

/** Far more than a start takes, also on a busy machine. */
const START_MILLISECONDS = 120_000;

/** A running process. */
export interface Running {
  /** Resolves when the process ends, however that happens, to what it printed. */
  ended: Promise<string>;
  /** Ends the process and all that it has started. */
  stop(): Promise<void>;
}

export type Wrangler = Awaited<ReturnType<typeof startWrangler>>;

/** Starts the Worker on `wrangler dev`, with empty namespaces. Returns its URL, and that of its KV. */
export async function startWrangler(port: number, options = ["--var", "LOCAL:true"]) {
  const state = await mkdtemp(join(tmpdir(), "settings-reader-"));
  const url = `http://127.0.0.1:${port}`;
  const inspector = ["--inspector-port", `${await freePort()}`];
  const ports = ["--ip", "127.0.0.1", "--port", `${port}`, ...inspector];
  const running = await start(
    process.execPath,
    [WRANGLER, "dev", ...ports, "--persist-to", state, ...options],
    async () => (await fetch(`${url}/route/none`)).status === 404,
    () => {},
  );
  const stop = async () => {
    await running.stop();
    await rm(state, { recursive: true, force: true });
  };
  const kvUrl = `${url}/cdn-cgi/local/explorer/api/storage/kv/namespaces/{namespace_id}`;
  return { ...running, stop, url, kvUrl };
}

/** Starts the stand-ins and the function, which writes to the KV at `kvUrl`. */
export function startTestbed(
  program: string,
  kvUrl: string,
  options: string[] = [],
  show = (_text: string) => {},
): Promise<Running> {
  const ready = async (printed: string) => printed.includes("Ctrl-C");
  return start(program, ["up", "--kv-url", kvUrl, ...options], ready, show);
}

/** A port that nobody uses now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function start(
  program: string,
  args: string[],
  ready: (printed: string) => Promise<boolean>,
  show: (text: string) => void,
): Promise<Running> {
  // As the leader of a group, so that the group can be ended.
  const child = spawn(program, args, {
    cwd: EDGE,
    detached: true,
    env: { ...process.env, ...QUIET },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
      show(text);
    });
  }
  let over = false;
  const ended = new Promise<string>((resolve) => {
    child.on("error", (error) => resolve(`${program}: ${error.message}`));
    child.on("close", () => resolve(printed));
  }).finally(() => (over = true));
  const stop = async () => {
    if (!over && child.pid !== undefined) process.kill(-child.pid, "SIGTERM");
    await ended;
  };
  const limit = AbortSignal.timeout(START_MILLISECONDS);
  while (!(await ready(printed).catch(() => false))) {
    if (over) throw new Error(`${program} ended:\n${await ended}`);
    if (limit.aborted) {
      await stop();
      throw new Error(`${program} was not ready in time:\n${printed}`);
    }
    await sleep(100);
  }
  return { ended, stop };
}
