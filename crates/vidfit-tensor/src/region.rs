//! The reservations of a device, told apart.

/// One reservation of a device's memory: the job's arena, or a warm one, which holds weights that
/// stay beyond a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(u32);

/// Bits of an address that are an offset: 1 TiB, more than any device has.
const OFFSET_BITS: u32 = 40;

impl Region {
    /// The job's arena.
    pub const ARENA: Region = Region(0);

    /// The most bytes that a region can have.
    pub const MOST_BYTES: u64 = 1 << OFFSET_BITS;

    /// The region after this one. Numbers are not used twice, so that what outlives its region is
    /// found out. `None` when all are used up, after 16 million of them.
    pub fn next(self) -> Option<Region> {
        let next = self.0 + 1;
        // The end of the last one is an address as well.
        (next < (1 << (u64::BITS - OFFSET_BITS)) - 1).then_some(Region(next))
    }

    /// A number for the byte at `offset` that tells it from those of all other regions.
    pub fn address(self, offset: u64) -> u64 {
        (u64::from(self.0) << OFFSET_BITS) + offset
    }

    /// The region of an address, and the offset in it.
    pub fn of(address: u64) -> (Region, u64) {
        (Region((address >> OFFSET_BITS) as u32), address & (Region::MOST_BYTES - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_regions_apart() {
        assert_eq!(Region::ARENA.address(77), 77);
        let third = Region::ARENA.next().and_then(Region::next).unwrap();
        assert_eq!(Region::of(third.address(77)), (third, 77));
        assert_eq!(Region(0xff_fffd).next(), Some(Region(0xff_fffe)));
        assert_eq!(Region(0xff_fffe).next(), None);
        assert_eq!(Region(0xff_fffe).address(Region::MOST_BYTES), u64::MAX << OFFSET_BITS);
    }
}
