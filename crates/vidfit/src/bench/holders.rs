//! Who holds memory when a phase is fullest.

use std::collections::BTreeMap;
use vidfit_tensor::{Event, Trace};

/// Tensors of one kind that are alive at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What they are: the end of their label, without the place that asked.
    pub what: String,
    /// How many there are.
    pub count: usize,
    /// Their bytes together.
    pub bytes: u64,
}

impl Held {
    /// Whether these are weights.
    pub fn is_weights(&self) -> bool {
        self.what.starts_with("weight slot") || self.what.ends_with(" weights")
    }
}

/// The tensors that are alive when `phase` holds the most bytes, by kind, largest first.
pub fn held_at_fullest(trace: &Trace, phase: &str) -> Vec<Held> {
    let mut alive: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut live_bytes, mut most_bytes, mut fullest) = (0, 0, Vec::new());
    let mut is_here = false;
    for event in &trace.events {
        match event {
            Event::Birth(n) => {
                live_bytes += trace.requests[*n].bytes;
                alive.insert(*n, trace.requests[*n].bytes);
            }
            Event::Death(n) => {
                live_bytes -= trace.requests[*n].bytes;
                alive.remove(n);
            }
            Event::Phase(name) => is_here = name == phase,
            Event::LoopBegin(_) | Event::LoopEnd => {}
        }
        if is_here && live_bytes > most_bytes {
            most_bytes = live_bytes;
            fullest = alive.keys().copied().collect();
        }
    }
    let mut kinds: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for request in fullest.into_iter().map(|n: usize| &trace.requests[n]) {
        let what = request.label.rsplit('/').next().unwrap_or_default();
        let (count, bytes) = kinds.entry(what).or_default();
        (*count, *bytes) = (*count + 1, *bytes + request.bytes);
    }
    let held = |(what, (count, bytes)): (&str, _)| Held { what: what.to_owned(), count, bytes };
    let mut held: Vec<Held> = kinds.into_iter().map(held).collect();
    held.sort_by_key(|held| std::cmp::Reverse(held.bytes));
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_tensor::Request;

    #[test]
    fn the_fullest_moment_of_a_phase_is_found() {
        let request = |label: &str, bytes| Request { label: label.into(), bytes };
        let phase = |name: &str| Event::Phase(name.into());
        let trace = Trace {
            alignment: 1,
            host_peak_bytes: 0,
            requests: vec![
                request("embeds", 5),
                request("weight slot 0", 7),
                request("a.0/conv1", 20),
                request("a.1/conv1", 30),
                request("b/conv2", 100),
            ],
            events: vec![
                phase("text"),
                Event::Birth(0),
                phase("denoise"),
                Event::Birth(1),
                Event::Birth(2),
                Event::Birth(3),
                Event::Death(2),
                phase("decode"),
                Event::Birth(4),
            ],
        };
        let held = |phase| -> Vec<(String, usize, u64)> {
            let held = held_at_fullest(&trace, phase).into_iter();
            held.map(|held| (held.what, held.count, held.bytes)).collect()
        };
        assert_eq!(held("text"), [("embeds".into(), 1, 5)]);
        let expected =
            [("conv1".into(), 2, 50), ("weight slot 0".into(), 1, 7), ("embeds".into(), 1, 5)];
        assert_eq!(held("denoise"), expected);
        assert_eq!(held("decode")[0], ("conv2".into(), 1, 100));
        let weights = held_at_fullest(&trace, "denoise").into_iter().filter(Held::is_weights);
        assert_eq!(weights.map(|held| held.bytes).sum::<u64>(), 7);
    }
}
