//! The checker: no two uses of the same bytes, one of them a write, without a fence between them.
//!
//! It looks at what was asked for and not at when it happened, so its verdict is the same in every
//! run. Each queue has a vector clock (Fidge 1988, Mattern 1989): how much of each queue comes
//! before what the queue does next. A fence keeps the clock of its queue; whoever waits for it has
//! all of that behind it too. Two uses are in order if the later one's queue has the earlier one
//! behind it.

use super::config::Direction;
use super::segments::{Marks, Segments};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use vidfit_tensor::{Fence, Region};

/// The most violations that are kept.
const MOST_VIOLATIONS: usize = 100;

/// One of a device's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Computing,
    Copying(Direction),
}

impl Queue {
    fn index(self) -> usize {
        match self {
            Queue::Computing => 0,
            Queue::Copying(direction) => 1 + direction as usize,
        }
    }
}

/// How much of each queue has been done, by [`Queue::index`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock([u64; 3]);

impl Clock {
    /// How many copies of each direction have been done.
    pub fn copies(self) -> [u64; 2] {
        [self.0[1], self.0[2]]
    }

    fn join(&mut self, other: Clock) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = (*own).max(other);
        }
    }
}

/// A use of memory: what did it, and when in its queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    queue: Queue,
    time: u64,
    what: &'static str,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.queue {
            Queue::Computing => write!(f, "{} (operation {})", self.what, self.time),
            Queue::Copying(_) => write!(f, "{} {}", self.what, self.time),
        }
    }
}

/// A copy that has been entered.
pub(super) struct Begun {
    /// Passed when it is done.
    pub fence: Fence,
    /// Its number among the copies of its direction, from 1.
    pub number: u64,
    /// How many copies of each direction must have been done before it begins.
    pub needs: [u64; 2],
}

/// A fence, as [`Order`] remembers it.
#[derive(Clone, Copy)]
pub(super) struct Passing {
    /// What comes before it.
    pub clock: Clock,
    /// The copy that ends at it.
    pub copy: Option<(Direction, u64)>,
}

/// Everything that was asked of a card, as far as order goes. Ranges are of addresses, see
/// [`Region::address`].
pub(super) struct Order {
    checks_garbage: bool,
    /// Bytes of each region.
    regions: BTreeMap<Region, u64>,
    memory: Segments,
    buffers: HashMap<u64, Marks>,
    clocks: [Clock; 3],
    /// What somebody has waited for by a fence.
    awaited: Clock,
    /// What has come before the last [`Order::finish`].
    finished: Clock,
    fences: Vec<Passing>,
    /// The number of the first of `fences`. Earlier ones belong to earlier reservations.
    first_fence: u64,
    violations: Vec<String>,
    /// Where in `violations` those of this reservation begin.
    first_violation: usize,
    is_violated: bool,
}

impl Order {
    pub fn new(checks_garbage: bool) -> Order {
        Order {
            checks_garbage,
            regions: BTreeMap::new(),
            memory: Segments::default(),
            buffers: HashMap::new(),
            clocks: [Clock::default(); 3],
            awaited: Clock::default(),
            finished: Clock::default(),
            fences: Vec::new(),
            first_fence: 1,
            violations: Vec::new(),
            first_violation: 0,
            is_violated: false,
        }
    }

    /// A new region of garbage.
    pub fn begin(&mut self, region: Region, bytes: u64) {
        self.end(region);
        self.regions.insert(region, bytes);
        self.memory.begin(region.address(0)..region.address(bytes));
    }

    /// A region goes, if it is there.
    pub fn end(&mut self, region: Region) {
        if let Some(bytes) = self.regions.remove(&region) {
            self.memory.end(region.address(0)..region.address(bytes));
        }
    }

    /// A new arena of garbage. All queues are idle.
    pub fn reserve(&mut self, bytes: u64) {
        self.begin(Region::ARENA, bytes);
        self.buffers.clear();
        self.finish();
        self.awaited = self.finished;
        self.first_fence += self.fences.len() as u64;
        self.fences.clear();
        self.first_violation = self.violations.len();
        self.is_violated = false;
    }

    /// The arena goes, with all queues idle. Somebody must have waited for each copy.
    pub fn release(&mut self) {
        for direction in [Direction::Upload, Direction::Download] {
            let queue = Queue::Copying(direction);
            let (awaited, begun) = (self.awaited.0[queue.index()], self.time(queue));
            if begun > awaited {
                let first = Access { queue, time: awaited + 1, what: direction.name() };
                let more = match begun - awaited - 1 {
                    0 => String::new(),
                    more => format!(" and {more} after it"),
                };
                self.report(format!("nobody waited for {first}{more} before the arena went"));
            }
        }
        self.reserve(0);
    }

    /// Everything asked for so far has been done before what follows.
    pub fn finish(&mut self) {
        for clock in self.clocks {
            self.finished.join(clock);
        }
        self.clocks = [self.finished; 3];
    }

    /// An operation. Whether it is in order.
    pub fn compute(
        &mut self,
        what: &'static str,
        reads: impl IntoIterator<Item = Range<u64>>,
        writes: impl IntoIterator<Item = Range<u64>>,
    ) -> bool {
        let access = self.tick(Queue::Computing, what);
        let mut found = None;
        for range in reads {
            let new = self.read(access, range);
            found = found.or(new);
        }
        for range in writes {
            let new = self.write(access, range, false);
            found = found.or(new);
        }
        self.judge(found)
    }

    /// The computing queue fills `range` with garbage. Whether it is in order.
    pub fn poison(&mut self, range: Range<u64>) -> bool {
        let access = self.tick(Queue::Computing, "poison");
        let found = self.write(access, range, true);
        self.judge(found)
    }

    /// A copy from or to `range`, and from or to the host buffer of this number.
    pub fn begin_copy(
        &mut self,
        direction: Direction,
        range: Range<u64>,
        buffer: Option<u64>,
        after: &[Fence],
    ) -> Begun {
        let queue = Queue::Copying(direction);
        for &fence in after {
            self.join(queue, self.passing(fence).clock);
        }
        let needs = self.clocks[queue.index()].copies();
        let access = self.tick(queue, direction.name());
        let in_buffer = buffer
            .and_then(|buffer| self.use_buffer(access, buffer, direction == Direction::Download));
        let in_arena = match direction {
            Direction::Upload => self.write(access, range, false),
            Direction::Download => self.read(access, range),
        };
        self.judge(in_arena.or(in_buffer));
        let fence = self.fence_of(queue, Some((direction, access.time)));
        Begun { fence, number: access.time, needs }
    }

    /// A fence behind what the computing queue was asked for.
    pub fn fence(&mut self) -> Fence {
        self.fence_of(Queue::Computing, None)
    }

    /// What comes before `fence`.
    pub fn passing(&self, fence: Fence) -> Passing {
        match fence.number().checked_sub(self.first_fence) {
            None => Passing { clock: Clock::default(), copy: None },
            Some(n) => *self.fences.get(n as usize).expect("a fence of another device"),
        }
    }

    /// The computing queue has waited for what comes before a fence.
    pub fn waited(&mut self, clock: Clock) {
        self.join(Queue::Computing, clock);
    }

    /// An upload failed: what it should have brought is garbage, unless written again since.
    pub fn upload_failed(&mut self, number: u64, range: Range<u64>) {
        // Its region may be gone.
        self.memory.visit(range, |_, marks| {
            let queue = Queue::Copying(Direction::Upload);
            let is_own = |writer: Access| writer.queue == queue && writer.time == number;
            marks.is_garbage |= marks.writer.is_some_and(is_own);
        });
    }

    /// How many copies of each direction have been begun.
    pub fn begun(&self) -> [u64; 2] {
        [Direction::Upload, Direction::Download].map(|d| self.time(Queue::Copying(d)))
    }

    /// Reports something against the rules.
    pub fn report(&mut self, what: String) {
        self.is_violated = true;
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(what);
        }
    }

    /// All that was reported, reservations before this one included.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Whether anything was reported since the arena was reserved.
    pub fn is_violated(&self) -> bool {
        self.is_violated
    }

    /// The first of what was reported since the arena was reserved, and how much more there is.
    pub fn verdict(&self) -> Option<String> {
        let own = &self.violations[self.first_violation..];
        match (self.is_violated, own) {
            (false, _) => None,
            (true, []) => Some("more violations than are kept".into()),
            (true, [one]) => Some(one.clone()),
            (true, [first, more @ ..]) => Some(format!("{first} (and {} more)", more.len())),
        }
    }

    fn time(&self, queue: Queue) -> u64 {
        self.clocks[queue.index()].0[queue.index()]
    }

    fn tick(&mut self, queue: Queue, what: &'static str) -> Access {
        self.clocks[queue.index()].0[queue.index()] += 1;
        Access { queue, time: self.time(queue), what }
    }

    fn join(&mut self, queue: Queue, clock: Clock) {
        self.clocks[queue.index()].join(clock);
        self.awaited.join(clock);
    }

    fn fence_of(&mut self, queue: Queue, copy: Option<(Direction, u64)>) -> Fence {
        self.fences.push(Passing { clock: self.clocks[queue.index()], copy });
        Fence::new(self.first_fence + self.fences.len() as u64 - 1)
    }

    fn judge(&mut self, found: Option<String>) -> bool {
        let is_in_order = found.is_none();
        found.into_iter().for_each(|what| self.report(what));
        is_in_order
    }

    fn read(&mut self, access: Access, range: Range<u64>) -> Option<String> {
        self.check_range(access, &range);
        let judge = Judge::new(self, access);
        let checks_garbage = self.checks_garbage;
        let mut found = None;
        self.memory.visit(range, |run, marks| {
            if found.is_none() {
                found =
                    judge.read(marks).map(|why| format!("{access} reads {}, {why}", bytes(&run)));
            }
            if found.is_none() && checks_garbage && marks.is_garbage {
                found = Some(format!("{access} reads {}, which {}", bytes(&run), origin(marks)));
            }
            marks.readers[access.queue.index()] = Some(access);
        });
        found
    }

    fn write(&mut self, access: Access, range: Range<u64>, is_garbage: bool) -> Option<String> {
        self.check_range(access, &range);
        if range.is_empty() {
            return None;
        }
        let judge = Judge::new(self, access);
        let mut found = None;
        self.memory.visit(range.clone(), |run, marks| {
            if found.is_none() {
                found =
                    judge.write(marks).map(|why| format!("{access} writes {}, {why}", bytes(&run)));
            }
        });
        self.memory.replace(range, Marks::written(access, is_garbage));
        found
    }

    fn use_buffer(&mut self, access: Access, buffer: u64, writes: bool) -> Option<String> {
        let judge = Judge::new(self, access);
        let marks = self.buffers.entry(buffer).or_default();
        if writes {
            let found = judge.write(marks);
            *marks = Marks::written(access, false);
            found.map(|why| format!("{access} writes a host buffer, {why}"))
        } else {
            marks.readers[access.queue.index()] = Some(access);
            judge.read(marks).map(|why| format!("{access} reads a host buffer, {why}"))
        }
    }

    fn check_range(&self, access: Access, range: &Range<u64>) {
        let (region, first) = Region::of(range.start);
        let region_bytes = self.regions.get(&region).copied().unwrap_or(0);
        assert!(
            first + (range.end - range.start) <= region_bytes,
            "{access} uses a tensor outside the arena: {} of {region_bytes}",
            bytes(range),
        );
    }
}

/// Decides whether one use may follow another.
struct Judge {
    access: Access,
    /// What its queue has behind it.
    clock: Clock,
    /// What somebody has waited for.
    awaited: Clock,
}

impl Judge {
    fn new(order: &Order, access: Access) -> Judge {
        let mut awaited = order.awaited;
        awaited.join(order.finished);
        Judge { access, clock: order.clocks[access.queue.index()], awaited }
    }

    fn follows(&self, earlier: Access) -> bool {
        earlier.time <= self.clock.0[earlier.queue.index()]
    }

    /// What forbids to read, if something does.
    fn read(&self, marks: &Marks) -> Option<String> {
        let writer = marks.writer.filter(|writer| !self.follows(*writer))?;
        Some(format!("which {writer} writes, and no fence orders the two"))
    }

    /// What forbids to write, if something does.
    fn write(&self, marks: &Marks) -> Option<String> {
        let read = marks.readers.iter().flatten().find(|reader| !self.follows(**reader));
        if let Some(reader) = read {
            return Some(format!("which {reader} reads, and no fence orders the two"));
        }
        // A copy that is overwritten by the next of its queue is in order, but was of no use.
        let unseen = |writer: &Access| {
            writer.queue == self.access.queue
                && writer.queue != Queue::Computing
                && writer.time > self.awaited.0[writer.queue.index()]
        };
        match marks.writer {
            Some(writer) if unseen(&writer) => {
                Some(format!("which {writer} has written, and nobody waited for that"))
            }
            _ => self.read(marks),
        }
    }
}

fn bytes(range: &Range<u64>) -> String {
    let (region, first) = Region::of(range.start);
    let end = first + (range.end - range.start);
    match region {
        Region::ARENA => format!("bytes {first}..{end}"),
        _ => format!("bytes {first}..{end} of what stays warm"),
    }
}

/// How these bytes came to be garbage.
fn origin(marks: &Marks) -> String {
    match marks.writer {
        None => "nothing has written".into(),
        Some(writer) if writer.queue == Queue::Computing => {
            "nothing has written since their tensor was born".into()
        }
        Some(writer) => format!("{writer} should have written, but failed"),
    }
}
