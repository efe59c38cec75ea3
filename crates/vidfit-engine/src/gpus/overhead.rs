//! What a card's driver, context and kernels take of its memory: measured whenever the card is opened, and
//! kept for plans that are made without opening it.
//!
//! Where the driver does not tell who holds what, a measurement has in it what other programs took or gave
//! back meanwhile. So the last few are kept, and the one in their middle counts.

use crate::small_file::read_small;
use crate::whole_file::write_whole;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// A card under a driver, for this version of the program. Its overhead is that of no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardUnderDriver {
    /// The driver's name of the card.
    pub card: String,
    /// All of the card's memory.
    pub memory_bytes: u64,
    /// The CUDA that the driver is for.
    pub cuda: (u32, u32),
    /// The program's version.
    pub version: String,
}

#[derive(Serialize, Deserialize)]
struct Measured {
    of: CardUnderDriver,
    /// The last few, the newest last.
    overheads: Vec<u64>,
}

/// How many measurements are kept.
const KEPT: usize = 5;

impl Measured {
    /// The one in the middle; the less of two.
    fn overhead_bytes(&self) -> Option<u64> {
        let mut sorted = self.overheads.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

/// The file, in the folder of what outlives a run.
const FILE: &str = "cards.json";

/// What was measured, in bytes. What cannot be read was not measured.
pub fn remembered(dir: &Path, of: &CardUnderDriver) -> Option<u64> {
    all(dir).into_iter().find(|measured| measured.of == *of)?.overhead_bytes()
}

/// Keeps what was measured, in the place of what was kept for the same card under another driver; and says
/// what counts from now on. Plans do without where that cannot be written, so nobody is told.
pub fn remember(dir: &Path, of: CardUnderDriver, overhead_bytes: u64) -> u64 {
    let mut measured = all(dir);
    let known = measured.iter().find(|measured| measured.of == of);
    let mut overheads = known.map_or_else(Vec::new, |known| known.overheads.clone());
    overheads.push(overhead_bytes);
    overheads.drain(..overheads.len().saturating_sub(KEPT));
    measured.retain(|measured| {
        (&measured.of.card, measured.of.memory_bytes) != (&of.card, of.memory_bytes)
    });
    let now = Measured { of, overheads };
    let counts = now.overhead_bytes().unwrap_or(overhead_bytes);
    measured.push(now);
    let write = || {
        fs::create_dir_all(dir)?;
        write_whole(&dir.join(FILE), |file| Ok(serde_json::to_writer_pretty(file, &measured)?))
    };
    let _ = write();
    counts
}

fn all(dir: &Path) -> Vec<Measured> {
    let text = read_small(&dir.join(FILE));
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_last_measurements_of_the_same_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("not/yet/there");
        let of = |card: &str, minor| CardUnderDriver {
            card: card.into(),
            memory_bytes: 8 << 30,
            cuda: (12, minor),
            version: "1".into(),
        };
        assert_eq!(remembered(&dir, &of("A", 4)), None);
        assert_eq!(remember(&dir, of("A", 4), 3), 3);
        remember(&dir, of("B", 4), 2);
        // Another program took much while it was measured, or gave much back.
        assert_eq!([900, 3, 3, 0].map(|bytes| remember(&dir, of("A", 4), bytes)), [3; 4]);
        assert_eq!(remembered(&dir, &of("A", 4)), Some(3));
        // What is so from now on is soon what counts.
        assert_eq!([7, 7, 7].map(|bytes| remember(&dir, of("A", 4), bytes)), [3, 3, 7]);
        assert_eq!(remembered(&dir, &of("A", 4)), Some(7));
        assert_eq!(remembered(&dir, &of("B", 4)), Some(2));
        // Another driver takes something else.
        assert_eq!(remembered(&dir, &of("A", 5)), None);
        fs::write(dir.join(FILE), "[{").unwrap();
        assert_eq!(remembered(&dir, &of("A", 4)), None);
        remember(&dir, of("A", 4), 4);
        assert_eq!(remembered(&dir, &of("A", 4)), Some(4));
    }
}
