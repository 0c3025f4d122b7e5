//! A history with a name, and the functions that describe one.

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::ports::Namespace;

use crate::choices::Choices;
use crate::driver;
use crate::events::{self, change};
use crate::faults::{Call, Fault};
use crate::keys::item_key;
use crate::model::{Aliases, Settings};
use crate::shape::Shape;
use crate::start::settle_in;
use crate::state::{Planned, State};

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

impl Case {
    /// Without reconcile.
    pub fn alone(self) -> State {
        self.play(false)
    }

    /// With a reconcile at the end, which leaves KV equal to the table.
    pub fn reconciled(self) -> State {
        let state = self.play(true);
        assert_eq!(state.violation, None, "{:#?}", state.trace);
        state
    }

    fn play(self, reconciles: bool) -> State {
        let shape = |_: &mut Choices| Shape { reconciles, ..Shape::scripted(self.old_images) };
        let setup = |state: &mut State| {
            for account in ["a", "b"] {
                let key = format!("key-{account}-0");
                state.api_keys.entry(account.to_owned()).or_default().push(0, key);
            }
            for (account, settings) in self.before {
                settle_in(state, &index(account), settings);
            }
            state.script = self.script;
            (self.first)(state);
        };
        driver::run(Choices::replay(Vec::new()), shape, setup, true)
    }
}

pub fn index(account: &str) -> IndexRef {
    IndexRef { account: account.to_owned(), name: "x".to_owned() }
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
    events::put(state, &index(account), settings);
}

pub fn remove(state: &mut State, account: &str) {
    change(state, &item_key(&index(account)), None);
}

pub fn at(invocation: usize, call: Call, nth: u32) -> Planned {
    Planned { invocation, call, nth, event: None, overtaken: false, fault: Fault::None }
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
