// What the Worker reads of KV. store.ts checks it against the schemas in schema/, which have the rest.

export interface Settings {
  system_account_id: string;
  index_name: string;
  shop_id?: string;
  /** A secret. It leaves the Worker only with a search. */
  marqo_api_key: string;
  index_url: string;
  pixel_id?: string;
  index_aliases?: { analytics?: Analytics; doc_reads?: DocReads };
}

/** The index whose analytics an index uses. */
export interface Analytics {
  enabled: boolean;
  index_id: string | null;
  internal: boolean;
}

/** The indexes that searches go to. If it is disabled, its targets do not count. */
export interface DocReads {
  enabled: boolean;
  targets: Target[];
}

export interface Target {
  /** Absent means true. */
  enabled?: boolean;
  index_id: string;
  /** Whether the target is for internal requests only. */
  internal: boolean;
  weight: number;
}

/** The override of one query. */
export interface QueryConfig {
  system_account_id: string;
  index_name: string;
  normalized_query: string;
}

/** The metadata of each entry, which a listing returns without the values. */
export interface Metadata {
  digest: string;
  exported_at: string;
  source: string;
  system_account_id: string;
  index_name: string;
  environment?: string;
  /** When the table took the change. What a re-export or a reconcile wrote does not have it. */
  changed_at?: string;
}
