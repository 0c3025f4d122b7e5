//! How large a world is, and what can happen in it. The shape is drawn first, so that each history
//! has a character of its own.

use super::{About, Failure, IndexRef, Small, index, index_id};
use crate::choices::Choices;

/// The cell of items that name none, where there is one.
pub const DEFAULT_CELL: &str = "cell-1";
/// A cell that some items name.
pub const OTHER_CELL: &str = "cell-2";

#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Small worlds are enumerated: few options, each with a bound on how often it is taken.
    pub small: Option<Small>,
    /// Exporters with tables of their own that share KV by mistake.
    pub environments: usize,
    pub old_images: bool,
    pub default_cell: bool,
    pub indexes: Vec<IndexRef>,
    pub shops: Vec<String>,
    pub queries: Vec<&'static str>,
    pub shards: usize,
    pub events: u32,
    /// Faults and crashes that may happen.
    pub faults: u32,
    pub fault_one_in: u32,
    pub event_one_in: u32,
    pub max_batch: u32,
    pub bulk_max_pairs: usize,
    /// Index items that a process may remove. Each invocation has a process of its own.
    pub removals_up_to: usize,
    /// Items in a page of the table, and keys in a page of a listing.
    pub page: usize,
    pub invalid: bool,
    pub keyless: bool,
    pub rotation: bool,
    pub re_exports: bool,
    pub reconciles: bool,
    pub aliases: bool,
    pub foreign_keys: bool,
    /// KV holds values that the predecessor or an earlier version wrote.
    pub predecessors: bool,
    pub garbage: bool,
    /// Requests may land after their client gave up.
    pub stragglers: bool,
    /// KV's responses may be up to a minute old, and a pass may miss the table's last seconds.
    pub stale_reads: bool,
    /// Consumers are stopped for minutes.
    pub stops: bool,
    /// The other cell's gateway gives nothing for the first minutes: it fails, or knows no account.
    pub dead_gateway: Option<Failure>,
    /// Calls take no longer than a tenth of a second, and only deliveries of batches fail.
    pub brisk: bool,
    /// Keys of indexes that nothing else happens to.
    pub crowd: Crowd,
}

/// Many keys, for the brakes of a repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Settings keys, and query-config keys, that no item asks for.
    pub orphans: usize,
    pub orphaned_queries: usize,
    /// Items whose one key KV holds in an older version.
    pub stale: usize,
}

impl Shape {
    /// A world of two indexes in which nothing happens by itself.
    pub fn calm(old_images: bool) -> Self {
        Self {
            environments: 1,
            old_images,
            default_cell: true,
            indexes: vec![index("a", "x"), index("b", "x")],
            shops: vec!["s".to_owned(), "t".to_owned()],
            shards: 2,
            fault_one_in: 1,
            event_one_in: 1,
            max_batch: 10,
            bulk_max_pairs: 1_000,
            removals_up_to: 100,
            page: usize::MAX,
            ..Self::default()
        }
    }

    /// Whether nothing but what it is about is left to chance.
    pub fn is_plain(&self) -> bool {
        self.small.is_some()
    }

    pub fn random(choices: &mut Choices) -> Self {
        let accounts = 1 + choices.below(3) as usize;
        let names = 1 + choices.below(2) as usize;
        let of_account = |account| ["x", "y"][..names].iter().map(move |name| index(account, name));
        let mut indexes: Vec<IndexRef> =
            ["a", "b", "c"][..accounts].iter().copied().flat_map(of_account).collect();
        let mut shops: Vec<String> = ["s", "t", "u"].iter().map(|s| (*s).to_owned()).collect();
        shops.truncate(1 + choices.below(3) as usize);
        if choices.one_in(8) {
            // Two names with one index id, and so with the same keys for their query configs.
            indexes.extend([index("a", "a-x"), index("a-a", "x")]);
        }
        if choices.one_in(4) {
            // A shop id that is also some index's id.
            shops.push(index_id(choices.pick(&indexes)));
        }
        let some = |choices: &mut Choices, n| choices.below(n) == 1;
        Self {
            page: 2,
            old_images: choices.below(3) < 2,
            default_cell: !some(choices, 5),
            queries: if some(choices, 3) { vec!["p", "q"] } else { Vec::new() },
            shards: 1 + choices.below(3) as usize,
            events: 1 + choices.below(12),
            faults: choices.below(8),
            fault_one_in: *choices.pick(&[40, 20, 10, 4]),
            event_one_in: *choices.pick(&[30, 15, 6, 3]),
            max_batch: 1 + choices.below(6),
            bulk_max_pairs: *choices.pick(&[1_000, 1, 2, 3]),
            invalid: some(choices, 3),
            keyless: some(choices, 6),
            rotation: some(choices, 3),
            re_exports: some(choices, 3),
            aliases: some(choices, 2),
            foreign_keys: some(choices, 3),
            predecessors: some(choices, 4),
            garbage: some(choices, 6),
            stale_reads: some(choices, 3),
            stops: some(choices, 3),
            dead_gateway: dead_gateway(choices, 10),
            indexes,
            shops,
            ..Self::calm(true)
        }
    }

    /// A random world with requests that land late, and with reconciles.
    pub fn with_reconcile(choices: &mut Choices) -> Self {
        let random = Self::random(choices);
        let removals_up_to = *choices.pick(&[100, 100, 1, 0]);
        Self { stragglers: true, reconciles: true, removals_up_to, ..random }
    }

    /// Two exporters on one KV; their tables know the same indexes and shop ids.
    pub fn shared(choices: &mut Choices) -> Self {
        Self { environments: 2, predecessors: false, ..Self::with_reconcile(choices) }
    }

    /// Deliveries that are repeated, cut in halves and minutes late, beside re-exports.
    pub fn repeated(choices: &mut Choices) -> Self {
        let random = Self::random(choices);
        Self {
            brisk: true,
            faults: 12,
            re_exports: true,
            stops: true,
            dead_gateway: dead_gateway(choices, 2),
            invalid: false,
            keyless: false,
            events: 4 + choices.below(12),
            ..random
        }
    }

    /// A world with about as many drifted keys as a repair may mend.
    pub fn crowded(choices: &mut Choices) -> Self {
        let crowd = Crowd {
            orphans: *choices.pick(&[3, 95, 100, 101, 105]),
            orphaned_queries: *choices.pick(&[0, 100, 101]),
            stale: if choices.one_in(12) { *choices.pick(&[1_000, 1_001]) } else { 3 },
        };
        Self {
            crowd,
            indexes: Self::calm(true).indexes,
            default_cell: true,
            page: 1_000,
            bulk_max_pairs: 1_000,
            aliases: false,
            invalid: false,
            keyless: false,
            predecessors: false,
            ..Self::with_reconcile(choices)
        }
    }

    pub fn small(choices: &mut Choices, events: u32, small: Small) -> Self {
        let calm = Self::calm(choices.below(2) == 0);
        let world = match small.about {
            About::Settings | About::ReExports => Self { aliases: true, ..calm },
            About::Environments => Self {
                environments: 2,
                reconciles: true,
                indexes: vec![index("a", "x")],
                shards: 1,
                ..calm
            },
        };
        Self { small: Some(small), events, faults: small.faults, ..world }
    }
}

/// A gateway that gives nothing, once in `n`.
fn dead_gateway(choices: &mut Choices, n: u32) -> Option<Failure> {
    let is_dead = choices.below(n) == 1;
    is_dead.then(|| *choices.pick(&[Failure::Transient, Failure::NotFound]))
}
