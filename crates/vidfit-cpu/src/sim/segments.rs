//! Who last wrote and read each byte of the card.

use super::order::Access;
use std::collections::BTreeMap;
use std::ops::Range;

/// What is known of a run of bytes.
#[derive(Clone, Default)]
pub(super) struct Marks {
    /// Who wrote them last.
    pub writer: Option<Access>,
    /// Who read them last since then, in each queue.
    pub readers: [Option<Access>; 3],
    /// Whether what was written is of no use.
    pub is_garbage: bool,
}

impl Marks {
    /// Bytes that `writer` has written, and nobody read since.
    pub fn written(writer: Access, is_garbage: bool) -> Marks {
        Marks { writer: Some(writer), readers: [None; 3], is_garbage }
    }
}

/// Marks for every byte of all regions. Neighbours share them until something tells them apart; a
/// write makes one run of all it covers.
#[derive(Default)]
pub(super) struct Segments {
    /// By the first byte of a run: its end, and what is known.
    runs: BTreeMap<u64, (u64, Marks)>,
}

impl Segments {
    /// A region of garbage at addresses that no other has.
    pub fn begin(&mut self, region: Range<u64>) {
        if !region.is_empty() {
            let garbage = Marks { is_garbage: true, ..Marks::default() };
            self.runs.insert(region.start, (region.end, garbage));
        }
    }

    /// A region goes.
    pub fn end(&mut self, region: Range<u64>) {
        while let Some((&start, _)) = self.runs.range(region.clone()).next_back() {
            self.runs.remove(&start);
        }
    }

    /// Calls `body` for each run of `range`, in order.
    pub fn visit(&mut self, range: Range<u64>, mut body: impl FnMut(Range<u64>, &mut Marks)) {
        self.split(range.start);
        self.split(range.end);
        for (&start, (end, marks)) in self.runs.range_mut(range) {
            body(start..*end, marks);
        }
    }

    /// Makes `range` one run.
    pub fn replace(&mut self, range: Range<u64>, marks: Marks) {
        self.split(range.start);
        self.split(range.end);
        self.end(range.clone());
        self.runs.insert(range.start, (range.end, marks));
    }

    /// Makes a run begin at byte `at`, unless its region ends there.
    fn split(&mut self, at: u64) {
        let Some((_, (end, marks))) = self.runs.range_mut(..at).next_back() else { return };
        if at < *end {
            let behind = (std::mem::replace(end, at), marks.clone());
            self.runs.insert(at, behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(segments: &mut Segments, bytes: u64) -> Vec<(Range<u64>, bool)> {
        let mut runs = Vec::new();
        segments.visit(0..bytes, |run, marks| runs.push((run, marks.is_garbage)));
        runs
    }

    #[test]
    fn runs_are_cut_where_told_apart_and_joined_by_a_write() {
        let mut segments = Segments::default();
        segments.begin(0..100);
        segments.replace(20..40, Marks::default());
        assert_eq!(ends(&mut segments, 100), [(0..20, true), (20..40, false), (40..100, true)]);
        segments.visit(30..50, |_, marks| marks.is_garbage = false);
        let split =
            [(0..20, true), (20..30, false), (30..40, false), (40..50, false), (50..100, true)];
        assert_eq!(ends(&mut segments, 100), split);
        segments.replace(10..100, Marks::default());
        assert_eq!(ends(&mut segments, 100), [(0..10, true), (10..100, false)]);
        segments.replace(0..100, Marks::default());
        assert_eq!(ends(&mut segments, 100), [(0..100, false)]);
    }
}
