//! The record of a job's memory: every tensor's birth and death, in program order.

use serde::{Deserialize, Serialize};

/// A tensor that a job asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who asked, e.g. `vae.decoder.up_blocks.3/conv1 output`.
    pub label: String,
    /// Bytes, rounded up to the trace's alignment; never 0.
    pub bytes: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Request number `n` begins to live.
    Birth(usize),
    /// Request number `n` ends.
    Death(usize),
    /// A phase of the job begins (`text`, `denoise`, `decode`); the one before it ends.
    Phase(String),
    /// A loop begins whose body, recorded once, runs this many times. Whatever is born in the
    /// body dies in it.
    LoopBegin(usize),
    /// The loop's body ends.
    LoopEnd,
}

/// All of a job's memory events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Every offset and size is a multiple of this.
    pub alignment: u64,
    /// The tensors in the order of their births.
    pub requests: Vec<Request>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The most bytes that [`crate::HostBuffer`]s hold at any time.
    #[serde(default)]
    pub host_peak_bytes: u64,
}

impl Trace {
    /// The birth and death of each request, as indices into `events`. A request that never dies
    /// lives to the end.
    pub fn lifetimes(&self) -> Vec<(usize, usize)> {
        let mut lives = vec![(0, self.events.len()); self.requests.len()];
        for (when, event) in self.events.iter().enumerate() {
            match *event {
                Event::Birth(n) => lives[n].0 = when,
                Event::Death(n) => lives[n].1 = when,
                _ => {}
            }
        }
        lives
    }

    /// The most bytes alive at any one time: no layout can be smaller.
    pub fn most_live_bytes(&self) -> u64 {
        let (mut live, mut most) = (0, 0);
        for event in &self.events {
            match *event {
                Event::Birth(n) => live += self.requests[n].bytes,
                Event::Death(n) => live -= self.requests[n].bytes,
                _ => {}
            }
            most = most.max(live);
        }
        most
    }
}
