//! What is planned for: a device, and what of it may be used.

use crate::catalogue::Gpu;
use crate::placement::Parts;
use serde::{Deserialize, Serialize};
use vidfit_tensor::rates::Class;
use vidfit_tensor::{Device, Layout, Profile, Rates};

pub use crate::calibration::Certainty;

/// Where weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// The fastest that fits.
    Auto,
    /// All components on the device from the beginning to the end.
    None,
    /// Each component whole on the device while it works.
    Model,
    /// Everything streamed, and every other way to need less taken: the least memory.
    Sequential,
    /// This share of each phase's bytes of weights on the device, in percent; the rest streamed.
    Percent(u8),
}

impl std::fmt::Display for Offload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Offload::Auto => f.write_str("auto"),
            Offload::None => f.write_str("none"),
            Offload::Model => f.write_str("model"),
            Offload::Sequential => f.write_str("sequential"),
            Offload::Percent(share) => write!(f, "{share}%"),
        }
    }
}

impl std::str::FromStr for Offload {
    type Err = String;

    fn from_str(text: &str) -> Result<Offload, String> {
        // Digits alone: numbers are read with a sign as well.
        let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let percent = || text.strip_suffix('%').filter(digits)?.parse().ok();
        let share = || percent().filter(|share| *share <= 100);
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Offload::Auto),
            "none" => Ok(Offload::None),
            "model" => Ok(Offload::Model),
            "sequential" => Ok(Offload::Sequential),
            _ => share().map(Offload::Percent).ok_or_else(|| {
                format!("{text:?} is none of auto, none, model, sequential, or a share such as 40%")
            }),
        }
    }
}

/// A device, and what of it may be used.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called.
    pub name: String,
    /// What the job's code must know of it.
    pub profile: Profile,
    /// How fast it is.
    pub rates: Rates,
    /// How much that is to be believed.
    pub certainty: Certainty,
    /// Memory that is free on it.
    pub free_bytes: u64,
    /// What of that goes to the driver, its context and modules, outside of any arena.
    pub overhead_bytes: u64,
    /// What the user allows.
    pub limit_bytes: Option<u64>,
    /// What is to stay free for others.
    pub buffer_bytes: u64,
    /// RAM that may be used; absent where nobody knows.
    pub ram_bytes: Option<u64>,
    /// Whether the device's memory is the machine's RAM.
    pub shares_ram: bool,
    /// Weights of the job's that are on the device before it begins, and stay.
    pub warm: Parts,
    /// What all weights take that are so, also those of other jobs.
    pub warm_bytes: u64,
}

/// Host memory through which copies go that are not pinned where they lie.
pub const STAGING_BYTES: u64 = 12 << 20;

/// Memory that a card's operations need besides their operands: none. Even the library's matrix products
/// do without a workspace, in which they would add up parts of sums that depend on the number of rows.
pub const CARD_SCRATCH_BYTES: u64 = 0;

/// What every CUDA allocation is aligned to.
pub const CARD_ALIGNMENT: u64 = 256;

impl Target {
    /// A card that one need not have.
    pub fn of_card(gpu: &Gpu) -> Target {
        let mut rates = Rates::of_card(
            gpu.tensor_flops,
            gpu.f32_flops,
            gpu.memory_bytes_per_second,
            gpu.bus.bytes_per_second(),
        );
        if !gpu.native_bf16 {
            // Computed in f32, after widening.
            for class in Class::ALL {
                let costs = rates.class_mut(class);
                costs.bf16.seconds_per_flop = costs.f32.seconds_per_flop;
            }
        }
        Target {
            name: gpu.name.clone(),
            profile: Profile {
                name: gpu.name.clone(),
                alignment: CARD_ALIGNMENT,
                scratch_bytes: CARD_SCRATCH_BYTES,
                reads_host_memory: false,
            },
            rates,
            certainty: Certainty::Catalogue,
            free_bytes: gpu.memory_bytes,
            overhead_bytes: gpu.overhead_bytes,
            limit_bytes: None,
            buffer_bytes: 0,
            ram_bytes: None,
            shares_ram: false,
            warm: Parts::default(),
            warm_bytes: 0,
        }
    }

    /// A device that is there, of which so many bytes may be reserved. Nothing is known of its time.
    pub fn of_device(device: &dyn Device, capacity_bytes: u64) -> Target {
        let profile = device.profile().clone();
        Target {
            name: profile.name.clone(),
            shares_ram: profile.reads_host_memory,
            profile,
            rates: Rates::default(),
            certainty: Certainty::Guess,
            free_bytes: capacity_bytes,
            overhead_bytes: 0,
            limit_bytes: None,
            buffer_bytes: 0,
            ram_bytes: None,
            warm: Parts::default(),
            warm_bytes: 0,
        }
    }

    /// What a job takes of the budget: the arena and the scratch; where the device's memory is the
    /// machine's, also what waits in host memory.
    pub(crate) fn reserved_bytes(&self, layout: &Layout, scratch_bytes: u64) -> u64 {
        let host_bytes = if self.shares_ram { layout.trace.host_peak_bytes } else { 0 };
        layout.peak_bytes + scratch_bytes + host_bytes
    }

    /// The budget of a job: what the user allows or what is free, whichever is less, without the
    /// device's overhead, and without the weights that are there already.
    pub fn budget_bytes(&self) -> u64 {
        let free = self.free_bytes.saturating_sub(self.buffer_bytes);
        let allowed = self.limit_bytes.map_or(free, |limit| limit.min(free));
        allowed.saturating_sub(self.overhead_bytes).saturating_sub(self.warm_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_names_are_read() {
        for text in ["auto", "none", "model", "sequential", "40%", "0%", "100%"] {
            assert_eq!(text.parse::<Offload>().unwrap().to_string(), text);
        }
        for text in ["", "40", "101%", "-1%", "+40%", "%", "4.5%", "gpu"] {
            assert!(text.parse::<Offload>().is_err(), "{text}");
        }
    }
}
