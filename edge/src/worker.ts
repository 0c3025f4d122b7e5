// A reader of what the exporter writes. It answers with what the search proxy would do:
//
//   GET /route/{shop id or index id}?q={normalized query}   one search
//   GET /indexes                                            all indexes, for the page at `/`
//
// The API key stays inside. Only a real proxy sends it, with the search.

import { analyticsIndex, pick, pointOf, shares } from "./routing.ts";
import { BrokenValue, type Entry, type Env, indexId, list, override, settings } from "./store.ts";
import type { Settings } from "./types.ts";

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const url = new URL(request.url);
    const [, place, key] = url.pathname.match(/^\/(route|indexes)(?:\/(.+))?$/) ?? [];
    try {
      if (place === "indexes" && key === undefined) return Response.json(await indexes(env));
      if (place === "route" && key !== undefined)
        return await route(request, env, decodeURIComponent(key));
    } catch (error) {
      if (error instanceof BrokenValue)
        return problem(502, `A value that was read ${error.message}.`);
      if (error instanceof URIError) return problem(400, "The key is not percent-encoded UTF-8.");
      throw error;
    }
    return problem(404, "There are /, /indexes and /route/{key}.");
  },
} satisfies ExportedHandler<Env>;

/** What a search in the index under `key` would do. */
async function route(request: Request, env: Env, key: string): Promise<Response> {
  const own = await settings(env, key);
  if (own === null) return problem(404, "No index has this key.");
  const { doc_reads, analytics } = own.value.index_aliases ?? {};
  // A real proxy has to know that the header comes from a colleague.
  const internal = request.headers.get("x-marqo-internal") === "true";
  const user = request.headers.get("x-user-id") ?? request.headers.get("x-session-id");

  const weights = shares(doc_reads, internal);
  const point = user === null ? Math.random() : pointOf(user);
  const chosen = pick(weights, point)?.index_id ?? indexId(own.value);
  // A target that KV does not have, or not yet, must not take the shop down: its own index answers.
  const target = chosen === indexId(own.value) ? own : await settings(env, chosen);
  const { value } = target ?? own;

  const query = new URL(request.url).searchParams.get("q");
  const answer = {
    index_id: indexId(own.value),
    alias: doc_reads === undefined ? "none" : doc_reads.enabled ? "on" : "off",
    weights,
    target: { index_id: indexId(value), index_url: value.index_url },
    missing: target === null ? chosen : null,
    override: query === null ? null : await override(env, own.value, query),
    analytics: analyticsIndex(analytics, internal),
  };
  return Response.json(answer, { headers: age(own) });
}

/** How long ago the table took the change that is served, in seconds. */
function age({ metadata }: Entry<Settings>): HeadersInit {
  if (metadata?.changed_at === undefined) return {};
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(metadata.changed_at)) / 1000));
  return { "x-settings-age": String(seconds) };
}

/** Every index once, whichever of its keys there are. */
async function indexes(env: Env) {
  const found = new Map<string, { keys: string[]; [field: string]: unknown }>();
  for (const { key, entry } of await list(env)) {
    if (entry instanceof BrokenValue) {
      found.set(key, { keys: [key], broken: entry.message });
      continue;
    }
    const { value, metadata } = entry;
    // Two keys that say different things stand side by side.
    const same = JSON.stringify([indexId(value), metadata?.digest]);
    const index = found.get(same);
    if (index !== undefined) {
      index.keys.push(key);
      continue;
    }
    const { index_url, index_aliases } = value;
    const { exported_at, changed_at, source, environment } = metadata ?? {};
    const written = metadata && { exported_at, changed_at, source, environment };
    found.set(same, { index_id: indexId(value), keys: [key], index_url, index_aliases, written });
  }
  return [...found.values()];
}

function problem(status: number, error: string): Response {
  return Response.json({ error }, { status });
}
