//! The clocks of a device's three queues, simulated.
//!
//! Each queue has a clock: when it will have done all that it was asked for. Computing moves its
//! own clock; a copy begins when its queue and the fences it is to come after allow it; whoever
//! waits for a fence moves to its time. A loop's pass that stands for several is run once, and what
//! it took is then added as often as it is missing: all clocks that it moved, and the fences in it,
//! go on by the pass's length. So a pass should find the queues as the one before it left them,
//! which is why the first and the second are counted apart.

use crate::Fence;
use crate::rates::CopyCost;

/// What a dry run has counted. Passes of a loop that were not run are counted, too, once the pass
/// that stands for them has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Multiplications and additions of matrix products, convolutions and attention.
    pub flops: f64,
    /// Bytes read and written by all operations, operands counted once each.
    pub traffic_bytes: f64,
    /// Units of work, as [`crate::Device::unit_done`] counts them.
    pub units: u64,
    /// The time at which the computing queue has done everything:
    /// `computing_seconds + waiting_seconds`.
    pub seconds: f64,
    /// The time of all operations, with those copies that the computing queue does itself.
    pub computing_seconds: f64,
    /// The time that the computing queue waits for copies.
    pub waiting_seconds: f64,
    /// Bytes copied to the device, by whatever way.
    pub uploaded_bytes: u64,
    /// Bytes copied from the device, by whatever way.
    pub downloaded_bytes: u64,
}

impl Tally {
    /// `self` after what happened since `before` has happened `times` times instead of once.
    fn repeated(self, before: &Tally, times: u64) -> Tally {
        let more = times as f64 - 1.0;
        let real = |now: f64, before: f64| now + more * (now - before);
        let whole = |now: u64, before: u64| before + (now - before) * times;
        Tally {
            flops: real(self.flops, before.flops),
            traffic_bytes: real(self.traffic_bytes, before.traffic_bytes),
            units: whole(self.units, before.units),
            seconds: real(self.seconds, before.seconds),
            computing_seconds: real(self.computing_seconds, before.computing_seconds),
            waiting_seconds: real(self.waiting_seconds, before.waiting_seconds),
            uploaded_bytes: whole(self.uploaded_bytes, before.uploaded_bytes),
            downloaded_bytes: whole(self.downloaded_bytes, before.downloaded_bytes),
        }
    }
}

/// A queue that copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Upload,
    Download,
}

/// A copying queue: when it is free, and how many copies it has been asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    free_at: f64,
    begun: u64,
}

/// A pass that has begun.
#[derive(Clone, Copy, Debug)]
struct Pass {
    times: u64,
    tally: Tally,
    uploads: Copies,
    downloads: Copies,
    first_fence: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// `seconds` is the computing queue's clock.
    pub tally: Tally,
    uploads: Copies,
    downloads: Copies,
    /// When each fence is passed.
    fences: Vec<f64>,
    passes: Vec<Pass>,
}

impl Clocks {
    /// The computing queue works for this long.
    pub fn compute(&mut self, seconds: f64) {
        self.tally.computing_seconds += seconds;
        self.tally.seconds += seconds;
    }

    /// A fence behind the computing asked for so far.
    pub fn fence(&mut self) -> Fence {
        self.fence_at(self.tally.seconds)
    }

    /// The computing queue waits.
    pub fn wait(&mut self, fence: Fence) {
        self.wait_until(self.time_of(fence));
    }

    /// The computing queue waits for all queues.
    pub fn finish(&mut self) {
        self.wait_until(self.uploads.free_at.max(self.downloads.free_at));
    }

    /// A copy of `bytes`, as soon as its queue is free and all of `after` are passed.
    pub fn copy(&mut self, queue: Queue, bytes: u64, cost: &CopyCost, after: &[Fence]) -> Fence {
        let ready = after.iter().map(|fence| self.time_of(*fence)).fold(0.0, f64::max);
        let copies = match queue {
            Queue::Upload => &mut self.uploads,
            Queue::Download => &mut self.downloads,
        };
        let end = copies.free_at.max(ready) + cost.seconds(bytes);
        *copies = Copies { free_at: end, begun: copies.begun + 1 };
        self.count_copy(queue, bytes);
        self.fence_at(end)
    }

    /// Counts bytes that were copied.
    pub fn count_copy(&mut self, queue: Queue, bytes: u64) {
        match queue {
            Queue::Upload => self.tally.uploaded_bytes += bytes,
            Queue::Download => self.tally.downloaded_bytes += bytes,
        }
    }

    /// What follows stands for `times` passes.
    pub fn begin_repeat(&mut self, times: usize) {
        self.passes.push(Pass {
            times: times as u64,
            tally: self.tally,
            uploads: self.uploads,
            downloads: self.downloads,
            first_fence: self.fences.len(),
        });
    }

    /// Counts the passes that the one which ends here stands for.
    pub fn end_repeat(&mut self) {
        let Some(pass) = self.passes.pop() else { return };
        if pass.times == 1 {
            return;
        }
        let shift = (pass.times as f64 - 1.0) * (self.tally.seconds - pass.tally.seconds);
        self.tally = self.tally.repeated(&pass.tally, pass.times);
        // A queue that the pass did not use is free when it was to be.
        for (now, before) in
            [(&mut self.uploads, pass.uploads), (&mut self.downloads, pass.downloads)]
        {
            if now.begun > before.begun {
                now.free_at += shift;
            }
        }
        self.fences[pass.first_fence..].iter_mut().for_each(|time| *time += shift);
    }

    fn fence_at(&mut self, seconds: f64) -> Fence {
        self.fences.push(seconds);
        Fence::new(self.fences.len() as u64 - 1)
    }

    fn time_of(&self, fence: Fence) -> f64 {
        self.fences.get(fence.number() as usize).copied().unwrap_or(0.0)
    }

    fn wait_until(&mut self, time: f64) {
        let waits = (time - self.tally.seconds).max(0.0);
        self.tally.waiting_seconds += waits;
        self.tally.seconds += waits;
    }
}
