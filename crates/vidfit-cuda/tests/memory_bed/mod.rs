//! What a card's memory is taken for, on a card that others use, too. Tests of other crates use this file, too.
//!
//! Where NVML tells what others hold, that is left out, and every reading is exact. Elsewhere others' changes
//! look like one's own. Then what is to be shown is tried again, with the card opened anew: what vidfit or
//! the driver takes beside the arena is taken each time, and what others do is soon over.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vidfit_cuda::{Cuda, CudaDevice, Driver};

/// How often a check may find that others were at work.
pub const ATTEMPTS: usize = 8;

/// Says how often instead, where every attempt takes long and none will do.
pub const FEWER_ATTEMPTS: &str = "VIDFIT_TEST_ATTEMPTS";

fn attempts() -> usize {
    let fewer = std::env::var(FEWER_ATTEMPTS).ok().and_then(|text| text.parse().ok());
    fewer.unwrap_or(ATTEMPTS)
}

/// The driver gives memory in pages of 2 MiB.
pub const PAGE_BYTES: u64 = 2 << 20;

/// Bytes of the card that are taken: by this process, where that is told; else by anybody.
pub fn taken(card: &Cuda) -> u64 {
    let by_all = || card.card().memory_bytes.saturating_sub(card.free_bytes());
    card.taken_bytes().unwrap_or_else(by_all)
}

/// That as much is taken as before.
pub fn still(card: &Cuda, before: u64, when: &str) -> Result<(), String> {
    match taken(card) {
        now if now == before => Ok(()),
        now => Err(format!("memory moves beside the arena, {when}: {before} to {now} are taken")),
    }
}

/// That a reservation has taken so much.
pub fn took(before: u64, now: u64, bytes: u64) -> Result<(), String> {
    let taken = i128::from(now) - i128::from(before);
    if taken.abs_diff(i128::from(bytes)) <= u128::from(PAGE_BYTES) {
        return Ok(());
    }
    Err(format!("a reservation of {bytes} bytes takes {taken}"))
}

/// Holds the card to what `check` says, on a quiet one at once.
pub fn hold<T>(
    card: &Card,
    mut check: impl FnMut(&Arc<CudaDevice<Cuda>>) -> Result<T, String>,
) -> T {
    let mut found = Vec::new();
    for _ in 0..attempts() {
        match check(&card.device()) {
            Ok(result) => return result,
            Err(what) => found.push(what),
        }
        card.open_anew();
    }
    panic!("this never holds: {found:#?}");
}

/// A card that can be opened anew, as it was at first.
pub struct Card(RefCell<Option<Arc<CudaDevice<Cuda>>>>);

impl Card {
    /// An open one.
    pub fn new(card: Cuda) -> Card {
        Card(RefCell::new(Some(Arc::new(CudaDevice::new(card).unwrap()))))
    }

    /// As it is now.
    pub fn device(&self) -> Arc<CudaDevice<Cuda>> {
        self.0.borrow().clone().expect("it is open")
    }

    fn open_anew(&self) {
        let mut device = self.0.borrow_mut();
        // First it is let go.
        *device = None;
        *device = Some(Arc::new(CudaDevice::new(Cuda::open(0).unwrap()).unwrap()));
    }
}

/// The emulation's driver under the name of NVML, too, in a folder of its own.
#[cfg(unix)]
pub fn nvml(driver: &Path) -> PathBuf {
    let folder = driver.parent().unwrap().with_file_name("nvml");
    std::fs::create_dir_all(&folder).unwrap();
    let link = folder.join("libnvidia-ml.so.1");
    // Another test may have made it just now.
    let _ = std::os::unix::fs::symlink(driver, &link);
    assert!(link.exists(), "{}", link.display());
    folder
}
