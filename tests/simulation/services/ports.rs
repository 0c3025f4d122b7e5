//! What one invocation sees of the world.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::ports::{ApiKeyError, ApiKeyService, Clock, Retry, Services};
use secrecy::SecretString;
use tokio::sync::Notify;

use super::calls::AtCall;
use crate::world::faults::{Call, Failure, Fault};
use crate::world::shape::OTHER_CELL;
use crate::world::state::State;

#[derive(Clone)]
pub struct Ports {
    pub state: Rc<RefCell<State>>,
    pub invocation: usize,
    /// Told when the invocation is to end at once.
    pub crash: Rc<Notify>,
    /// Told that an event happened.
    pub changed: Rc<Notify>,
}

impl Ports {
    /// Lets time pass, and returns what goes wrong. A call that never returns ends here.
    pub async fn enter(&self, call: Call) -> (Fault, bool) {
        let AtCall { latency, fault, old } = {
            let mut state = self.state.borrow_mut();
            let step = state.step;
            let at_call = state.at_call(self.invocation, call);
            if state.step != step {
                self.changed.notify_waiters();
            }
            at_call
        };
        tokio::time::sleep(latency).await;
        match fault {
            Fault::Crash { done: false } => self.crash().await,
            Fault::Hang { done: false } => pending().await,
            fault => (fault, old),
        }
    }

    pub async fn crash(&self) -> ! {
        self.crash.notify_one();
        pending().await
    }
}

impl Services for Ports {
    type Kv = Self;
    type ApiKeys = Self;
    type Table = Self;
    type Clock = Self;

    fn kv(&self) -> &Self {
        self
    }

    fn api_keys(&self) -> &Self {
        self
    }

    fn table(&self) -> &Self {
        self
    }

    fn clock(&self) -> &Self {
        self
    }
}

impl Clock for Ports {
    fn now(&self) -> SystemTime {
        let since_epoch = Duration::from_secs(crate::world::state::EPOCH);
        SystemTime::UNIX_EPOCH + since_epoch + self.state.borrow().now()
    }

    fn jitter(&self) -> f64 {
        let mut state = self.state.borrow_mut();
        if state.shape.is_plain() { 0.0 } else { f64::from(state.choices.below(100)) / 100.0 }
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let owner = (cell.to_owned(), account.to_owned());
        self.state.borrow_mut().invocations[self.invocation].unanswered.insert(owner.clone());
        let (fault, _) = self.enter(Call::ApiKey).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let dead = cell == OTHER_CELL && state.is_gateway_dead();
        if dead {
            state.invocations[self.invocation].failed_services.insert("keys");
        }
        if fault != Fault::None || dead {
            let reason = "out of order".to_owned();
            let refused = fault == Fault::Fail { why: Failure::Refused, done: false };
            let retry = if refused { Retry::Never } else { Retry::After(None) };
            return Err(ApiKeyError::Unavailable { reason, retry });
        }
        state.invocations[self.invocation].unanswered.remove(&owner);
        let environment = state.environment_of(self.invocation);
        if environment.keyless.contains(account) {
            return Err(ApiKeyError::NotFound);
        }
        let key = environment.api_keys.get(account).and_then(|past| past.last().cloned());
        key.map(SecretString::from).ok_or(ApiKeyError::NotFound)
    }
}
