//! What card is simulated, and how it behaves.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// A card to simulate, and how it behaves.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The name in messages and in the profile.
    pub name: String,
    /// All memory of the card, in bytes.
    pub memory_bytes: u64,
    /// What the driver and the kernels hold outside the arena, in bytes.
    pub overhead_bytes: u64,
    /// Threads that compute; 0 means one for each core this process may use.
    pub threads: usize,
    /// What each copy's delay and fate are drawn from.
    pub seed: u64,
    /// How long a copy is held up before it begins and again before it is reported done: each time
    /// a random part of this range.
    pub copy_delay: RangeInclusive<Duration>,
    /// How long each operation is held up.
    pub compute_delay: Duration,
    /// An upload takes at least its bytes divided by this.
    pub upload_bytes_per_second: Option<f64>,
    /// As for uploads.
    pub download_bytes_per_second: Option<f64>,
    /// Copies are made in pieces of this many bytes, a multiple of 64.
    pub piece_bytes: usize,
    /// Which copies fail.
    pub faults: Faults,
    /// Whether reading memory that nothing has written since it was reserved, poisoned, or left by
    /// a failed copy is an error.
    pub checks_garbage: bool,
}

impl SimConfig {
    /// A card called `sim` with this much memory, of which nothing is lost: a thread for each core,
    /// no modelled speed, no failures, and copies held up for up to a tenth of a millisecond.
    pub fn new(memory_bytes: u64) -> SimConfig {
        SimConfig {
            name: "sim".into(),
            memory_bytes,
            overhead_bytes: 0,
            threads: 0,
            seed: 0,
            copy_delay: Duration::ZERO..=Duration::from_micros(100),
            compute_delay: Duration::ZERO,
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
            piece_bytes: 1 << 20,
            faults: Faults::None,
            checks_garbage: true,
        }
    }
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the host to the device.
    Upload,
    /// From the device to the host.
    Download,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Direction::Upload => "upload",
            Direction::Download => "download",
        }
    }
}

/// Which copies fail. A copy that fails leaves garbage at its destination.
#[derive(Clone, Default)]
pub enum Faults {
    /// None does.
    #[default]
    None,
    /// Each upload with this probability, drawn from the seed and the upload's number.
    Uploads(f64),
    /// Every upload from this number on. The first upload of a device is number 1.
    UploadsFrom(u64),
    /// Those that this picks by direction and number. Each direction counts from 1.
    Chosen(Arc<dyn Fn(Direction, u64) -> bool + Send + Sync>),
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Faults::None => write!(f, "None"),
            Faults::Uploads(probability) => write!(f, "Uploads({probability})"),
            Faults::UploadsFrom(first) => write!(f, "UploadsFrom({first})"),
            Faults::Chosen(_) => write!(f, "Chosen(..)"),
        }
    }
}

impl Faults {
    /// Whether copy `number` in this direction fails.
    pub(super) fn strike(&self, direction: Direction, number: u64, seed: u64) -> bool {
        match self {
            Faults::None => false,
            Faults::Uploads(probability) => {
                direction == Direction::Upload && Draws::new(seed, !number).unit() < *probability
            }
            Faults::UploadsFrom(first) => direction == Direction::Upload && number >= *first,
            Faults::Chosen(choose) => choose(direction, number),
        }
    }
}

/// Random numbers that depend on a seed and on what they are for, not on when they are drawn:
/// splitmix64 (Steele et al. 2014).
pub(super) struct Draws(u64);

impl Draws {
    pub fn new(seed: u64, purpose: u64) -> Draws {
        let mut draws = Draws(seed);
        Draws(draws.next() ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 to 1, the latter excluded.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let spread = range.end().saturating_sub(*range.start());
        *range.start() + spread.mul_f64(self.unit())
    }
}
