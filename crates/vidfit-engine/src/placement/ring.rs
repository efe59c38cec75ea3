//! The ring of slots that streamed weights come through.

use super::{Packed, Streaming, alloc_bytes};
use std::sync::Arc;
use vidfit_tensor::{Context, Error, Fence, Tensor};

/// Brings blocks in the order of their use, each into the next slot as soon as whoever used that
/// slot before is done.
///
/// A block is in use from the call that asks for it to the call that asks for the next.
pub(super) struct Ring<'a> {
    cx: Context<'a>,
    /// The blocks of one pass; some bring nothing.
    blocks: Vec<(String, Arc<Packed>)>,
    /// Of `blocks`, those that bring something.
    streamed: Vec<usize>,
    slots: Vec<Slot>,
    /// Blocks that all passes bring.
    brought_in_all: usize,
    /// Uses of blocks so far.
    uses: usize,
    /// Copies begun so far.
    begun: usize,
    /// Copies whose blocks have been asked for.
    taken: usize,
}

struct Slot {
    memory: Tensor,
    /// Passed when the slot may be filled anew.
    free: Fence,
    /// Passed when it is full.
    full: Option<Fence>,
    in_use: bool,
}

impl Slot {
    /// The part of the slot that these weights take.
    fn room_for(&self, packed: &Packed) -> Tensor {
        let dtype = self.memory.dtype();
        self.memory.recast(0, dtype, [(packed.bytes() / dtype.bytes()) as usize])
    }
}

impl<'a> Ring<'a> {
    /// A ring for so many passes over `blocks`. Begins to fill its slots.
    pub fn new(
        cx: Context<'a>,
        blocks: Vec<(String, Packed)>,
        passes: usize,
        streaming: Streaming,
    ) -> Result<Ring<'a>, Error> {
        let mut kept = Vec::new();
        for (name, mut packed) in blocks {
            if streaming.keeps_converted && passes > 1 && packed.needs_conversion() {
                packed.keep_in(cx.arena.host_buffer(&format!("{name} weights"), packed.bytes())?);
            }
            kept.push((name, Arc::new(packed)));
        }
        let blocks = kept;
        let streamed: Vec<usize> =
            (0..blocks.len()).filter(|&index| blocks[index].1.bytes() > 0).collect();
        let largest = blocks.iter().map(|(_, packed)| packed.bytes()).max().unwrap_or(0);
        let count = if largest == 0 { 0 } else { streaming.slots.clamp(1, streamed.len()) };
        let mut slots = Vec::new();
        for number in 0..count {
            let memory = alloc_bytes(&cx, &format!("weight slot {number}"), largest)?;
            let free = cx.device.fence();
            slots.push(Slot { memory, free, full: None, in_use: false });
        }
        let brought_in_all = streamed.len() * passes;
        let (uses, begun, taken) = (0, 0, 0);
        let mut ring = Ring { cx, blocks, streamed, slots, brought_in_all, uses, begun, taken };
        ring.fill();
        Ok(ring)
    }

    /// The streamed weights of the block that is used next.
    pub fn next(&mut self, name: &str) -> Result<Vec<(String, Tensor)>, Error> {
        let (expected, packed) = &self.blocks[self.uses % self.blocks.len()];
        if expected != name {
            let what = format!("block {name} was asked for, and {expected} comes next");
            return Err(Error::Deviation { event: self.uses, what });
        }
        let packed = packed.clone();
        self.uses += 1;
        self.release();
        // With one slot, it has only now become free.
        self.fill();
        if packed.bytes() == 0 {
            return Ok(Vec::new());
        }
        let slots = self.slots.len();
        let slot = &mut self.slots[self.taken % slots];
        let Some(full) = slot.full.take() else {
            let what = format!("block {name} was asked for more often than planned");
            return Err(Error::Deviation { event: self.uses, what });
        };
        let memory = slot.room_for(&packed);
        slot.in_use = true;
        self.taken += 1;
        self.cx.arrive(full, &(packed.clone() as Arc<_>), &memory)?;
        packed.add_factors(self.cx.device, &memory);
        Ok(packed.views(&memory).collect())
    }

    /// Whatever block was in use is so no longer: its slot is free once computing so far is done.
    fn release(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.in_use) {
            slot.in_use = false;
            slot.free = self.cx.device.fence();
        }
    }

    /// Begins the copies that there are slots for.
    fn fill(&mut self) {
        while self.begun < (self.taken + self.slots.len()).min(self.brought_in_all) {
            let slots = self.slots.len();
            let slot = &mut self.slots[self.begun % slots];
            if slot.in_use {
                break;
            }
            let block = self.streamed[self.begun % self.streamed.len()];
            let packed = self.blocks[block].1.clone();
            let memory = slot.room_for(&packed);
            slot.full = Some(self.cx.device.begin_upload(packed, &memory, &[slot.free]));
            self.begun += 1;
        }
    }
}

impl Drop for Ring<'_> {
    /// A run that ends early leaves copies under way to memory that is about to be used anew.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some(full) = slot.full.take() {
                let _ = self.cx.device.wait(full);
            }
        }
    }
}
