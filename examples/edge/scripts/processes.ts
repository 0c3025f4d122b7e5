// The processes of the local stack: wrangler with the Worker, and the testbed with the function.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const WRANGLER = new URL("../node_modules/wrangler/bin/wrangler.js", import.meta.url).pathname;
const EDGE = new URL("..", import.meta.url).pathname;

/** Far more than a start takes, also on a busy machine. */
const START_MILLISECONDS = 120_000;

/** A running process. */
export interface Running {
  /** Where it listens. */
  url: string;
  /** Ends with the process, however that ends, and says what it printed. */
  ended: Promise<string>;
  /** Ends the process and all that it has started. */
  stop(): Promise<void>;
}

/** The ports of `make local` and `make edge`, by the names of the testbed's options. */
export const LOCAL_PORTS = {
  drills: 8790,
  dynamodb: 8000,
  lambda: 9001,
  "api-keys": 8788,
  secrets: 8789,
};
export type TestbedPorts = typeof LOCAL_PORTS;

/** The Worker on `wrangler dev` with empty namespaces, and the address of its KV. */
export async function startWrangler(
  port: number,
  options = ["--var", "LOCAL:true"],
): Promise<Running & { kvUrl: string }> {
  const state = await mkdtemp(join(tmpdir(), "settings-reader-"));
  const url = `http://127.0.0.1:${port}`;
  const inspector = await freePort();
  const ports = ["--ip", "127.0.0.1", "--port", `${port}`, "--inspector-port", `${inspector}`];
  const running = await start(
    url,
    process.execPath,
    [WRANGLER, "dev", ...ports, "--persist-to", state, ...options],
    {
      probe: async () => (await fetch(`${url}/route/none`)).status === 404,
      // No questions, no reports to Cloudflare, and no look at where this machine is.
      env: {
        CI: "true",
        CLOUDFLARE_CF_FETCH_ENABLED: "false",
        WRANGLER_SEND_METRICS: "false",
        WRANGLER_SEND_ERROR_REPORTS: "false",
        WRANGLER_WRITE_LOGS: "false",
      },
    },
  );
  const stop = async () => {
    await running.stop();
    await rm(state, { recursive: true, force: true });
  };
  const kvUrl = `${url}/cdn-cgi/local/explorer/api/storage/kv/namespaces/{namespace_id}`;
  return { ...running, stop, kvUrl };
}

/** The stand-ins and the function, which writes to the KV at `kvUrl`. */
export function startTestbed(
  program: string,
  kvUrl: string,
  ports: TestbedPorts,
  show?: (text: string) => void,
): Promise<Running> {
  const options = Object.entries(ports).flatMap(([name, port]) => [`--${name}-port`, `${port}`]);
  const url = `http://127.0.0.1:${ports.dynamodb}`;
  return start(url, program, ["up", "--kv-url", kvUrl, ...options], {
    probe: async (printed) => printed.includes("Ctrl-C"),
    show,
  });
}

/** A port that nobody uses now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}

interface Options {
  /** Whether the process is ready, given what it has printed. */
  probe(printed: string): Promise<boolean>;
  env?: Record<string, string>;
  show?: ((text: string) => void) | undefined;
}

async function start(
  url: string,
  program: string,
  args: string[],
  options: Options,
): Promise<Running> {
  // As the leader of a group, so that the group can be ended.
  const child = spawn(program, args, {
    cwd: EDGE,
    detached: true,
    env: { ...process.env, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
      options.show?.(text);
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
  const patience = AbortSignal.timeout(START_MILLISECONDS);
  while (!(await options.probe(printed).catch(() => false))) {
    if (over) throw new Error(`${program} ended:\n${await ended}`);
    if (patience.aborted) {
      await stop();
      throw new Error(`${program} was not ready in time:\n${printed}`);
    }
    await sleep(100);
  }
  return { url, ended, stop };
}
