//! Small worlds: so few options that all of their histories can be played. What may interfere is
//! bounded, and so is what can happen.

use super::{
    Aliases, IndexRef, Reconcile, Settings, State, WriteAlias, change, index_id, item_key, put,
};

/// What may still interfere, and what the world is about.
#[derive(Debug, Clone, Copy)]
pub struct Small {
    pub about: About,
    /// Calls that may be overtaken by all others.
    pub delays: u32,
    /// Events that may happen between two calls.
    pub interruptions: u32,
    /// Responses of KV that may be stale.
    pub stale_reads: u32,
    /// Deliveries that may come more than a minute late.
    pub waits: u32,
    pub faults: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Two indexes that may share a shop id, and an alias from one to the other.
    Settings,
    /// The same with re-exports.
    ReExports,
    /// One index in two environments that share KV.
    Environments,
}

impl Small {
    pub const NOTHING: Self = Self {
        about: About::Settings,
        delays: 0,
        interruptions: 0,
        stale_reads: 0,
        waits: 0,
        faults: 0,
    };
    pub const ONE_FAULT: Self = Self { faults: 1, ..Self::NOTHING };
    /// One call that others overtake, and one event that comes between two calls.
    pub const ONE_RACE: Self = Self { delays: 1, interruptions: 1, ..Self::NOTHING };
    pub const FAULT_AND_RACE: Self = Self { faults: 1, ..Self::ONE_RACE };
    pub const ONE_STALE_READ: Self = Self { stale_reads: 1, ..Self::NOTHING };
    pub const ONE_LATE_DELIVERY: Self = Self { waits: 1, ..Self::NOTHING };
    pub const ALL_ONCE: Self =
        Self { stale_reads: 1, waits: 1, about: About::ReExports, ..Self::FAULT_AND_RACE };

    pub fn about(self, about: About) -> Self {
        Self { about, ..self }
    }
}

/// Something that can happen in a small world.
type Event = Box<dyn FnOnce(&mut State)>;

/// Lets one of the events happen that would change anything; the first is the plainest.
pub fn fire(state: &mut State, about: About) {
    let mut events = match about {
        About::Settings => settings(state),
        About::ReExports => {
            let mut events = settings(state);
            let first = state.shape.indexes[0].clone();
            events.push(Box::new(|state| state.environments[0].re_exports.push((first, false))));
            events
        }
        About::Environments => environments(state),
    };
    let options = u32::try_from(events.len()).unwrap();
    let chosen = state.choices.below(options) as usize;
    events.swap_remove(chosen)(state);
}

fn settings(state: &State) -> Vec<Event> {
    let with = |shop: Option<&str>, aliases: Aliases| Settings {
        shop: shop.map(str::to_owned),
        aliases,
        ..Settings::default()
    };
    let [first, second] = [0, 1].map(|at| state.shape.indexes[at].clone());
    let reads = Aliases { doc_reads: Some((true, index_id(&first))), ..Aliases::default() };
    let names = Aliases { write: Some(WriteAlias::ShopId("s".to_owned())), ..Aliases::default() };
    let none = Aliases::default;
    let puts = [
        (&first, with(Some("s"), none())),
        (&first, with(Some("t"), none())),
        (&second, with(Some("s"), none())),
        (&second, with(Some("t"), none())),
        (&second, with(None, reads)),
        (&second, with(None, names)),
        (&first, with(None, none())),
    ];
    let mut events: Vec<Event> = Vec::new();
    for (index, settings) in puts {
        let index = index.clone();
        events.push(Box::new(move |state| put(state, 0, &index, settings)));
    }
    events.extend([first, second].into_iter().filter_map(|index| removal(state, 0, index)));
    events
}

fn removal(state: &State, environment: usize, index: IndexRef) -> Option<Event> {
    state.environments[environment].current_settings(&index)?;
    Some(Box::new(move |state| change(state, environment, &item_key(&index), None)))
}

fn environments(state: &State) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for environment in 0..state.environments.len() {
        let index = state.shape.indexes[0].clone();
        events.extend(removal(state, environment, index.clone()));
        for shop in ["s", "t"] {
            let settings = Settings { shop: Some(shop.to_owned()), ..Settings::default() };
            let index = index.clone();
            events.push(Box::new(move |state| put(state, environment, &index, settings)));
        }
        events.push(Box::new(move |state| {
            state.environments[environment].reconciles.push(Reconcile::repair());
        }));
    }
    events
}
