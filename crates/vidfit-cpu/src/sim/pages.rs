//! The card's memory: an arena with guards on both sides.

use memmap2::{MmapMut, MmapOptions};

/// A multiple of the page size of every system at hand.
const GUARD_BYTES: usize = 64 << 10;

/// What the slack around the arena is filled with.
const CANARY: u8 = 0xc5;

/// What fresh memory and the destinations of failed copies hold: NaN in every element type.
pub(super) const GARBAGE: u8 = 0xff;

/// Memory that ends right before a guard and begins as close behind another as pages permit. The
/// bytes between the guard and the beginning hold a pattern that is looked at now and then.
pub(crate) struct GuardedPages {
    pages: MmapMut,
    /// Kept apart from `pages`, which would have to be borrowed for each access.
    base: *mut u8,
    /// Where the arena begins, from `base`.
    start: usize,
    bytes: usize,
}

// SAFETY: the pointer is to pages this value owns. Who reads and writes them, and when, is the
// business of the device: operations one at a time, and copies that the order checker has found to
// be apart from them, see `SimDevice`.
unsafe impl Send for GuardedPages {}
// SAFETY: as above.
unsafe impl Sync for GuardedPages {}

impl GuardedPages {
    /// `bytes` of garbage between two guards.
    pub fn new(bytes: u64) -> std::io::Result<GuardedPages> {
        let too_large = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        let inner = bytes.checked_next_multiple_of(GUARD_BYTES).ok_or_else(too_large)?;
        let all = inner.checked_add(2 * GUARD_BYTES).ok_or_else(too_large)?;
        let mut pages = MmapOptions::new().len(all).populate().map_anon()?;
        let start = GUARD_BYTES + inner - bytes;
        pages[..start].fill(CANARY);
        pages[start..start + bytes].fill(GARBAGE);
        pages[start + bytes..].fill(CANARY);
        let base = pages.as_mut_ptr();
        protect(base, all)?;
        Ok(GuardedPages { pages, base, start, bytes })
    }

    pub fn first(&self) -> *mut u8 {
        // SAFETY: the arena lies inside the pages.
        unsafe { self.base.add(self.start) }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Writes `piece` at `offset`.
    ///
    /// # Safety
    /// Nobody else may read or write these bytes meanwhile.
    pub unsafe fn write(&self, offset: u64, piece: &[u8]) {
        let to = self.at(offset, piece.len());
        // SAFETY: inside the arena by `at`; alone by the contract.
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len()) }
    }

    /// Reads `piece` from `offset` on.
    ///
    /// # Safety
    /// Nobody may write these bytes meanwhile.
    pub unsafe fn read(&self, offset: u64, piece: &mut [u8]) {
        let from = self.at(offset, piece.len());
        // SAFETY: inside the arena by `at`; unchanged by the contract.
        unsafe { std::ptr::copy_nonoverlapping(from, piece.as_mut_ptr(), piece.len()) }
    }

    fn at(&self, offset: u64, len: usize) -> *mut u8 {
        let end = offset.checked_add(len as u64);
        assert!(end.is_some_and(|end| end <= self.bytes as u64), "a copy outside the arena");
        // SAFETY: inside the arena by the assertion.
        unsafe { self.first().add(offset as usize) }
    }

    /// Where the pattern around the arena is broken, in bytes from the arena's first, if it is.
    pub fn broken_canary(&self) -> Option<i64> {
        let guards_fault = cfg!(unix);
        let before = if guards_fault { GUARD_BYTES..self.start } else { 0..self.start };
        let behind = if guards_fault { 0..0 } else { self.start + self.bytes..self.pages.len() };
        before.chain(behind).find_map(|at| {
            // SAFETY: inside the pages, and outside the guards where these fault. A volatile read,
            // for what is looked for is a write that nobody should have made.
            let byte = unsafe { self.base.add(at).read_volatile() };
            (byte != CANARY).then_some(at as i64 - self.start as i64)
        })
    }
}

/// Makes the first and the last of `bytes` pages fault.
#[cfg(unix)]
fn protect(base: *mut u8, bytes: usize) -> std::io::Result<()> {
    use rustix::mm::{MprotectFlags, mprotect};
    for at in [0, bytes - GUARD_BYTES] {
        // SAFETY: whole pages of a map that is ours and that nothing refers to yet.
        unsafe { mprotect(base.add(at).cast(), GUARD_BYTES, MprotectFlags::empty())? }
    }
    Ok(())
}

/// Elsewhere the pattern has to do.
#[cfg(not(unix))]
fn protect(_base: *mut u8, _bytes: usize) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arena_ends_at_the_guard_and_is_aligned() {
        for bytes in [256, 4096, 65536, 65536 + 256] {
            let pages = GuardedPages::new(bytes).unwrap();
            let end = pages.first().addr() + bytes as usize;
            assert_eq!(end, pages.base.addr() + pages.pages.len() - GUARD_BYTES);
            assert_eq!(pages.first().addr() % 256, 0);
            assert_eq!(pages.broken_canary(), None);
        }
        assert!(GuardedPages::new(u64::MAX - 255).is_err());
    }

    #[test]
    fn a_byte_written_before_the_arena_is_found() {
        let pages = GuardedPages::new(256).unwrap();
        // SAFETY: the slack before so small an arena is a part of its pages.
        unsafe { pages.first().sub(3).write(0) };
        assert_eq!(pages.broken_canary(), Some(-3));
    }
}
