//! A simulated card: the GPU of the tests.
//!
//! - `config`: what card it is, and how it behaves. `books`: what it holds and counts.
//! - `pages`: its memory, between guard pages.
//! - `copies`: the threads of its two copying queues.
//! - `order`, `segments`: the checker, which finds every use of memory that no fence orders.
//! - `operations`: [`SimDevice`] as a [`vidfit_tensor::Device`].

mod books;
mod config;
mod copies;
mod operations;
mod order;
mod pages;
mod segments;

pub use books::Counters;
pub use config::{Direction, Faults, SimConfig};
pub(crate) use pages::GuardedPages;

use crate::CpuDevice;
use crate::memory::Reservation;
use books::Card;
use copies::{Copies, Failure, Host, Job};
use order::Order;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vidfit_tensor::{Error, Fence, Place, Profile, Region, Tensor};

/// What tensors are aligned to in the arena, in bytes, as on CUDA devices.
const ALIGNMENT: u64 = 256;

/// A card that is not there. It computes what [`CpuDevice`] computes, to the bit, but as a card
/// does it:
///
/// - It has memory of its own with a hard limit, and cannot read the host's. A reservation that is
///   larger than what is free is refused.
/// - Copies are made by two threads, as late as they like, and fail if they are told to.
/// - Each operation and copy is checked when it is asked for: if it uses bytes that an earlier one
///   of another queue may still be using, one of the two writing, and no fence orders them, that is
///   a violation, whether or not it has done harm. So is reading what was never written, and a copy
///   that nobody waits for. [`vidfit_tensor::Device::wait`], `finish` and `download` then fail, and
///   [`SimDevice::violations`] tells of it.
/// - What is written before or behind the arena ends the process, or is a violation.
///
/// After a violation the device lets each copy end before it does anything else. So no byte is ever
/// read and written at once: what the checker has not found apart in time is kept apart.
pub struct SimDevice {
    profile: Profile,
    config: SimConfig,
    inner: CpuDevice,
    copies: Copies,
    desk: Mutex<Desk>,
    card: Mutex<Card>,
}

/// Held by whoever asks for something, from its check to the end of its computing, so that
/// the order in which things are checked is that in which they are done.
struct Desk {
    order: Order,
    /// Of each region.
    pages: BTreeMap<Region, Arc<GuardedPages>>,
    /// Copies that failed, until their fence is waited for.
    failed: Vec<Failure>,
}

impl SimDevice {
    /// A card like this.
    ///
    /// # Errors
    /// [`Error::Device`] if its threads are too many or cannot be started.
    ///
    /// # Panics
    /// If copies would be made in pieces that are not a multiple of 64 bytes, or at less than 1 byte a
    /// second.
    pub fn new(config: SimConfig) -> Result<SimDevice, Error> {
        let piece_bytes = config.piece_bytes;
        assert!(piece_bytes > 0 && piece_bytes.is_multiple_of(64), "pieces of {piece_bytes} bytes");
        for speed in [config.upload_bytes_per_second, config.download_bytes_per_second] {
            assert!(speed.is_none_or(|speed| speed >= 1.0), "{speed:?} bytes a second");
        }
        let copies = Copies::new(&config).map_err(|error| Error::Device {
            device: config.name.clone(),
            what: format!("cannot start its threads: {error}"),
        })?;
        Ok(SimDevice {
            profile: Self::profile_of(&config),
            inner: CpuDevice::new(config.threads)?,
            copies,
            desk: Mutex::new(Desk {
                order: Order::new(config.checks_garbage),
                pages: BTreeMap::new(),
                failed: Vec::new(),
            }),
            card: Mutex::new(Card {
                used_by_others: 0,
                others: None,
                attempts: 0,
                faults: config.faults.clone(),
                held: BTreeMap::new(),
                last_warm: Region::ARENA,
                counters: Counters::default(),
            }),
            config,
        })
    }

    /// The profile of what [`SimDevice::new`] makes of `config`, without making it.
    pub fn profile_of(config: &SimConfig) -> Profile {
        Profile {
            name: config.name.clone(),
            alignment: ALIGNMENT,
            scratch_bytes: CpuDevice::profile_of(config.threads).scratch_bytes,
            reads_host_memory: false,
        }
    }

    /// All memory of the card, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.config.memory_bytes
    }

    /// What the card's driver holds outside the arena, in bytes.
    pub fn overhead_bytes(&self) -> u64 {
        self.config.overhead_bytes
    }

    /// What is free now, in bytes: neither overhead, nor used by others, nor held by this device.
    pub fn free_bytes(&self) -> u64 {
        let card = self.card();
        self.free_besides(&card).saturating_sub(card.counters.held_bytes)
    }

    /// What this device has reserved now, scratch and warm regions included, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.card().counters.held_bytes
    }

    /// From now on others use so much of the card, in bytes. What is reserved stays so.
    pub fn set_used_by_others(&self, bytes: u64) {
        self.card().used_by_others = bytes;
    }

    /// Lets `others` say, whenever a reservation is tried, what others use of the card by then, in
    /// bytes. It is given the number of the attempt, 1 for the next.
    pub fn use_by_others_at_reserve(&self, others: impl FnMut(u64) -> u64 + Send + 'static) {
        let mut card = self.card();
        card.others = Some(Box::new(others));
        card.attempts = 0;
    }

    /// Which of the copies begun from now on fail.
    pub fn set_faults(&self, faults: Faults) {
        self.card().faults = faults;
    }

    /// What the card has counted.
    pub fn counters(&self) -> Counters {
        self.card().counters.clone()
    }

    /// See [`Counters::uploaded_bytes`].
    pub fn uploaded_bytes(&self) -> u64 {
        self.card().counters.uploaded_bytes
    }

    /// See [`Counters::downloaded_bytes`].
    pub fn downloaded_bytes(&self) -> u64 {
        self.card().counters.downloaded_bytes
    }

    /// What the checker has found, in words, in all reservations so far; the first hundred of it.
    pub fn violations(&self) -> Vec<String> {
        self.desk().order.violations().to_vec()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn card(&self) -> MutexGuard<'_, Card> {
        self.card.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_besides(&self, card: &Card) -> u64 {
        let taken = self.config.overhead_bytes.saturating_add(card.used_by_others);
        self.config.memory_bytes.saturating_sub(taken)
    }

    fn error(&self, what: String) -> Error {
        Error::Device { device: self.profile.name.clone(), what }
    }

    /// Checks an operation, and holds the desk for it.
    fn enter<'a>(
        &self,
        what: &'static str,
        reads: impl IntoIterator<Item = &'a Tensor>,
        writes: impl IntoIterator<Item = &'a Tensor>,
    ) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk();
        let mut highest = 0;
        let mut range_of = |tensor| {
            let range = range_of(what, tensor);
            if Region::of(range.start).0 == Region::ARENA {
                highest = range.end.max(highest);
            }
            range
        };
        let reads: Vec<_> = reads.into_iter().map(&mut range_of).collect();
        let writes: Vec<_> = writes.into_iter().map(&mut range_of).collect();
        desk.order.compute(what, reads, writes);
        self.keep_apart(&desk);
        self.touch(highest);
        if !self.config.compute_delay.is_zero() {
            std::thread::sleep(self.config.compute_delay);
        }
        desk
    }

    /// After a violation, lets all copies end before the next thing is done.
    fn keep_apart(&self, desk: &Desk) {
        if desk.order.is_violated() {
            self.copies.wait(desk.order.begun());
        }
    }

    fn touch(&self, end: u64) {
        let highest = &mut self.card().counters.highest_byte;
        *highest = end.max(*highest);
    }

    /// Checks a copy and puts it into its queue.
    fn begin(&self, direction: Direction, tensor: &Tensor, host: Host, after: &[Fence]) -> Fence {
        let mut desk = self.desk();
        let range = range_of(direction.name(), tensor);
        let pages = desk.pages.get(&Region::of(range.start).0).cloned();
        let pages = pages.expect("a copy to what is not reserved");
        let buffer = match &host {
            Host::Source(source) => source.buffer().map(|buffer| buffer.number()),
            Host::Buffer(buffer) => Some(buffer.number()),
        };
        let begun = desk.order.begin_copy(direction, range.clone(), buffer, after);
        let is_doomed = self.count(direction, begun.number, &range);
        if desk.order.is_violated() {
            // All copies but this one.
            let mut others = desk.order.begun();
            others[direction as usize] -= 1;
            self.copies.wait(others);
        }
        let (number, needs) = (begun.number, begun.needs);
        self.copies.begin(direction, Job { number, needs, pages, range, host, is_doomed });
        begun.fence
    }

    /// Counts a copy, and says whether it is to fail.
    fn count(&self, direction: Direction, number: u64, range: &Range<u64>) -> bool {
        if Region::of(range.start).0 == Region::ARENA {
            self.touch(range.end);
        }
        let mut card = self.card();
        let counters = &mut card.counters;
        let (copies, bytes) = match direction {
            Direction::Upload => (&mut counters.uploads, &mut counters.uploaded_bytes),
            Direction::Download => (&mut counters.downloads, &mut counters.downloaded_bytes),
        };
        *copies += 1;
        *bytes += range.end - range.start;
        let faults = card.faults.clone();
        drop(card);
        faults.strike(direction, number, self.config.seed)
    }

    /// Takes the memory for a region, if the card has it.
    fn take(&self, bytes: u64, is_warm: bool) -> Result<Region, Error> {
        self.ask_others();
        let scratch_bytes = if is_warm { 0 } else { self.profile.scratch_bytes };
        let mut card = self.card();
        let free_bytes = self.free_besides(&card).saturating_sub(card.counters.held_bytes);
        let wanted_bytes = bytes.saturating_add(scratch_bytes);
        if wanted_bytes > free_bytes {
            return Err(self.error(format!(
                "out of memory: {wanted_bytes} bytes asked for ({bytes} for tensors, \
                 {scratch_bytes} for scratch), {free_bytes} free of {} ({} used by others, {} by \
                 the card itself)",
                self.config.memory_bytes, card.used_by_others, self.config.overhead_bytes
            )));
        }
        if is_warm {
            let next = card.last_warm.next();
            card.last_warm = next.ok_or_else(|| self.error("too many warm regions".into()))?;
            card.counters.warm_reservations.push(bytes);
        } else {
            card.counters.highest_byte = 0;
            card.counters.reservations.push(bytes);
        }
        let region = if is_warm { card.last_warm } else { Region::ARENA };
        card.held.insert(region, wanted_bytes);
        card.count_held();
        Ok(region)
    }

    /// Gives the memory of a region back.
    fn give_back(&self, region: Region) {
        let mut card = self.card();
        card.held.remove(&region);
        card.count_held();
    }

    /// Asks what others use now. The answer comes from outside, so nothing is locked meanwhile.
    fn ask_others(&self) {
        let mut card = self.card();
        card.attempts += 1;
        let attempt = card.attempts;
        let Some(mut others) = card.others.take() else { return };
        drop(card);
        let used_by_others = others(attempt);
        let mut card = self.card();
        card.used_by_others = used_by_others;
        card.others.get_or_insert(others);
    }

    /// Makes a region on the host.
    fn map(&self, region: Region, bytes: u64) -> Result<(), Error> {
        let failed = |error| {
            self.error(format!("the host cannot simulate {bytes} bytes of memory: {error}"))
        };
        let pages = Arc::new(GuardedPages::new(bytes).map_err(failed)?);
        let is_warm = region != Region::ARENA;
        let threads = if is_warm { 0 } else { self.inner.threads() };
        let reservation = Reservation::guarded(pages.clone(), threads).map_err(failed)?;
        let mut desk = self.desk();
        if is_warm {
            self.inner.hold_warm(region, reservation);
            desk.order.begin(region, bytes);
        } else {
            self.inner.hold(reservation);
            desk.order.reserve(bytes);
        }
        desk.pages.insert(region, pages);
        Ok(())
    }

    /// Waits for all copies, and looks whether anything was written around a region.
    fn settle(&self) -> MutexGuard<'_, Desk> {
        // Not with the desk locked: a copy may end the life of a host buffer, which takes the lock
        // of the arena's books, and under that lock the arena asks the desk to poison.
        let mut desk = loop {
            let begun = self.desk().order.begun();
            self.copies.wait(begun);
            let desk = self.desk();
            if desk.order.begun() == begun {
                break desk;
            }
        };
        self.heed_failures(&mut desk);
        let broken = desk.pages.iter().find_map(|(&region, pages)| {
            let what = if region == Region::ARENA { "the arena" } else { "a warm region" };
            pages.broken_canary().map(|at| (what, at))
        });
        if let Some((what, at)) = broken {
            desk.order.report(format!("byte {at} of {what} was written, which is not in it"));
        }
        desk
    }

    /// What failed copies should have brought is garbage.
    fn heed_failures(&self, desk: &mut Desk) {
        for failure in self.copies.take_failures() {
            if failure.direction == Direction::Upload {
                desk.order.upload_failed(failure.number, failure.range.clone());
            }
            desk.failed.push(failure);
        }
    }

    fn verdict(&self, desk: &Desk) -> Result<(), Error> {
        desk.order.verdict().map_or(Ok(()), |what| Err(self.error(what)))
    }
}

/// The addresses that `what` uses as `tensor`.
fn range_of(what: &str, tensor: &Tensor) -> Range<u64> {
    match tensor.place() {
        Place::Arena(_) => tensor.device_bytes().unwrap_or(0..0),
        Place::Host(_) => panic!("{what}: {tensor:?} lies in host memory, which no card can read"),
        Place::Nowhere => panic!("{what}: {tensor:?} has no elements in a real run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_tensor::Device;

    /// The arena of these tests is this large, and ends in the midst of a page.
    const BYTES: u64 = 8192 + 256;

    fn card() -> SimDevice {
        let sim = SimDevice::new(SimConfig { threads: 1, ..SimConfig::new(8 << 20) }).unwrap();
        sim.reserve(BYTES).unwrap();
        sim
    }

    /// Writes where no tensor can be.
    fn write_at(sim: &SimDevice, byte: i64) {
        let first = sim.desk().pages[&Region::ARENA].first();
        // SAFETY: none, outside the arena's pages: that must end this process.
        unsafe { first.offset(byte as isize).write_volatile(0) }
    }

    #[test]
    fn a_write_right_before_the_arena_is_found() {
        let sim = card();
        write_at(&sim, 0);
        write_at(&sim, BYTES as i64 - 1);
        sim.finish().unwrap();
        write_at(&sim, -1);
        let error = sim.finish().unwrap_err().to_string();
        assert_eq!(error, "sim: byte -1 of the arena was written, which is not in it");
        sim.reserve(BYTES).unwrap();
        sim.finish().expect("another arena");
        write_at(&sim, -2);
        sim.release();
        let found = sim.violations();
        assert!(found.last().unwrap().starts_with("byte -2 of the arena"), "{found:?}");
    }

    #[test]
    fn a_write_right_before_a_warm_region_is_found() {
        let sim = card();
        let region = sim.reserve_warm(BYTES).unwrap();
        let first = sim.desk().pages[&region].first();
        // SAFETY: the slack before the region is a part of its pages.
        unsafe { first.sub(2).write_volatile(0) };
        let error = sim.finish().unwrap_err().to_string();
        assert_eq!(error, "sim: byte -2 of a warm region was written, which is not in it");
        sim.release_warm(region);
    }

    /// Where a child of [`what_lies_beyond_the_guards_faults`] learns where to write.
    #[cfg(unix)]
    const BYTE_OF_CHILD: &str = "VIDFIT_TEST_BYTE";

    #[test]
    #[cfg(unix)]
    fn what_lies_beyond_the_guards_faults() {
        use std::os::unix::process::ExitStatusExt;
        let end_of_child = |byte: i64| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sim::tests::writes_where_it_is_told", "--ignored"])
                .env(BYTE_OF_CHILD, byte.to_string())
                .output()
                .unwrap()
        };
        for inside in [0, BYTES as i64 - 1] {
            let output = end_of_child(inside);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{inside}: {text}");
        }
        // SIGBUS or SIGSEGV: the first byte behind the peak, and one before the page of the first.
        for outside in [BYTES as i64, -(64 << 10)] {
            let signal = end_of_child(outside).status.signal();
            assert!(matches!(signal, Some(7 | 10 | 11)), "byte {outside}: {signal:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    #[ignore = "the child of another test"]
    fn writes_where_it_is_told() {
        let Ok(byte) = std::env::var(BYTE_OF_CHILD) else { return };
        write_at(&card(), byte.parse().unwrap());
    }
}
