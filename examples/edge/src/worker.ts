// Reads what the exporter writes, and says what the search proxy would do:
//
//   GET /route/{shop id or index id}?q={normalized query}   one search
//   GET /indexes?prefix={…}&cursor={…}                      a page of keys, by their metadata
//   GET /indexes/{key}                                      what one key holds
//
// The page at `/` shows the last two. The API key stays inside: only a real proxy sends it, with a
// search.

import * as routing from "./routing.ts";
import { BrokenValue, type Entry, type Env, list, mayList, override } from "./store.ts";
import { settings, unlessBroken } from "./store.ts";
import type { Settings } from "./types.ts";

/** An alias seldom has more than three. Each check is a read, and a request has a limit of reads. */
const CHECKED_TARGETS = 20;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const [, place, encoded] = pathname.match(/^\/(route|indexes)(?:\/(.+))?$/) ?? [];
    try {
      const key = encoded && decodeURIComponent(encoded);
      if (place === "indexes") {
        if (!(await mayList(env, request.headers.get("authorization"))))
          return problem(403, "This takes the LIST_SECRET: see wrangler.jsonc.");
        if (key !== undefined) return await index(env, key);
        const page = await list(env, searchParams.get("prefix") ?? "", searchParams.get("cursor"));
        return Response.json(page);
      }
      if (place === "route" && key !== undefined) return await route(request, env, key);
    } catch (error) {
      if (error instanceof BrokenValue)
        return problem(502, `The value under this key ${error.message}.`);
      if (error instanceof URIError) return problem(400, "The key is not percent-encoded UTF-8.");
      throw error;
    }
    return problem(404, "There are /, /indexes, /indexes/{key} and /route/{key}.");
  },
} satisfies ExportedHandler<Env>;

/** What a search in the index under `key` would do. */
async function route(request: Request, env: Env, key: string): Promise<Response> {
  const own = await settings(env, key);
  if (own === null) return problem(404, "No index has this key.");
  const { doc_reads, analytics } = own.value.index_aliases ?? {};
  // A real proxy has to make sure that the header comes from a colleague.
  const internal = request.headers.get("x-marqo-internal") === "true";
  const user = request.headers.get("x-user-id") ?? request.headers.get("x-session-id");

  const weights = routing.shares(doc_reads, internal);
  const point = user === null ? Math.random() : routing.pointOf(user);
  const chosen = routing.pick(weights, point)?.index_id ?? routing.indexId(own.value);
  // A missing target must not take the shop down: the index itself serves the search.
  const target = await targetSettings(env, own.value, chosen);
  const search = routing.searchSettings(own.value, target ?? own.value);

  const query = new URL(request.url).searchParams.get("q");
  const body = {
    system_account_id: own.value.system_account_id,
    index_id: routing.indexId(own.value),
    alias: doc_reads === undefined ? "none" : doc_reads.enabled ? "on" : "off",
    weights,
    target: { index_id: routing.indexId(search), index_url: shownUrl(search) },
    pixel_id: search.pixel_id,
    missing: target === null ? chosen : null,
    override: query === null ? null : await unlessBroken(override(env, own.value, query)),
    analytics: routing.analyticsIndex(analytics, internal),
  };
  return Response.json(body, { headers: age(own) });
}

/** The settings of an alias's target, or null if KV does not hold them whole. */
async function targetSettings(env: Env, own: Settings, id: string): Promise<Settings | null> {
  if (id === routing.indexId(own)) return own;
  const found = await unlessBroken(settings(env, id));
  return found !== null && routing.isTarget(found.value, id, own) ? found.value : null;
}

/** How long ago the table took the change that is served, in seconds. */
function age({ metadata }: Entry<Settings>): HeadersInit {
  if (metadata?.changed_at === undefined) return {};
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(metadata.changed_at)) / 1000));
  return { "x-settings-age": String(seconds) };
}

/** What a key holds. Its fields are picked, so what a later exporter adds stays inside. */
async function index(env: Env, key: string): Promise<Response> {
  const entry = await settings(env, key);
  if (entry === null) return problem(404, "No index has this key.");
  const { doc_reads, analytics } = entry.value.index_aliases ?? {};
  const targets = [];
  // One at a time: a value can have 25 MiB.
  for (const [place, target] of (doc_reads?.targets ?? []).entries()) {
    const { index_id, weight, internal, enabled } = target;
    const share = routing.shareOf(target, doc_reads!);
    const missing =
      place < CHECKED_TARGETS && (await targetSettings(env, entry.value, index_id)) === null;
    targets.push({ index_id, weight, internal, enabled, share, missing });
  }
  return Response.json({
    digest: entry.metadata?.digest,
    index_url: shownUrl(entry.value),
    doc_reads: doc_reads && { enabled: doc_reads.enabled, targets },
    analytics: analytics && { enabled: analytics.enabled, index_id: analytics.index_id },
  });
}

/** Without what a URL can hide: a user, a password, a query. */
function shownUrl({ index_url }: Settings): string {
  const { origin, pathname } = new URL(index_url);
  return origin + pathname;
}

function problem(status: number, error: string): Response {
  return Response.json({ error }, { status });
}
