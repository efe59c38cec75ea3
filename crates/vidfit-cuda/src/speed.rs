//! How much a card computes in a second, and what of it one launch may have.

/// Multiply-adds that a card makes in a second at most: at its boost clock, with every unit busy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// On tensor cores, of 16 bits with sums in f32; where there are none, what the kernels for them make.
    pub tensor: f64,
    /// In f32.
    pub f32: f64,
}

/// What makes the products of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Tensor cores.
    Tensor,
    /// The units for f32.
    F32,
}

impl Speed {
    /// That of a card, by what its driver tells of it. Where cards of one compute capability differ, that of
    /// the slowest (the tables of NVIDIA's architecture whitepapers, "peak FP16 Tensor TFLOPS with FP32
    /// accumulate"; those of a multiprocessor and clock, as `vidfit-engine/src/catalogue/gpus.toml` has them).
    pub fn of(name: &str, capability: (u32, u32), multiprocessors: u32, clock_hz: f64) -> Speed {
        // Of Turing, the GTX 16, MX and small T cards have no tensor cores: f32 units do the same work.
        let is_rtx = name.contains("RTX") || name.split([' ', '-']).any(|word| word == "T4");
        let (tensor, f32) = match capability {
            (7, 5) if !is_rtx => (64.0, 64.0),
            (7, _) => (256.0, 64.0),
            (8, 0) => (1024.0, 64.0),
            (8, _) => (256.0, 128.0),
            (9 | 10, _) => (1024.0, 128.0),
            _ => (256.0, 128.0),
        };
        let clocks = f64::from(multiprocessors) * clock_hz;
        Speed { tensor: tensor * clocks, f32: f32 * clocks }
    }

    /// Multiply-adds in a second.
    pub fn of_unit(&self, unit: Unit) -> f64 {
        match unit {
            Unit::Tensor => self.tensor,
            Unit::F32 => self.f32,
        }
    }
}

/// What one launch may take of a card at its [`Speed`], if it can be parted, in seconds.
///
/// A card that shows a desktop ends what takes longer than two seconds or so, with everything that is under
/// way, and its screen stands still meanwhile. Kernels reach a half of the speed and more, laptops may not reach
/// their boost clock: then it is half a second at most. A launch is asked for in some millionths of a second, so
/// that many of them cost nothing.
const LAUNCH_SECONDS: f64 = 0.1;

/// The most multiply-adds of one launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaunchWork {
    tensor: u64,
    f32: u64,
}

impl LaunchWork {
    /// What a card of this speed may be asked for at once.
    pub fn of(speed: Speed) -> LaunchWork {
        let within = |rate: f64| (rate * LAUNCH_SECONDS) as u64;
        LaunchWork { tensor: within(speed.tensor), f32: within(speed.f32) }
    }

    /// The same for all units.
    pub fn all(multiply_adds: u64) -> LaunchWork {
        LaunchWork { tensor: multiply_adds, f32: multiply_adds }
    }

    /// How many of `all` equal parts one launch is for, each of so many multiply-adds: at least one.
    pub fn parts(self, unit: Unit, of_one: u64, all: usize) -> usize {
        let most = match unit {
            Unit::Tensor => self.tensor,
            Unit::F32 => self.f32,
        };
        usize::try_from(most / of_one.max(1)).unwrap_or(all).clamp(1, all.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_without_tensor_cores_are_known_by_their_names() {
        let tensor = |name| Speed::of(name, (7, 5), 1, 1.0).tensor;
        for name in ["NVIDIA GeForce GTX 1650", "NVIDIA GeForce MX450", "NVIDIA T600 Laptop GPU"] {
            assert_eq!(tensor(name), 64.0, "{name}");
        }
        for name in ["NVIDIA GeForce RTX 2060", "Tesla T4", "NVIDIA T4", "TITAN RTX"] {
            assert_eq!(tensor(name), 256.0, "{name}");
        }
    }

    #[test]
    fn a_launch_has_at_least_one_part_and_at_most_all() {
        let work = LaunchWork::of(Speed { tensor: 1e12, f32: 1e11 });
        assert_eq!(work.parts(Unit::Tensor, 30_000_000_000, 48), 3);
        assert_eq!(work.parts(Unit::F32, 30_000_000_000, 48), 1);
        assert_eq!(work.parts(Unit::Tensor, 1, 48), 48);
        assert_eq!(work.parts(Unit::Tensor, 0, 0), 1);
    }
}
