//! From a trace to offsets in one arena.
//!
//! Placing intervals in time so that the highest offset is least is NP-hard; greedy by size (as
//! in Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020) comes
//! within a few percent of the bound, which is the most bytes ever alive at once. Here it is
//! tried beside other orders, and the smallest result is kept.

use crate::trace::{Event, Request, Trace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A place in the arena for every tensor of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The trace that this layout serves.
    pub trace: Trace,
    /// Offset of each request, in bytes.
    pub offsets: Vec<u64>,
    /// The highest offset in use at any time: the bytes to reserve.
    pub peak_bytes: u64,
    /// The most bytes ever alive at once: what a perfect layout could not go below.
    pub most_live_bytes: u64,
    /// The peak of each phase, in order.
    pub phases: Vec<PhasePeak>,
}

/// The memory of one phase of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhasePeak {
    /// The phase's name.
    pub name: String,
    /// The highest offset in use during the phase. In a phase that is not the fullest it may lie
    /// above what the phase needs: the layout makes the whole small.
    pub peak_bytes: u64,
    /// The most bytes alive at once during the phase: what it needs.
    pub live_bytes: u64,
    /// The tensors alive when the phase holds the most bytes, largest first: who holds the peak.
    pub holders: Vec<Request>,
}

/// Finds an offset for every tensor of `trace`, so that no two that live at the same time overlap.
pub fn solve(trace: &Trace) -> Layout {
    let lives = trace.lifetimes();
    let overlaps = Overlaps::new(trace, &lives);
    let bytes = |n: usize| trace.requests[n].bytes;

    let by_birth: Vec<usize> = (0..trace.requests.len()).collect();
    let mut by_size = by_birth.clone();
    by_size.sort_by_key(|&n| {
        let (birth, death) = lives[n];
        (std::cmp::Reverse(bytes(n)), std::cmp::Reverse(death - birth), n)
    });

    // Tensors of about one size are best stacked in the order of their births.
    let mut by_class = by_birth.clone();
    by_class.sort_by_key(|&n| std::cmp::Reverse(bytes(n).ilog2()));

    // What outlives its phase goes to the bottom: on top of a large phase it would lift the peak
    // of a small one.
    let phases_begun = phases_begun(trace);
    let outliving_first = |order: &[usize]| {
        let mut order = order.to_vec();
        order.sort_by_key(|&n| phases_begun[lives[n].0] == phases_begun[lives[n].1]);
        order
    };
    let outliving_by_class = outliving_first(&by_class);
    let outliving_by_size = outliving_first(&by_size);

    let most_live_bytes = trace.most_live_bytes();
    let mut offsets: Vec<u64> = Vec::new();
    for order in [outliving_by_class, outliving_by_size, by_class, by_size, by_birth] {
        let placed = place(&order, &overlaps, &bytes);
        if offsets.is_empty() || peak(&placed, &bytes) < peak(&offsets, &bytes) {
            offsets = placed;
        }
        if peak(&offsets, &bytes) == most_live_bytes {
            break;
        }
    }
    Layout {
        peak_bytes: peak(&offsets, &bytes),
        most_live_bytes,
        phases: phases(trace, &lives, &offsets),
        offsets,
        trace: trace.clone(),
    }
}

/// How many phases had begun before each event, and at the end.
fn phases_begun(trace: &Trace) -> Vec<usize> {
    let mut begun = vec![0];
    for event in &trace.events {
        begun.push(begun[begun.len() - 1] + usize::from(matches!(event, Event::Phase(_))));
    }
    begun
}

fn peak(offsets: &[u64], bytes: &impl Fn(usize) -> u64) -> u64 {
    offsets.iter().enumerate().map(|(n, offset)| offset + bytes(n)).max().unwrap_or(0)
}

/// Which requests live at the same time, without a list of the pairs: there can be a hundred for
/// every request.
///
/// Requests are numbered by birth, so those born while `n` lives are the numbers that follow `n`.
/// Those alive at the birth of `n` are among the ones alive at the nearest mark before it and the
/// ones born since.
struct Overlaps {
    /// For each request, the event of its death.
    deaths: Vec<u32>,
    /// For each request, the event of its birth.
    births: Vec<u32>,
    /// For each request, the first that is born after its death.
    next: Vec<u32>,
    /// The requests alive at the births of 0, [`MARK`], 2 · [`MARK`], …
    marks: Vec<Vec<u32>>,
}

/// Requests from one mark to the next.
const MARK: usize = 32;

impl Overlaps {
    fn new(trace: &Trace, lives: &[(usize, usize)]) -> Overlaps {
        let narrow = |number: usize| u32::try_from(number).expect("a trace of 2³² events");
        let mut next = vec![narrow(lives.len()); lives.len()];
        let mut marks = Vec::new();
        let mut alive = BTreeSet::new();
        let mut born = 0;
        for event in &trace.events {
            match *event {
                Event::Birth(n) => {
                    debug_assert_eq!(n, born, "requests are numbered by birth");
                    if n % MARK == 0 {
                        marks.push(alive.iter().copied().collect());
                    }
                    alive.insert(narrow(n));
                    born = n + 1;
                }
                Event::Death(n) => {
                    alive.remove(&narrow(n));
                    next[n] = narrow(born);
                }
                _ => {}
            }
        }
        let births = lives.iter().map(|&(birth, _)| narrow(birth)).collect();
        let deaths = lives.iter().map(|&(_, death)| narrow(death)).collect();
        Overlaps { deaths, births, next, marks }
    }

    /// The requests that are alive at some time when `n` is.
    fn of(&self, n: usize) -> impl Iterator<Item = usize> {
        let marked = self.marks[n / MARK].iter().map(|&other| other as usize);
        let before = marked.chain(n / MARK * MARK..n);
        let alive = before.filter(move |&other| self.deaths[other] > self.births[n]);
        alive.chain(n + 1..self.next[n] as usize)
    }
}

/// Puts each request, in `order`, at the lowest offset that is free for its whole life.
fn place(order: &[usize], overlaps: &Overlaps, bytes: &impl Fn(usize) -> u64) -> Vec<u64> {
    // Where each that has its place begins and ends; no other end is 0.
    let mut places = vec![(0, 0); order.len()];
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for &n in order {
        taken.clear();
        taken.extend(overlaps.of(n).map(|other| places[other]).filter(|&(_, end)| end > 0));
        taken.sort_unstable();
        let mut offset = 0;
        for &(from, to) in &taken {
            if from >= offset + bytes(n) {
                break;
            }
            offset = offset.max(to);
        }
        places[n] = (offset, offset + bytes(n));
    }
    places.into_iter().map(|(offset, _)| offset).collect()
}

/// Walks the trace once more to see how high each phase reaches and who is alive at its fullest.
fn phases(trace: &Trace, lives: &[(usize, usize)], offsets: &[u64]) -> Vec<PhasePeak> {
    let end = |n: usize| offsets[n] + trace.requests[n].bytes;
    let alive_after =
        |when: usize| (0..lives.len()).filter(move |&n| lives[n].0 <= when && when < lives[n].1);
    // Each phase with the event after which it was fullest. Only births and the beginning of the
    // phase can make it fuller, or higher.
    let mut phases: Vec<(PhasePeak, usize)> = Vec::new();
    let (mut live_bytes, mut fullest) = (0, 0);
    for (when, event) in trace.events.iter().enumerate() {
        let top = match event {
            Event::Birth(n) => {
                live_bytes += trace.requests[*n].bytes;
                end(*n)
            }
            Event::Death(n) => {
                live_bytes -= trace.requests[*n].bytes;
                continue;
            }
            Event::Phase(name) => {
                let phase = PhasePeak {
                    name: name.clone(),
                    peak_bytes: 0,
                    live_bytes,
                    holders: Vec::new(),
                };
                phases.push((phase, when));
                fullest = 0;
                alive_after(when).map(end).max().unwrap_or(0)
            }
            Event::LoopBegin(_) | Event::LoopEnd => continue,
        };
        let Some((phase, fullest_when)) = phases.last_mut() else { continue };
        phase.peak_bytes = phase.peak_bytes.max(top);
        if live_bytes > fullest {
            (fullest, *fullest_when) = (live_bytes, when);
            phase.live_bytes = live_bytes;
        }
    }
    let with_holders = phases.into_iter().map(|(mut phase, fullest)| {
        let mut holders: Vec<usize> = alive_after(fullest).collect();
        holders.sort_by_key(|&n| std::cmp::Reverse(trace.requests[n].bytes));
        phase.holders = holders.into_iter().map(|n| trace.requests[n].clone()).collect();
        phase
    });
    with_holders.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A random but valid trace: a stack of births and deaths in any order.
    fn traces() -> impl Strategy<Value = Trace> {
        prop::collection::vec((1u64..50, any::<prop::sample::Index>(), any::<bool>()), 1..120)
            .prop_map(|choices| {
                let mut trace =
                    Trace { alignment: 8, requests: vec![], events: vec![], host_peak_bytes: 0 };
                trace.events.push(Event::Phase("all".into()));
                let mut alive = Vec::new();
                for (units, index, dies) in choices {
                    if units == 1 {
                        trace.events.push(Event::Phase("next".into()));
                    }
                    if dies && !alive.is_empty() {
                        let n = alive.swap_remove(index.index(alive.len()));
                        trace.events.push(Event::Death(n));
                    } else {
                        let n = trace.requests.len();
                        trace.requests.push(Request { label: n.to_string(), bytes: units * 8 });
                        trace.events.push(Event::Birth(n));
                        alive.push(n);
                    }
                }
                trace
            })
    }

    proptest! {
        #[test]
        fn no_two_live_tensors_overlap(trace in traces()) {
            let layout = solve(&trace);
            let lives = trace.lifetimes();
            for a in 0..lives.len() {
                for b in a + 1..lives.len() {
                    let together = lives[a].0 < lives[b].1 && lives[b].0 < lives[a].1;
                    let (a0, b0) = (layout.offsets[a], layout.offsets[b]);
                    let (a1, b1) = (a0 + trace.requests[a].bytes, b0 + trace.requests[b].bytes);
                    prop_assert!(!together || a1 <= b0 || b1 <= a0, "{a} and {b} overlap");
                }
            }
            prop_assert!(layout.peak_bytes >= layout.most_live_bytes);
            let highest = layout.phases.iter().map(|phase| phase.peak_bytes).max();
            prop_assert_eq!(highest, Some(layout.peak_bytes));
            prop_assert!(layout.offsets.iter().all(|offset| offset % 8 == 0));
        }
    }

    proptest! {
        #[test]
        fn overlaps_are_those_of_the_lifetimes(trace in traces()) {
            let lives = trace.lifetimes();
            let overlaps = Overlaps::new(&trace, &lives);
            for n in 0..lives.len() {
                let together = |m: usize| lives[m].0 < lives[n].1 && lives[n].0 < lives[m].1;
                let expected: Vec<usize> =
                    (0..lives.len()).filter(|&m| m != n && together(m)).collect();
                prop_assert_eq!(overlaps.of(n).collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_small_phase_is_not_lifted_by_a_large_one() {
        // A small tensor goes from one phase to the next, where a large one lives beside it.
        let request = |bytes| Request { label: String::new(), bytes };
        let phase = |name: &str| Event::Phase(name.into());
        let trace = Trace {
            host_peak_bytes: 0,
            alignment: 1,
            requests: vec![request(30), request(10), request(1000)],
            events: vec![
                phase("small"),
                Event::Birth(0),
                Event::Birth(1),
                Event::Death(0),
                phase("large"),
                Event::Birth(2),
            ],
        };
        let layout = solve(&trace);
        let peaks: Vec<u64> = layout.phases.iter().map(|phase| phase.peak_bytes).collect();
        assert_eq!((peaks, layout.peak_bytes), (vec![40, 1010], 1010));
    }

    #[test]
    fn a_chain_of_layers_needs_two_buffers() {
        // x -> y -> z -> ...: at any time one input and one output live.
        let mut trace =
            Trace { alignment: 1, requests: vec![], events: vec![], host_peak_bytes: 0 };
        for n in 0..50 {
            trace.requests.push(Request { label: String::new(), bytes: 10 });
            trace.events.push(Event::Birth(n));
            if n > 0 {
                trace.events.push(Event::Death(n - 1));
            }
        }
        let layout = solve(&trace);
        assert_eq!((layout.peak_bytes, layout.most_live_bytes), (20, 20));
    }
}
