//! How large a world is, and what can happen in it. The shape is drawn first, so that each history
//! has a character of its own.

use ecom_settings_exporter::ports::ErrorKind;

use super::{Event, IndexRef, OTHER_FAULTS, READ_FAULTS, Reconcile, WRITE_FAULTS};
use crate::choices::Choices;

/// The cell of items that name none.
pub const DEFAULT_CELL: &str = "cell-1";
/// A cell that some items name.
pub const OTHER_CELL: &str = "cell-2";

#[derive(Debug, Clone)]
pub struct Shape {
    /// The events of a small world, which can be enumerated. Others have none, and draw their events.
    pub menu: Vec<Event>,
    /// Exporters with tables of their own that share KV by mistake.
    pub environments: usize,
    pub old_images: bool,
    pub indexes: Vec<IndexRef>,
    pub shops: Vec<String>,
    pub queries: Vec<&'static str>,
    pub shards: usize,
    pub events: u32,
    /// Events that may come between two calls, and how often one does.
    pub interruptions: u32,
    pub event_one_in: u32,
    /// Faults that may happen, how often one does, and how many of each list: of writes and reads of KV, and
    /// of the other services.
    pub faults: u32,
    pub fault_one_in: u32,
    pub fault_kinds: [usize; 3],
    /// Services may be down for several calls, and answers get lost.
    pub outages: bool,
    /// Requests may land after their client gave up.
    pub stragglers: bool,
    /// Calls that everything else may overtake.
    pub delays: u32,
    /// How long calls take, in milliseconds.
    pub latencies: &'static [u64],
    /// How long people and consumers wait before they act, in milliseconds.
    pub pauses: &'static [u64],
    /// Responses of KV that may be up to a minute old, and how often one is. A pass may miss the table's last
    /// seconds where there are any.
    pub stale_reads: u32,
    pub stale_one_in: u32,
    /// How often a consumer may be stopped before a delivery, how often it is, and for how many seconds.
    pub stops: u32,
    pub stop_one_in: u32,
    pub stop_seconds: &'static [u64],
    /// How long invocations have, in seconds.
    pub time_left: &'static [u64],
    pub max_batch: u32,
    pub bulk_max_pairs: usize,
    /// Index items that a process may remove. Each invocation has a process of its own.
    pub removals_up_to: usize,
    /// Items in a page of the table, and keys in a page of a listing.
    pub page: usize,
    /// Items may be ones that can't be exported.
    pub invalid: bool,
    pub rotation: bool,
    pub re_exports: bool,
    pub reconciles: bool,
    pub aliases: bool,
    pub foreign_keys: bool,
    /// KV holds values that the predecessor or an earlier version wrote.
    pub predecessors: bool,
    /// What the other cell's gateway says for the first minutes.
    pub dead_gateway: Option<ErrorKind>,
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

fn index(account: &str, name: &str) -> IndexRef {
    IndexRef { account: account.to_owned(), name: name.to_owned() }
}

impl Shape {
    /// A world of two indexes in which nothing happens by itself.
    fn calm(old_images: bool) -> Self {
        Self {
            menu: Vec::new(),
            environments: 1,
            old_images,
            indexes: vec![index("a", "x"), index("b", "x")],
            shops: vec!["s".to_owned(), "t".to_owned()],
            queries: Vec::new(),
            shards: 2,
            events: 0,
            interruptions: 0,
            event_one_in: 4,
            faults: 0,
            fault_one_in: 6,
            fault_kinds: [5, 2, 2],
            outages: false,
            stragglers: false,
            delays: 0,
            latencies: &[1],
            pauses: &[0],
            stale_reads: 0,
            stale_one_in: 2,
            stops: 0,
            stop_one_in: 2,
            stop_seconds: &[70],
            time_left: &[60],
            max_batch: 10,
            bulk_max_pairs: 1_000,
            removals_up_to: 100,
            page: usize::MAX,
            invalid: false,
            rotation: false,
            re_exports: false,
            reconciles: false,
            aliases: false,
            foreign_keys: false,
            predecessors: false,
            dead_gateway: None,
            crowd: Crowd::default(),
        }
    }

    pub fn is_small(&self) -> bool {
        !self.menu.is_empty()
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
            shops.push(choices.pick(&indexes).index_id());
        }
        let some = |choices: &mut Choices, n| choices.below(n) == 1;
        Self {
            page: 2,
            old_images: choices.below(3) < 2,
            queries: if some(choices, 3) { vec!["p", "q"] } else { Vec::new() },
            shards: 1 + choices.below(3) as usize,
            events: 1 + choices.below(12),
            interruptions: u32::MAX,
            event_one_in: *choices.pick(&[30, 15, 6, 3]),
            faults: choices.below(8),
            fault_one_in: *choices.pick(&[40, 20, 10, 4]),
            fault_kinds: [WRITE_FAULTS.len(), READ_FAULTS.len(), OTHER_FAULTS.len()],
            outages: true,
            latencies: &[1, 1, 1, 3, 10, 100, 1_000, 8_000],
            pauses: &[0, 2, 50, 900, 9_000],
            time_left: &[60, 150, 20],
            max_batch: 1 + choices.below(6),
            bulk_max_pairs: *choices.pick(&[1_000, 1, 2, 3]),
            invalid: some(choices, 3),
            rotation: some(choices, 3),
            re_exports: some(choices, 3),
            aliases: some(choices, 2),
            foreign_keys: some(choices, 3),
            predecessors: some(choices, 4),
            stale_reads: if some(choices, 3) { u32::MAX } else { 0 },
            stale_one_in: 8,
            stops: if some(choices, 3) { u32::MAX } else { 0 },
            stop_one_in: 8,
            stop_seconds: &[45, 70, 600],
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

    /// Deliveries that die at their writes, are repeated, cut in halves and minutes late, beside re-exports.
    /// No call takes long.
    pub fn repeated(choices: &mut Choices) -> Self {
        let random = Self::random(choices);
        Self {
            fault_kinds: [2, 0, 0],
            outages: false,
            faults: 12,
            latencies: &[1, 1, 1, 1, 3, 10, 30, 100],
            time_left: &[150],
            re_exports: true,
            stops: u32::MAX,
            dead_gateway: dead_gateway(choices, 2),
            invalid: false,
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
            page: 1_000,
            bulk_max_pairs: 1_000,
            aliases: false,
            invalid: false,
            predecessors: false,
            ..Self::with_reconcile(choices)
        }
    }

    /// Two indexes that may share a shop id, and an alias from one to the other.
    pub fn small(choices: &mut Choices, events: u32) -> Self {
        let calm = Self::calm(choices.below(2) == 0);
        let [first, second] = [0, 1].map(|at| calm.indexes[at].clone());
        let put = |index: &IndexRef, shop: &str, alias| Event::put(0, index, shop, alias);
        let menu = vec![
            put(&first, "s", None),
            put(&first, "t", None),
            put(&second, "s", None),
            put(&second, "t", None),
            put(&second, "", Some(Event::reads(&first))),
            put(&second, "", Some(Event::writes_to_shop("s"))),
            put(&first, "", None),
            Event::remove(0, &first),
            Event::remove(0, &second),
        ];
        Self { menu, events, ..calm }
    }

    /// The same, but only the first index changes, and is exported again.
    pub fn small_with_re_exports(choices: &mut Choices, events: u32) -> Self {
        let mut small = Self::small(choices, events);
        let first = small.indexes[0].clone();
        let is_first =
            |event: &Event| matches!(event, Event::Change(_, item, _) if item.index == first);
        small.menu.retain(is_first);
        small.menu.push(Event::ReExport(0, first, false));
        small
    }

    /// One index in two environments that share KV.
    pub fn small_environments(choices: &mut Choices, events: u32) -> Self {
        let index = index("a", "x");
        let of_environment = |at| {
            let put = |shop| Event::put(at, &index, shop, None);
            let repair = Event::Reconcile(at, Reconcile::repair());
            [Event::remove(at, &index), put("s"), put("t"), repair]
        };
        Self {
            environments: 2,
            reconciles: true,
            menu: [0, 1].into_iter().flat_map(of_environment).collect(),
            indexes: vec![index.clone()],
            shards: 1,
            events,
            ..Self::calm(choices.below(2) == 0)
        }
    }
}

/// A gateway that gives nothing, once in `n`: it fails, or knows no account.
fn dead_gateway(choices: &mut Choices, n: u32) -> Option<ErrorKind> {
    let is_dead = choices.below(n) == 1;
    is_dead.then(|| *choices.pick(&[ErrorKind::Transient, ErrorKind::NotFound]))
}
