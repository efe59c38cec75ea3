//! A global allocator that counts, for test files of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use vidfit_engine::progress::{Listener, Progress};

/// Counts the bytes that live on the heap, and the most that ever did.
struct Counter;

/// Bytes that live on the heap.
pub static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most that ever did, since this was last set.
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every request is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Both may exist while the contents move.
        grow(bytes);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static COUNTER: Counter = Counter;

/// The name and the peak of each phase that has ended.
pub type Peaks = Arc<Mutex<Vec<(&'static str, usize)>>>;

/// Notes the peak of each phase as it ends.
pub fn peaks_of_phases() -> (Listener, Peaks) {
    let peaks = Arc::new(Mutex::new(Vec::with_capacity(16)));
    let noted = peaks.clone();
    let listener = Box::new(move |progress: Progress| match progress {
        Progress::PhaseBegan { .. } => PEAK.store(LIVE.load(Relaxed), Relaxed),
        Progress::PhaseEnded { phase, .. } => {
            noted.lock().unwrap().push((phase, PEAK.load(Relaxed)));
        }
        Progress::Advanced { .. } | Progress::PlannedAgain { .. } => {}
    });
    (listener, peaks)
}
