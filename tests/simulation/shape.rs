//! How large a world is, and what can happen in it. The shape is drawn first, so that each history
//! has a character of its own.

use ecom_settings_exporter::index::IndexRef;

use crate::choices::Choices;

#[derive(Debug, Clone)]
pub struct Shape {
    /// Small worlds are enumerated: few options, each with a bound on how often it is taken.
    pub small: bool,
    /// A named case: nothing is left to chance.
    pub scripted: bool,
    pub old_images: bool,
    pub indexes: Vec<IndexRef>,
    pub shops: Vec<String>,
    pub queries: Vec<&'static str>,
    pub shards: usize,
    pub events: u32,
    /// Faults and crashes that may happen.
    pub faults: u32,
    pub fault_one_in: u32,
    /// Calls that may be overtaken by all others, in small worlds.
    pub delays: u32,
    /// Events that may happen between two calls, in small worlds.
    pub interruptions: u32,
    pub event_one_in: u32,
    pub max_batch: u32,
    pub bulk_max_pairs: usize,
    pub invalid: bool,
    pub keyless: bool,
    pub rotation: bool,
    pub re_exports: bool,
    pub reconciles: bool,
    pub aliases: bool,
    pub foreign_keys: bool,
    pub garbage: bool,
    /// Every look at the table is followed by a change.
    pub storm: bool,
    /// Requests may land after their client gave up, and listings may be old.
    pub late: bool,
}

impl Shape {
    pub fn random(choices: &mut Choices) -> Self {
        let accounts = 1 + choices.below(3);
        let names = 1 + choices.below(2);
        let index = |account: u32, name: u32| IndexRef {
            account: ["a", "b", "c"][account as usize].to_owned(),
            name: ["x", "y"][name as usize].to_owned(),
        };
        let mut indexes: Vec<IndexRef> =
            (0..accounts).flat_map(|a| (0..names).map(move |n| index(a, n))).collect();
        let mut shops: Vec<String> = ["s", "t", "u"].iter().map(|s| (*s).to_owned()).collect();
        shops.truncate(1 + choices.below(3) as usize);
        let same_id = choices.one_in(10);
        if same_id {
            // Two names with one index id.
            let index = |account: &str, name: &str| IndexRef {
                account: account.to_owned(),
                name: name.to_owned(),
            };
            indexes.extend([index("a", "a-x"), index("a-a", "x")]);
        }
        if choices.one_in(4) {
            // A shop id that is also some index's id.
            shops.push(crate::model::index_id(choices.pick(&indexes)));
        }
        let some = |choices: &mut Choices, n| choices.below(n) == 1;
        Self {
            small: false,
            scripted: false,
            old_images: choices.below(3) < 2,
            indexes,
            shops,
            queries: if some(choices, 3) && !same_id { vec!["p", "q"] } else { Vec::new() },
            shards: 1 + choices.below(3) as usize,
            events: 1 + choices.below(12),
            faults: choices.below(8),
            fault_one_in: *choices.pick(&[40, 20, 10, 4]),
            delays: 0,
            interruptions: u32::MAX,
            event_one_in: *choices.pick(&[30, 15, 6, 3]),
            max_batch: 1 + choices.below(6),
            bulk_max_pairs: *choices.pick(&[1_000, 1, 2, 3]),
            invalid: some(choices, 3),
            keyless: some(choices, 6),
            rotation: some(choices, 3),
            re_exports: some(choices, 3),
            reconciles: false,
            aliases: some(choices, 2),
            foreign_keys: some(choices, 3),
            garbage: some(choices, 6),
            storm: some(choices, 12),
            late: false,
        }
    }

    /// A random world with requests that land late, and with reconciles.
    pub fn with_reconcile(choices: &mut Choices) -> Self {
        Self { late: true, reconciles: true, ..Self::random(choices) }
    }

    /// A world in which only what the script says happens.
    pub fn scripted(old_images: bool) -> Self {
        let limits = Limits { faults: 0, delays: 0, interruptions: 0, re_exports: false };
        let small = Self::small(&mut Choices::replay(Vec::new()), 0, limits);
        Self { scripted: true, old_images, ..small }
    }

    /// Two indexes that may share a shop id, an alias from one to the other, and two shards.
    pub fn small(choices: &mut Choices, events: u32, limits: Limits) -> Self {
        let index = |account: &str| IndexRef { account: account.to_owned(), name: "x".to_owned() };
        Self {
            small: true,
            scripted: false,
            old_images: choices.below(2) == 0,
            indexes: vec![index("a"), index("b")],
            shops: vec!["s".to_owned(), "t".to_owned()],
            queries: Vec::new(),
            shards: 2,
            events,
            faults: limits.faults,
            fault_one_in: 1,
            delays: limits.delays,
            interruptions: limits.interruptions,
            event_one_in: 1,
            max_batch: 10,
            bulk_max_pairs: 1_000,
            invalid: false,
            keyless: false,
            rotation: false,
            re_exports: limits.re_exports,
            reconciles: false,
            aliases: true,
            foreign_keys: false,
            garbage: false,
            storm: false,
            late: false,
        }
    }
}

/// What may interfere with a small world, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub faults: u32,
    pub delays: u32,
    pub interruptions: u32,
    pub re_exports: bool,
}
