//! The most memory that a thread had allocated at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// Counts what each thread allocates and frees.
pub struct Counting;

fn note(bytes: isize) {
    let noted = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        MOST.with(|most| most.set(most.get().max(now.get())));
    });
    // A thread that ends has no counts any more.
    let _ = noted;
}

// SAFETY: everything is the system allocator's; beside it only numbers are changed.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size().cast_signed());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        note(-layout.size().cast_signed());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Forgets the most, and returns what is allocated now.
pub fn begin() -> isize {
    let now = NOW.get();
    MOST.set(now);
    now
}

/// Returns the most that was allocated since then and is not kept, in megabytes.
pub fn most_since(began: isize) -> isize {
    let kept = (NOW.get() - began).max(0);
    (MOST.get() - began - kept) / 1_000_000
}
