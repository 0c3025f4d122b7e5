//! Where in our source the work was last, for a panic in somebody else's: without symbols the
//! deployed binary has no backtrace.

use std::cell::Cell;
use std::panic::Location;

thread_local! {
    static LAST_CALL: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// Notes a place that calls the outside. The function runs on one thread.
pub fn note_call(place: &'static Location<'static>) {
    LAST_CALL.set(Some(place));
}

/// The place that last called the outside, as `src/file.rs:line:column`.
pub fn last_call() -> Option<String> {
    LAST_CALL.get().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn call_the_outside() {
        note_call(Location::caller());
    }

    #[test]
    fn the_last_call_is_named_by_its_place_in_our_source() {
        assert_eq!(last_call(), None);
        call_the_outside();
        let place = last_call().unwrap();
        assert!(place.starts_with("src/telemetry/place.rs:"), "{place}");
    }
}
