//! Kernels of which a multiprocessor is to have two blocks at a time, so that one computes while the other
//! waits for what it loads.
//!
//! Their registers and their shared memory are measured out for that (`kernels/`). But a multiprocessor has
//! one memory for both shared memory and the cache, and how it is divided is up to the driver unless it is
//! asked.

use super::library::attribute;
use super::sys;
use super::words::check;
use std::ffi::c_int;

/// How a kernel's blocks share a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    threads: u32,
    shared_bytes: u32,
    /// Blocks that the card has room for, of the two that there are to be.
    pub wanted: u32,
    /// Blocks that there are by the driver's own account.
    pub held: u32,
}

/// Blocks that there are to be.
const BLOCKS: u32 = 2;

/// Shared memory of a card.
pub(super) struct Room {
    /// The most that a block may have.
    pub of_a_block: u32,
    of_a_multiprocessor: u32,
    /// What a block costs besides its own.
    reserved: u32,
}

impl Room {
    pub fn of(device: sys::CUdevice) -> Result<Room, String> {
        Ok(Room {
            of_a_block: attribute(device, sys::DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            of_a_multiprocessor: attribute(
                device,
                sys::DEVICE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )?,
            reserved: attribute(device, sys::DEVICE_RESERVED_SHARED_MEMORY_PER_BLOCK)?,
        })
    }

    /// Of the blocks that there are to be, those that find room, each with so much; and the share of the
    /// multiprocessor's memory that they take, in percent.
    fn for_blocks_of(&self, shared_bytes: u32) -> (u32, u32) {
        let each = (shared_bytes + self.reserved).max(1);
        let blocks = (self.of_a_multiprocessor / each).min(BLOCKS);
        (blocks, (100 * blocks * each).div_ceil(self.of_a_multiprocessor.max(1)).min(100))
    }
}

impl Packing {
    /// Of a kernel, if it is made for it, with what it is launched with (`ops/linear.rs`,
    /// `ops/attention.rs`; [`Packing::launch`] is held to that).
    pub(super) fn of(kernel: &str, architecture: u32, threads: u32) -> Option<Packing> {
        let is_new = architecture >= 800;
        let shared_bytes = match kernel {
            "linear_f16" | "linear_bf16" if is_new => 48 << 10,
            "linear_f16_small" | "linear_bf16_small" if is_new => 48 << 10,
            "linear_f16" => 32 << 10,
            "linear_f16_small" => 16 << 10,
            "linear_f32" => 2 * 2 * 16 * (128 + 4) * 4,
            "attention_f16" | "attention_bf16" => 32 << 10,
            "attention_f16_biased" | "attention_bf16_biased" => (32 << 10) + 2 * 192 * 4,
            _ => return None,
        };
        Some(Packing { threads, shared_bytes, wanted: 0, held: 0 })
    }

    /// Threads and shared memory of a block, as it was measured out.
    pub(super) fn launch(&self) -> (u32, u32) {
        (self.threads, self.shared_bytes)
    }

    /// Asks for the shared memory that the blocks take together, and what comes of it. Where there is room
    /// for one alone, the driver may divide the memory as it likes.
    pub(super) fn ask_for(self, function: sys::CUfunction, room: &Room) -> Result<Packing, String> {
        let (wanted, percent) = room.for_blocks_of(self.shared_bytes);
        if wanted == BLOCKS {
            let carveout = sys::FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT;
            // SAFETY: the function is there.
            let set = unsafe { sys::cuFuncSetAttribute(function, carveout, percent as c_int) };
            check("asking for shared memory", set)?;
        }
        let mut held: c_int = 0;
        let (threads, shared_bytes) = (self.threads as c_int, self.shared_bytes as usize);
        // SAFETY: writes one number; the function is there.
        let asked = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut held,
                function,
                threads,
                shared_bytes,
            )
        };
        check("asking how many of its blocks find room", asked)?;
        Ok(Packing { wanted, held: held.unsigned_abs(), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_asked_for_than_two_blocks_take() {
        // sm_86, sm_80 and sm_75.
        let room = |kilobytes: u32, reserved| Room {
            of_a_block: 0,
            of_a_multiprocessor: kilobytes << 10,
            reserved,
        };
        assert_eq!(room(100, 1024).for_blocks_of(48 << 10), (2, 98));
        assert_eq!(room(164, 1024).for_blocks_of(48 << 10), (2, 60));
        assert_eq!(room(64, 0).for_blocks_of(32 << 10), (2, 100));
        // What has biases, and products in f32, have room for one block there.
        assert_eq!(room(64, 0).for_blocks_of(34_304), (1, 53));
        assert_eq!(room(0, 0).for_blocks_of(1).0, 0);
    }
}
