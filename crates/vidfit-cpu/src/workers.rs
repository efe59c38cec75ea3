//! Worker threads, each with its own scratch.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Scratch of one worker, in f32 elements: 4 MiB. A constant of the device, so that a plan made
/// anywhere holds.
pub(crate) const SCRATCH_ELEMENTS: usize = 1 << 20;

/// What the scratch of `threads` workers takes.
pub(crate) fn scratch_bytes(threads: usize) -> u64 {
    threads as u64 * (SCRATCH_ELEMENTS * size_of::<f32>()) as u64
}

/// A fixed set of threads that share out numbered jobs.
pub(crate) struct Workers {
    pool: rayon::ThreadPool,
}

/// The scratch of all workers: `threads · SCRATCH_ELEMENTS` elements.
#[derive(Clone, Copy)]
pub(crate) struct Scratch {
    pub first: *mut f32,
    pub threads: usize,
}

// SAFETY: each worker takes a piece of its own, see `Workers::run`, of pages that the session which
// hands the scratch out keeps mapped.
unsafe impl Sync for Scratch {}
// SAFETY: as above.
unsafe impl Send for Scratch {}

impl Workers {
    /// Starts `threads` threads, which are at least one.
    pub fn new(threads: usize) -> Result<Workers, String> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("vidfit-cpu-{n}"))
            .build()
            .map_err(|error| format!("cannot start {threads} threads: {error}"))?;
        // The plan counts scratch for as many as were asked for.
        match pool.current_num_threads() {
            started if started == threads => Ok(Workers { pool }),
            started => Err(format!("only {started} of {threads} threads can be started")),
        }
    }

    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Calls `body(job, scratch)` for each job below `jobs`, on all threads, in no order. The
    /// scratch is the worker's own for the time of the call, with unspecified contents.
    pub fn run(&self, scratch: Scratch, jobs: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
        assert!(scratch.threads >= self.threads());
        let next = AtomicUsize::new(0);
        self.pool.broadcast(|worker| {
            // SAFETY: worker indices are distinct and below `threads`, and a broadcast runs once
            // on each, so no two pieces overlap. No other broadcast is under way: the operations
            // of a device run one at a time, each under its lock, and no body calls `run`. Every
            // pattern of bits is an f32.
            let own = unsafe {
                std::slice::from_raw_parts_mut(
                    { scratch }.first.add(worker.index() * SCRATCH_ELEMENTS),
                    SCRATCH_ELEMENTS,
                )
            };
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job >= jobs {
                    break;
                }
                body(job, own);
            }
        });
    }
}
