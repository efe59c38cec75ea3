//! The card's own books: what it holds, and what it has counted.

use super::config::Faults;
use std::collections::BTreeMap;
use vidfit_tensor::Region;

/// The card's own books.
pub(super) struct Card {
    pub used_by_others: u64,
    pub others: Option<Others>,
    pub attempts: u64,
    pub faults: Faults,
    /// Bytes of each region that is held now, with the scratch of the job's.
    pub held: BTreeMap<Region, u64>,
    pub last_warm: Region,
    pub counters: Counters,
}

impl Card {
    /// Takes note of what is held now.
    pub fn count_held(&mut self) {
        let held_bytes = self.held.values().sum();
        self.counters.held_bytes = held_bytes;
        self.counters.peak_held_bytes = held_bytes.max(self.counters.peak_held_bytes);
    }
}

/// Says what others hold when a reservation is tried.
pub(super) type Others = Box<dyn FnMut(u64) -> u64 + Send>;

/// What a simulated card has counted, in bytes unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Copied to the card by copies that were begun, failed ones included.
    pub uploaded_bytes: u64,
    /// Copied from the card by copies that were begun, failed ones included.
    pub downloaded_bytes: u64,
    /// How many uploads were begun.
    pub uploads: u64,
    /// How many downloads were begun.
    pub downloads: u64,
    /// Brought by [`vidfit_tensor::Device::upload`].
    pub directly_uploaded_bytes: u64,
    /// Fetched by [`vidfit_tensor::Device::download`].
    pub directly_downloaded_bytes: u64,
    /// The end of the highest operand in the job's arena since that was reserved.
    pub highest_byte: u64,
    /// Reserved now, scratch and warm regions included.
    pub held_bytes: u64,
    /// The most that was reserved at any time, scratch and warm regions included.
    pub peak_held_bytes: u64,
    /// What each reservation of an arena that was granted asked for, without scratch.
    pub reservations: Vec<u64>,
    /// What each warm region that was granted asked for.
    pub warm_reservations: Vec<u64>,
}
