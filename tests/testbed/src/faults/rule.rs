//! Which requests a fault hits.

use super::fault::Fault;
use crate::http::Request;

/// Which requests a fault hits, and how many of them. A new rule hits one.
pub struct Rule {
    picks: Box<dyn Fn(&Request) -> bool + Send + Sync>,
    pass: usize,
    left: Option<usize>,
    fault: Fault,
}

impl Rule {
    /// The requests that the closure picks. It must not touch the stand-in's faults.
    pub fn when(picks: impl Fn(&Request) -> bool + Send + Sync + 'static, fault: Fault) -> Self {
        Self { picks: Box::new(picks), pass: 0, left: Some(1), fault }
    }

    pub fn any(fault: Fault) -> Self {
        Self::when(|_| true, fault)
    }

    /// Requests of one method whose path ends like this.
    pub fn on(method: &'static str, path_suffix: impl Into<String>, fault: Fault) -> Self {
        let suffix = path_suffix.into();
        let picks = move |request: &Request| {
            request.method.as_str() == method && request.path.ends_with(&suffix)
        };
        Self::when(picks, fault)
    }

    /// The same, of those whose body names this key: a pair that is refused, for one.
    pub fn naming(
        method: &'static str,
        path_suffix: impl Into<String>,
        key: &str,
        fault: Fault,
    ) -> Self {
        let Self { picks: of_path, .. } = Self::on(method, path_suffix, fault.clone());
        let name = serde_json::json!(key).to_string();
        let names = move |request: &Request| {
            request.body.windows(name.len()).any(|part| part == name.as_bytes())
        };
        Self::when(move |request| of_path(request) && names(request), fault)
    }

    /// Requests for one operation of an AWS JSON service.
    pub fn operation(name: &'static str, fault: Fault) -> Self {
        Self::when(move |request| request.operation() == Some(name), fault)
    }

    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { left: Some(times), ..self }
    }

    #[must_use]
    pub fn forever(self) -> Self {
        Self { left: None, ..self }
    }

    /// The rule, after it has let this many matching requests pass.
    #[must_use]
    pub fn after(self, passing: usize) -> Self {
        Self { pass: passing, ..self }
    }

    /// The fault, if the rule hits this request. Counts the request.
    pub(super) fn strike(&mut self, request: &Request) -> Option<Fault> {
        if self.left == Some(0) || !(self.picks)(request) {
            return None;
        }
        if self.pass > 0 {
            self.pass -= 1;
            return None;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Some(self.fault.clone())
    }
}
