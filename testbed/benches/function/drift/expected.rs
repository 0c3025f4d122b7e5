//! What a report must count, and what a repair must change.

use std::collections::BTreeMap;

use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::parts::*;

/// The state that a reconcile finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing in KV.
    Fill,
    /// Drift, which it only reports.
    Audit,
    /// Drift, which it repairs.
    Repair,
    /// What is left after the repair.
    Again,
}

/// The number of keys in each class.
pub type Counts = BTreeMap<&'static str, usize>;

/// Keys that are written or deleted, sorted.
pub type Changes = BTreeMap<(KvVerb, String), Vec<String>>;

impl Drift {
    /// What the report must count. Classes that are left out are zero.
    pub fn expected(&self, stage: Stage) -> BTreeMap<&'static str, Counts> {
        let (n, c) = (self.indexes / EVERY, self.configs / EVERY);
        // Two of every hundred indexes share a shop id.
        let (keys, configs) = (self.indexes * 2 - n, self.configs);
        if stage == Stage::Fill {
            let settings = [
                ("desired", keys),
                ("missing", keys),
                ("written", keys),
                ("conflicting", n),
                // The aliases that withhold keys later dangle while KV lacks those keys.
                ("dangling", 2 * n),
            ];
            let configs = [("desired", configs), ("missing", configs), ("written", configs)];
            return [("settings", settings.into()), ("query_configs", configs.into())].into();
        }
        let mut settings = Counts::from([
            // Keys of rejected items are not counted.
            ("desired", keys - 2 * n),
            ("listed", keys + n),
            ("withheld", n),
            ("dangling", n),
            ("foreign", n),
            ("conflicting", n),
            ("rejected", n),
            ("failed", 2 * n),
        ]);
        let mut configs = Counts::from([
            ("desired", configs),
            ("listed", configs + 2 * c),
            // Their values name no owner, so a repair fails on them.
            ("orphaned", c),
            ("foreign", c),
            ("conflicting", c),
            ("rejected", c),
        ]);
        if stage == Stage::Again {
            settings.insert("listed", keys + 2 * n);
        } else {
            settings.extend([("missing", 2 * n), ("stale", 2 * n), ("orphaned", n)]);
            configs.extend([("missing", c), ("stale", c), ("orphaned", 2 * c)]);
        }
        if stage == Stage::Repair {
            settings.extend([("written", 4 * n), ("deleted", n)]);
            configs.extend([("written", 2 * c), ("deleted", c)]);
        }
        if stage != Stage::Audit {
            configs.insert("failed", c);
        }
        [("settings", settings), ("query_configs", configs)].into()
    }

    /// What must be written and deleted, each key once.
    pub fn changes(&self, stage: Stage) -> Changes {
        let settings = |picks: &dyn Fn(Part) -> bool| -> Vec<String> {
            let picked = (0..self.indexes).filter(|number| picks(part(*number)));
            picked.flat_map(settings_keys).collect()
        };
        let configs = |picks: &dyn Fn(usize) -> bool| -> Vec<String> {
            (0..self.configs).filter(|number| picks(number % EVERY)).map(config_key).collect()
        };
        let changes = match stage {
            Stage::Fill => vec![
                (KvVerb::PutBulk, SETTINGS, settings(&|_| true)),
                (KvVerb::PutBulk, QUERY_CONFIGS, configs(&|_| true)),
            ],
            Stage::Audit | Stage::Again => Vec::new(),
            Stage::Repair => vec![
                (
                    KvVerb::PutBulk,
                    SETTINGS,
                    settings(&|part| matches!(part, Part::Missing | Part::Stale)),
                ),
                (KvVerb::PutBulk, QUERY_CONFIGS, configs(&|part| part < 2)),
                (KvVerb::DeleteBulk, SETTINGS, (0..self.indexes / EVERY).map(orphan).collect()),
                (
                    KvVerb::DeleteBulk,
                    QUERY_CONFIGS,
                    (0..self.configs / EVERY).map(orphaned_config).collect(),
                ),
            ],
        };
        let sorted = |(verb, namespace, mut keys): (KvVerb, &str, Vec<String>)| {
            keys.sort_unstable();
            // Both indexes that share a shop id list it.
            keys.dedup();
            ((verb, namespace.to_owned()), keys)
        };
        changes.into_iter().map(sorted).collect()
    }
}
