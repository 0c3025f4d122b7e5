//! A stand-in's log of requests.

/// The requests that a stand-in got, in the order in which they came. Each is entered as it comes
/// and completed when it ends, unless the log was cleared meanwhile.
pub struct RequestLog<T> {
    requests: Vec<T>,
    cleared: usize,
}

#[derive(Clone, Copy)]
pub struct Place(usize);

impl<T> Default for RequestLog<T> {
    fn default() -> Self {
        Self { requests: Vec::new(), cleared: 0 }
    }
}

impl<T> RequestLog<T> {
    pub fn begin(&mut self, request: T) -> Place {
        self.requests.push(request);
        Place(self.cleared + self.requests.len() - 1)
    }

    /// The request to be completed; `None` if the log was cleared since it came.
    pub fn find(&mut self, place: Place) -> Option<&mut T> {
        self.requests.get_mut(place.0.checked_sub(self.cleared)?)
    }

    pub fn requests(&self) -> &[T] {
        &self.requests
    }

    pub fn clear(&mut self) {
        self.cleared += self.requests.len();
        self.requests.clear();
    }
}
