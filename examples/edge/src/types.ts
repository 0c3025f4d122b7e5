// Written by `npm run types` from the files in schema/.

/**
 * The settings of an index: the value under its shop id and under its index id, in the settings namespace.
 */
export interface Settings {
  /**
   * The account that the index belongs to.
   */
  system_account_id: string;
  /**
   * The name of the index, unique within its account.
   */
  index_name: string;
  /**
   * What the storefront platform calls the shop. The value is also stored under this key.
   */
  shop_id?: string;
  /**
   * The account's API key, which the search proxy sends with each search. A secret.
   */
  marqo_api_key: string;
  /**
   * The absolute http or https URL of the index.
   */
  index_url: string;
  /**
   * Any content.
   */
  search_config?: {
    [k: string]: unknown;
  };
  /**
   * Any content.
   */
  collections_config?: {
    [k: string]: unknown;
  };
  /**
   * Any content.
   */
  feature_flags?: {
    [k: string]: unknown;
  };
  /**
   * Any content.
   */
  agentic_config?: {
    [k: string]: unknown;
  };
  /**
   * The shop's tracking pixel.
   */
  pixel_id?: string;
  /**
   * Where searches and analytics of this index go. Absent if the index has no alias.
   */
  index_aliases?: {
    analytics?: Analytics;
    doc_reads?: DocReads;
  };
  /**
   * Any content.
   */
  query_override_sharding?: {
    [k: string]: unknown;
  };
}
/**
 * The index whose analytics this index uses.
 */
export interface Analytics {
  enabled: boolean;
  index_id: string | null;
  internal: boolean;
}
/**
 * The indexes that searches are sent to. If it is disabled, its targets do not count.
 */
export interface DocReads {
  enabled: boolean;
  targets: Target[];
}
export interface Target {
  /**
   * If it is false, the target does not count. Absent means true.
   */
  enabled?: boolean;
  /**
   * {system_account_id}-{index_name} of the target, which is also its key.
   */
  index_id: string;
  /**
   * Whether the target is for internal requests only.
   */
  internal: boolean;
  /**
   * The target's share. The weights of enabled targets should sum to 1.
   */
  weight: number;
}

/**
 * The override of one query: the value under qcfg-{system_account_id}-{index_name}-{SHA-256 of normalized_query}, in the query-config namespace. Apart from the three names it has whatever attributes the item has.
 */
export interface QueryConfig {
  system_account_id: string;
  index_name: string;
  /**
   * The query, as it was when its SHA-256 was taken.
   */
  normalized_query: string;
  [k: string]: unknown;
}

/**
 * The metadata of each entry, in both namespaces. A listing of KV returns it without the values.
 */
export interface Metadata {
  /**
   * The SHA-256 of the value's bytes.
   */
  digest: string;
  /**
   * When the value was written, in UTC, to the millisecond.
   */
  exported_at: string;
  /**
   * What wrote it.
   */
  source: "stream" | "re-export" | "reconcile";
  system_account_id: string;
  index_name: string;
  /**
   * The environment that wrote it. Entries of an earlier version of the exporter do not have it.
   */
  environment?: string;
  /**
   * When the table took the change, in UTC, to the second. Absent if the table itself was read, because then nothing says when it changed.
   */
  changed_at?: string;
}
