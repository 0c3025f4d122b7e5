//! What a report has to say of the drift, and what a repair has to change.

use std::collections::BTreeMap;

use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::parts::*;

/// What a reconcile meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing in KV.
    Fill,
    /// The drift, to be told.
    Audit,
    /// The drift, to be mended.
    Repair,
    /// What is left when it was mended.
    Again,
}

/// Keys of a namespace by class.
pub type Counts = BTreeMap<&'static str, usize>;

/// Keys that are written or deleted, in order.
pub type Changes = BTreeMap<(KvVerb, String), Vec<String>>;

impl Drift {
    /// What the report has to count; classes left out are zero.
    pub fn expected(&self, stage: Stage) -> BTreeMap<&'static str, Counts> {
        let (n, c) = (self.indexes / EVERY, self.configs / EVERY);
        // Two of a hundred indexes have one shop id between them.
        let (keys, configs) = (self.indexes * 2 - n, self.configs);
        if stage == Stage::Fill {
            let settings = [
                ("desired", keys),
                ("missing", keys),
                ("written", keys),
                ("conflicting", n),
                // What is withheld later dangles as long as KV has nothing of it.
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
            // Those that don't say whose they are; a repair fails on them.
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

    /// What has to be written and deleted, each key once.
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
            // The two that share a shop id name it both.
            keys.dedup();
            ((verb, namespace.to_owned()), keys)
        };
        changes.into_iter().map(sorted).collect()
    }
}
