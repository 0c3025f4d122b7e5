//! A history with a name, and the functions that describe one.

use crate::choices::Choices;
use crate::play::driver;
use crate::world::{
    self, Aliases, Call, Content, Fault, IndexRef, Namespace, Planned, Settings, Shape, State,
    change, changes, give_api_keys, item_key, query_item_key, settle_in,
};

/// A history.
pub struct Case {
    pub old_images: bool,
    /// What KV and the table hold from the start.
    pub before: Vec<(&'static str, Settings)>,
    /// What happens first.
    pub first: fn(&mut State),
    /// What happens at calls.
    pub script: Vec<Planned>,
}

/// What most histories begin with: `a/x` with the shop id `s`. Nothing happens to it.
pub fn with_shop_s() -> Case {
    Case { old_images: true, before: vec![("a", shop("s"))], first: |_| {}, script: Vec::new() }
}

/// An empty table.
pub fn empty() -> Case {
    Case { before: Vec::new(), ..with_shop_s() }
}

impl Case {
    /// Without reconcile.
    pub fn alone(self) -> State {
        self.play(|shape| shape)
    }

    /// With a reconcile at the end, which leaves KV equal to the table.
    pub fn reconciled(self) -> State {
        unbroken(self.play(|shape| Shape { reconciles: true, ..shape }))
    }

    /// In a world with something special about it.
    pub fn play(self, special: impl FnOnce(Shape) -> Shape) -> State {
        let shape =
            |_: &mut Choices| special(Shape { scripted: true, ..Shape::calm(self.old_images) });
        let setup = |state: &mut State| {
            for environment in 0..state.environments.len() {
                give_api_keys(state, environment);
            }
            for (account, settings) in self.before {
                settle_in(state, 0, &index(account), settings);
            }
            state.script = self.script;
            (self.first)(state);
        };
        driver::run(Choices::replay(Vec::new()), shape, setup, true)
    }
}

/// The state, in which no rule is broken.
pub fn unbroken(state: State) -> State {
    assert_eq!(state.violation, None, "{}", trace(&state));
    state
}

/// What happened, step by step.
pub fn trace(state: &State) -> String {
    state.trace.as_deref().unwrap_or_default().join("\n")
}

pub fn index(account: &str) -> IndexRef {
    world::index(account, "x")
}

pub fn shop(shop: &str) -> Settings {
    Settings { shop: Some(shop.to_owned()), ..Settings::default() }
}

/// Settings with an active alias to `target`.
pub fn reads(target: &str) -> Settings {
    let doc_reads = Some((true, target.to_owned()));
    Settings { aliases: Aliases { doc_reads, ..Aliases::default() }, ..Settings::default() }
}

pub fn put(state: &mut State, account: &str, settings: Settings) {
    changes::put(state, 0, &index(account), settings);
}

/// The query config `p` of an account's index.
pub fn put_query(state: &mut State, account: &str, version: Option<u32>) {
    change(state, 0, &query_item_key(&index(account), "p"), version.map(Content::Query));
}

pub fn remove(state: &mut State, account: &str) {
    change(state, 0, &item_key(&index(account)), None);
}

pub fn re_export(state: &mut State, account: &str) {
    state.environments[0].re_exports.push((index(account), false));
}

pub fn at(invocation: usize, call: Call, nth: u32) -> Planned {
    Planned { invocation, call, nth, event: None, overtaken: false, old: false, fault: Fault::None }
}

impl Planned {
    /// With an event before the call.
    pub fn event(self, event: fn(&mut State)) -> Self {
        Self { event: Some(event), ..self }
    }

    /// With everything else overtaking the call.
    pub fn overtaken(self) -> Self {
        Self { overtaken: true, ..self }
    }

    /// With KV's answer as before its last change.
    pub fn old(self) -> Self {
        Self { old: true, ..self }
    }

    pub fn fault(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
}

/// Whose value, and which version of it, a key holds.
pub fn holds(state: &State, key: &str) -> Option<(String, u32)> {
    let named = state.held(Namespace::Settings, key)?.named.clone()?;
    Some((named.index.account, named.version))
}

pub fn value(account: &str, version: u32) -> Option<(String, u32)> {
    Some((account.to_owned(), version))
}
