//! What NVML knows: how much of a card's memory is free before this process has a context on it, and what
//! others hold of it.

use super::sys;
use super::words::SUCCESS;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::{Device, Nvml};
use std::collections::BTreeMap;

/// The library that the driver brings.
const LIBRARY: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };

/// How often a reading is tried that others change under way.
const MOST_TRIES: usize = 100;

/// NVML, with the name by which it knows a card.
pub(super) struct Watch {
    nvml: Nvml,
    digits: String,
}

/// What a card's memory is used for, at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Bytes that are free.
    pub free: u64,
    total: u64,
    /// What processes hold, if that is told of each.
    held: Option<Held>,
}

/// What processes hold of a card, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// This process, if it is listed. In a container it is not, or by a number that is not its own.
    own: Option<u64>,
    others: u64,
}

impl Watch {
    /// Of a card, if NVML knows it.
    pub fn new(device: sys::CUdevice) -> Option<Watch> {
        let nvml = Nvml::builder().lib_path(LIBRARY.as_ref()).init().ok()?;
        let watch = Watch { nvml, digits: uuid(device)? };
        watch.device().is_some().then_some(watch)
    }

    fn device(&self) -> Option<Device<'_>> {
        // NVML numbers cards in its own way, but knows them by the same names; and parts of cards.
        let by_kind = |kind| self.nvml.device_by_uuid(format!("{kind}-{}", self.digits)).ok();
        ["GPU", "MIG"].into_iter().find_map(by_kind)
    }

    /// What there is now.
    pub fn reading(&self) -> Option<Reading> {
        let device = self.device()?;
        let mut held = held(&device);
        for _ in 0..MOST_TRIES {
            let memory = device.memory_info().ok()?;
            let still_held = self::held(&device);
            // Nothing is read at the same time as something else, so neither may have changed.
            if held.is_none() || held == still_held {
                return Some(Reading { free: memory.free, total: memory.total, held });
            }
            held = still_held;
        }
        let memory = device.memory_info().ok()?;
        Some(Reading { free: memory.free, total: memory.total, held: None })
    }
}

impl Reading {
    /// What is used by this process and by nobody who is listed. `None` where NVML does not tell what others
    /// hold, or which of them this process is.
    pub fn taken(&self) -> Option<u64> {
        let Held { own: Some(_), others } = self.held? else { return None };
        Some(self.total.saturating_sub(self.free).saturating_sub(others))
    }

    /// What this process has taken from here to `later`, when it has a context. Without what others took or
    /// gave back meanwhile, where that can be told.
    pub fn taken_until(&self, later: &Reading) -> u64 {
        // Whoever was there before this process had a context is another.
        let used = self.total.saturating_sub(self.free);
        let before = self.held.map(|held| used.saturating_sub(held.others));
        match (before.filter(|_| self.held.is_some_and(|held| held.own.is_none())), later.taken()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => self.free.saturating_sub(later.free),
        }
    }
}

/// What processes hold, if that is told of each.
fn held(device: &Device<'_>) -> Option<Held> {
    let mut processes = BTreeMap::new();
    let computing = device.running_compute_processes().ok()?;
    // Who computes and draws is listed twice, each time with all that it holds.
    for process in computing.into_iter().chain(device.running_graphics_processes().ok()?) {
        let UsedGpuMemory::Used(bytes) = process.used_gpu_memory else { return None };
        let known = processes.entry(process.pid).or_insert(bytes);
        *known = bytes.max(*known);
    }
    let own = processes.remove(&std::process::id());
    Some(Held { own, others: processes.values().sum() })
}

/// Bytes that are free on the card, if NVML tells.
pub(super) fn free_bytes(device: sys::CUdevice) -> Option<u64> {
    let watch = Watch::new(device)?;
    Some(watch.device()?.memory_info().ok()?.free)
}

/// The card's name in the whole world.
fn uuid(device: sys::CUdevice) -> Option<String> {
    let mut uuid = [0; 16];
    // SAFETY: writes the 16 bytes.
    let asked = unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, device) };
    (asked == SUCCESS).then(|| dashed(uuid))
}

/// As 8-4-4-4-12 digits.
fn dashed(bytes: [u8; 16]) -> String {
    let mut text = String::new();
    for (n, byte) in bytes.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_nvidia_smi_does() {
        let text = dashed(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef");
        assert_eq!(text, "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn what_others_take_is_not_taken_for_this_process() {
        let reading = |free, held| Reading { free, total: 1000, held };
        let held = |own, others| Some(Held { own, others });
        let before = reading(900, held(None, 100));
        // Another took 200 while this one took 50; or gave back all.
        assert_eq!(before.taken_until(&reading(650, held(Some(50), 300))), 50);
        assert_eq!(before.taken_until(&reading(950, held(Some(50), 0))), 50);
        // Where it is not told who holds what, the difference has to do; and is never less than nothing.
        assert_eq!(before.taken_until(&reading(850, None)), 50);
        assert_eq!(before.taken_until(&reading(850, held(None, 150))), 50);
        assert_eq!(before.taken_until(&reading(950, None)), 0);
        assert_eq!(reading(850, held(None, 150)).taken(), None);
    }
}
