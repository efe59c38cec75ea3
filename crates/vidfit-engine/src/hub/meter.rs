//! What a download tells its caller while it runs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The shortest time between two progress events.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// The speed is the mean over this time: long enough not to jitter, short enough to follow.
const SPEED_WINDOW: Duration = Duration::from_secs(10);

/// Something that happened during a [`pull`](super::pull).
#[derive(Clone, Debug, PartialEq)]
pub enum PullEvent {
    /// It is known what the model consists of. Comes once, before the first progress.
    Planned {
        /// The commit that is downloaded.
        commit: String,
        /// How many files the model has.
        files: usize,
        /// Their sizes together.
        total_bytes: u64,
        /// How much of that is here already.
        cached_bytes: u64,
    },
    /// Bytes have arrived.
    Progress(PullProgress),
    /// A file is complete, checked and in its place.
    FileDone {
        /// The file in the repository.
        file: String,
    },
    /// Another process downloads this file; this one waits for it.
    Waiting {
        /// The file in the repository.
        file: String,
    },
    /// Something failed and is tried again.
    Retrying {
        /// What happened.
        reason: String,
        /// After how long it is tried again.
        wait: Duration,
    },
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq)]
pub struct PullProgress {
    /// The file that is being downloaded.
    pub file: String,
    /// Bytes of the whole model that are here.
    pub done_bytes: u64,
    /// Bytes of the whole model.
    pub total_bytes: u64,
    /// Bytes received per second, over the last ten seconds.
    pub bytes_per_second: f64,
    /// How long it will take from here at that speed; `None` until there is one.
    pub seconds_left: Option<f64>,
}

/// Counts bytes and reports them.
pub(super) struct Meter<'a> {
    sink: &'a mut dyn FnMut(PullEvent),
    file: String,
    total_bytes: u64,
    /// Of files that are complete.
    finished_bytes: u64,
    /// Of the current file.
    file_bytes: u64,
    /// Over the network, in all.
    received_bytes: u64,
    /// When how much had been received.
    samples: VecDeque<(Instant, u64)>,
}

impl<'a> Meter<'a> {
    pub fn new(sink: &'a mut dyn FnMut(PullEvent)) -> Self {
        Self {
            sink,
            file: String::new(),
            total_bytes: 0,
            finished_bytes: 0,
            file_bytes: 0,
            received_bytes: 0,
            samples: VecDeque::new(),
        }
    }

    pub fn event(&mut self, event: PullEvent) {
        (self.sink)(event);
    }

    /// Says what there is in all and how much of it is complete.
    pub fn plan(&mut self, total_bytes: u64, finished_bytes: u64) {
        self.total_bytes = total_bytes;
        self.finished_bytes = finished_bytes;
    }

    pub fn begin_file(&mut self, file: &str) {
        self.file = file.to_owned();
        self.file_bytes = 0;
    }

    /// Says how much of the current file is here without having been received now: what an
    /// earlier run left, or nothing after a start from the beginning.
    pub fn set_file_bytes(&mut self, bytes: u64) {
        self.file_bytes = bytes;
    }

    pub fn received(&mut self, bytes: u64) {
        self.file_bytes += bytes;
        self.received_bytes += bytes;
        let now = Instant::now();
        let due = match self.samples.back() {
            Some((last, _)) => now.duration_since(*last) >= EVENT_INTERVAL,
            None => true,
        };
        if due {
            self.report(now);
        }
    }

    /// The current file is complete, `bytes` long.
    pub fn end_file(&mut self, bytes: u64) {
        self.finished_bytes += bytes;
        self.file_bytes = 0;
        self.report(Instant::now());
        self.event(PullEvent::FileDone { file: self.file.clone() });
    }

    fn report(&mut self, now: Instant) {
        self.samples.push_back((now, self.received_bytes));
        while self.samples.len() > 2 && now.duration_since(self.samples[0].0) > SPEED_WINDOW {
            self.samples.pop_front();
        }
        let (since, received_then) = self.samples[0];
        let seconds = now.duration_since(since).as_secs_f64();
        let bytes_per_second = if seconds > 0.0 {
            (self.received_bytes - received_then) as f64 / seconds
        } else {
            0.0
        };
        let done_bytes = self.finished_bytes + self.file_bytes;
        let left_bytes = self.total_bytes.saturating_sub(done_bytes) as f64;
        let seconds_left = (bytes_per_second > 0.0).then(|| left_bytes / bytes_per_second);
        self.event(PullEvent::Progress(PullProgress {
            file: self.file.clone(),
            done_bytes,
            total_bytes: self.total_bytes,
            bytes_per_second,
            seconds_left,
        }));
    }
}
