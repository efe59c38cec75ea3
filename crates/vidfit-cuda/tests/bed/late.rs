//! A card that does nothing before it must: what a queue is asked for waits until somebody waits for it,
//! or until the dice say so. What is right only by luck of the timing goes wrong here.
//!
//! It has one kernel, which adds f32.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};
use vidfit_cuda::{Driver, Event, Launch, Queue, Speed};

const BASE: u64 = 0x7000_0000;
const MEMORY_BYTES: usize = 32 << 20;

/// A card of 32 MiB. A clone is the same card.
#[derive(Clone)]
pub struct Late(Arc<Mutex<Inner>>);

struct Inner {
    memory: Vec<u8>,
    allocated: BTreeMap<u64, u64>,
    /// First byte and length of what is pinned.
    pinned: BTreeMap<usize, usize>,
    queues: [VecDeque<Work>; 3],
    /// Of each event so far, whether it is passed.
    passed: Vec<bool>,
    /// Events that were not forgotten.
    known: BTreeSet<u64>,
    dice: u64,
    /// How many copies from now on are not refused.
    copies_left: u64,
    faults: Vec<String>,
}

enum Work {
    Write { address: u64, from: usize, bytes: usize },
    Read { address: u64, to: usize, bytes: usize },
    WriteThis { address: u64, bytes: Vec<u8> },
    Add { from: Range<u64>, to: Range<u64> },
    Record(usize),
    Wait(usize),
}

impl Late {
    pub fn new(seed: u64) -> Late {
        Late(Arc::new(Mutex::new(Inner {
            memory: vec![0xff; MEMORY_BYTES],
            allocated: BTreeMap::new(),
            pinned: BTreeMap::new(),
            queues: Default::default(),
            passed: Vec::new(),
            known: BTreeSet::new(),
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            copies_left: u64::MAX,
            faults: Vec::new(),
        })))
    }

    /// What was done that must not be.
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    pub fn pinned_bytes(&self) -> u64 {
        self.lock().pinned.values().map(|bytes| *bytes as u64).sum()
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.lock().allocated.values().sum()
    }

    /// Events that somebody may still ask for.
    pub fn events(&self) -> usize {
        self.lock().known.len()
    }

    /// What the computing queue was asked for and has not done.
    pub fn computing(&self) -> usize {
        self.lock().queues[Queue::Computing as usize].len()
    }

    /// Refuses all copies but the next so many.
    pub fn refuse_after(&self, copies: u64) {
        self.lock().copies_left = copies;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn ask(&self, queue: Queue, work: Work) {
        let mut inner = self.lock();
        inner.queues[queue as usize].push_back(work);
        inner.dawdle();
    }

    fn allow_copy(&self) -> Result<(), String> {
        let mut inner = self.lock();
        inner.copies_left = inner.copies_left.checked_sub(1).ok_or("refused")?;
        Ok(())
    }
}

impl Inner {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 33) % sides
    }

    /// Does some work, as a card does it while nobody looks.
    fn dawdle(&mut self) {
        while self.roll(3) == 0 {
            let queue = self.roll(3) as usize;
            self.step(queue);
        }
    }

    /// Does the first that a queue was asked for, unless it has to wait.
    fn step(&mut self, queue: usize) {
        let Some(work) = self.queues[queue].pop_front() else { return };
        match work {
            Work::Wait(event) if !self.passed[event] => self.queues[queue].push_front(work),
            Work::Wait(_) => {}
            Work::Record(event) => self.passed[event] = true,
            Work::Write { address, from, bytes } => {
                // SAFETY: pinned, or a fault was noted.
                let from = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
                self.at(address, bytes).copy_from_slice(from);
            }
            Work::Read { address, to, bytes } => {
                // SAFETY: as above.
                let to = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                to.copy_from_slice(self.at(address, bytes));
            }
            Work::WriteThis { address, bytes } => {
                self.at(address, bytes.len()).copy_from_slice(&bytes);
            }
            Work::Add { from, to } => {
                let bytes = (from.end - from.start) as usize;
                let from = self.at(from.start, bytes).to_vec();
                let number = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
                for (to, from) in self.at(to.start, bytes).chunks_exact_mut(4).zip(from.chunks(4)) {
                    to.copy_from_slice(&(number(to) + number(from)).to_le_bytes());
                }
            }
        }
    }

    /// Does no more than what `event` needs.
    fn reach(&mut self, event: usize) {
        while !self.passed[event] {
            let has = |queue: &VecDeque<Work>| {
                queue.iter().any(|work| matches!(work, Work::Record(number) if *number == event))
            };
            let queue = self.queues.iter().position(has).expect("an event that nobody recorded");
            if let Some(Work::Wait(other)) = self.queues[queue].front() {
                self.reach(*other);
            }
            self.step(queue);
        }
    }

    fn finish(&mut self, queue: usize) {
        while let Some(work) = self.queues[queue].front() {
            if let Work::Wait(event) = work {
                self.reach(*event);
            }
            self.step(queue);
        }
    }

    fn at(&mut self, address: u64, bytes: usize) -> &mut [u8] {
        let end = address + bytes as u64;
        let is_held = self
            .allocated
            .range(..=address)
            .next_back()
            .is_some_and(|(first, length)| end <= first + length);
        if !is_held {
            self.faults.push(format!("{bytes} bytes at {address:#x} are nobody's"));
        }
        &mut self.memory[(address - BASE) as usize..][..bytes]
    }

    fn number_of(&mut self, event: Event) -> usize {
        if !self.known.contains(&event.0) {
            self.faults.push(format!("{event:?} was forgotten"));
        }
        event.0 as usize
    }
}

impl Driver for Late {
    fn name(&self) -> &str {
        "late"
    }

    fn speed(&self) -> Speed {
        Speed { tensor: 1e12, f32: 1e12 }
    }

    fn architecture(&self) -> u32 {
        800
    }

    fn free_bytes(&self) -> u64 {
        MEMORY_BYTES as u64 - self.allocated_bytes()
    }

    fn allocate(&self, bytes: u64) -> Result<u64, String> {
        let mut inner = self.lock();
        let end = inner.allocated.iter().map(|(first, length)| first + length).max();
        let first = end.unwrap_or(BASE).next_multiple_of(256);
        if first + bytes > BASE + MEMORY_BYTES as u64 {
            return Err("it is full".into());
        }
        inner.allocated.insert(first, bytes);
        Ok(first)
    }

    fn free(&self, address: u64) {
        let mut inner = self.lock();
        if inner.queues.iter().any(|queue| !queue.is_empty()) {
            inner.faults.push("memory was given back with work under way".into());
        }
        inner.allocated.remove(&address);
    }

    fn launch(&self, launch: Launch<'_>) -> Result<(), String> {
        assert!(launch.kernel.contains("add"), "{} is not here", launch.kernel);
        let [from, to] = launch.touched else { panic!("{:?}", launch.touched) };
        self.ask(Queue::Computing, Work::Add { from: from.clone(), to: to.clone() });
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.ask(Queue::Computing, Work::WriteThis { address, bytes: bytes.to_vec() });
        Ok(())
    }

    fn fill(&self, address: u64, bytes: u64, value: u8) -> Result<(), String> {
        let bytes = vec![value; bytes as usize];
        self.ask(Queue::Computing, Work::WriteThis { address, bytes });
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), String> {
        let mut inner = self.lock();
        inner.finish(Queue::Computing as usize);
        bytes.copy_from_slice(inner.at(address, bytes.len()));
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        (0..3).for_each(|queue| self.lock().finish(queue));
        Ok(())
    }

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>, String> {
        // SAFETY: the size is not zero.
        let first = NonNull::new(unsafe { alloc_zeroed(layout(bytes)) }).ok_or("no memory")?;
        self.lock().pinned.insert(first.as_ptr() as usize, bytes);
        Ok(first)
    }

    unsafe fn unpin(&self, first: NonNull<u8>, bytes: usize) {
        let mut inner = self.lock();
        let range = first.as_ptr() as usize..first.as_ptr() as usize + bytes;
        let is_used = |work: &Work| match work {
            Work::Write { from: at, .. } | Work::Read { to: at, .. } => range.contains(at),
            _ => false,
        };
        if inner.queues.iter().flatten().any(is_used) {
            inner.faults.push("pinned memory was given back that a copy uses".into());
            return;
        }
        assert_eq!(inner.pinned.remove(&range.start), Some(bytes));
        // SAFETY: from `pin`, with this layout.
        unsafe { dealloc(first.as_ptr(), layout(bytes)) }
    }

    unsafe fn begin_write(
        &self,
        address: u64,
        from: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), String> {
        self.allow_copy()?;
        self.ask(Queue::Uploading, Work::Write { address, from: from.as_ptr() as usize, bytes });
        Ok(())
    }

    unsafe fn begin_read(&self, address: u64, to: NonNull<u8>, bytes: usize) -> Result<(), String> {
        self.allow_copy()?;
        self.ask(Queue::Downloading, Work::Read { address, to: to.as_ptr() as usize, bytes });
        Ok(())
    }

    fn record(&self, queue: Queue) -> Result<Event, String> {
        let number = {
            let mut inner = self.lock();
            inner.passed.push(false);
            let number = inner.passed.len() - 1;
            inner.known.insert(number as u64);
            inner.queues[queue as usize].push_back(Work::Record(number));
            number
        };
        self.lock().dawdle();
        Ok(Event(number as u64))
    }

    fn hold_back(&self, queue: Queue, event: Event) -> Result<(), String> {
        let number = self.lock().number_of(event);
        self.ask(queue, Work::Wait(number));
        Ok(())
    }

    fn is_passed(&self, event: Event) -> Result<bool, String> {
        let mut inner = self.lock();
        let number = inner.number_of(event);
        Ok(inner.passed[number])
    }

    fn wait_for(&self, event: Event) -> Result<(), String> {
        let mut inner = self.lock();
        let number = inner.number_of(event);
        inner.reach(number);
        Ok(())
    }

    fn forget(&self, event: Event) {
        self.lock().known.remove(&event.0);
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 64).unwrap()
}
