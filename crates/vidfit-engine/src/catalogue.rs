//! The cards that there are: what a plan needs to know of one that this machine may not have.
//!
//! The figures are the vendor's, of the documents that [`Gpu::source`] names, or follow from them,
//! but for those that [`Gpu::assumed`] lists. Rates are peaks; no job reaches them.

mod names;

pub use names::{CatalogueError, find, matching};

use std::fmt;
use std::sync::LazyLock;

/// A graphics card.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Gpu {
    /// The full name, such as `RTX 3060 12GB`: the vendor's, without "NVIDIA GeForce", and with
    /// what tells it from others of the name.
    pub name: String,
    /// The vendor's name alone: `RTX 3060`.
    pub model: String,
    /// What tells it from other cards of the name: `12GB`, `Laptop`, `80GB SXM`. May be empty.
    pub variant: String,
    /// The architecture, such as `Ampere`.
    pub architecture: String,
    /// The compute capability, such as 8.6.
    pub compute_capability: (u32, u32),
    /// Memory, as printed on the box. A driver reports a little less.
    pub memory_bytes: u64,
    /// Memory that is not a job's to use: the driver, a CUDA context, loaded modules, and error
    /// correction where it takes a share of the memory. An assumption.
    pub overhead_bytes: u64,
    /// Bandwidth of the memory.
    pub memory_bytes_per_second: f64,
    /// Dense matrix products of 16-bit numbers that are summed in 32 bits, in operations a second;
    /// a multiply-add is two.
    pub tensor_flops: f64,
    /// Arithmetic in f32, in operations a second.
    pub f32_flops: f64,
    /// Multiprocessors.
    #[serde(skip)]
    pub multiprocessors: u32,
    /// The clock that the rates are at, in Hz.
    #[serde(skip)]
    pub clock_hz: f64,
    /// The way to the host.
    pub bus: Bus,
    /// What the bus brings in practice: [`UPLOAD_SHARE`] of its rate. An assumption.
    pub upload_bytes_per_second: f64,
    /// Whether bf16 is computed by the hardware (compute capability 8.0 and later).
    pub native_bf16: bool,
    /// The figures that its documents leave open.
    pub assumed: Vec<Figure>,
    /// Words that may follow its name as well, as drivers write them.
    #[serde(skip)]
    also: Vec<String>,
    /// The documents behind the figures.
    pub source: String,
}

/// A PCIe connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bus {
    /// The generation: 3, 4 or 5.
    pub generation: u32,
    /// The lanes.
    pub lanes: u32,
}

/// A figure that may be an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Figure {
    /// What is outside of a job's arena; assumed of every card.
    Overhead,
    /// What the bus brings in practice; assumed of every card.
    Upload,
    /// The clock, and with it both rates: makers of laptops choose it as they cool, and the upper
    /// end of the vendor's range stands here; of some other cards it is not stated.
    Clock,
    /// The memory's bandwidth: it differs between makers.
    Bandwidth,
    /// The rate of matrix products.
    Tensor,
    /// Generation and lanes of the bus: it differs between makers.
    Bus,
}

/// The share of a bus's rate that large copies from pinned memory reach. An assumption: packet
/// headers alone take about a tenth.
pub const UPLOAD_SHARE: f64 = 0.8;

/// What no vendor states.
const ALWAYS_ASSUMED: [Figure; 2] = [Figure::Overhead, Figure::Upload];

impl Bus {
    /// The rate in one direction, after line coding.
    pub fn bytes_per_second(self) -> f64 {
        // PCIe 3.0 makes 8·10⁹ transfers a second on a lane, 128 bits of data in 130; each
        // generation doubles them.
        let transfers_per_second = 8e9 * 2f64.powi(self.generation as i32 - 3);
        transfers_per_second * (128.0 / 130.0) / 8.0 * f64::from(self.lanes)
    }
}

/// `PCIe 4.0 x16`.
impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCIe {}.0 x{}", self.generation, self.lanes)
    }
}

/// All cards, family by family, from the oldest.
pub fn all() -> &'static [Gpu] {
    static ALL: LazyLock<Vec<Gpu>> = LazyLock::new(|| {
        read(include_str!("catalogue/gpus.toml")).expect("the tests have read this same text")
    });
    &ALL
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: Vec<Family>,
}

/// Cards that share an architecture. The fields are explained at the top of the file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    architecture: String,
    compute: (u32, u32),
    tensor_fma: u32,
    f32_fma: u32,
    overhead_mb: u64,
    #[serde(default)]
    assumed: Vec<Figure>,
    source: String,
    gpus: Vec<Card>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    model: String,
    #[serde(default)]
    variant: String,
    gb: u64,
    bandwidth: f64,
    sm: u32,
    mhz: u32,
    bus: Bus,
    tensor_tflops: Option<f64>,
    f32_tflops: Option<f64>,
    #[serde(default)]
    ecc: bool,
    #[serde(default)]
    also: Vec<String>,
    #[serde(default)]
    assumed: Vec<Figure>,
}

impl<'de> serde::Deserialize<'de> for Bus {
    /// Reads `4x16`.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bus = text.split_once('x').and_then(|(generation, lanes)| {
            Some(Bus { generation: generation.parse().ok()?, lanes: lanes.parse().ok()? })
        });
        bus.ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not a bus such as \"4x16\""))
        })
    }
}

fn read(text: &str) -> Result<Vec<Gpu>, toml::de::Error> {
    let file: File = toml::from_str(text)?;
    let of_family = |family: &Family| -> Vec<Gpu> {
        family.gpus.iter().map(|card| Gpu::new(family, card)).collect()
    };
    Ok(file.family.iter().flat_map(of_family).collect())
}

impl Gpu {
    fn new(family: &Family, card: &Card) -> Gpu {
        let memory_bytes = card.gb << 30;
        let error_correction_bytes = if card.ecc { memory_bytes / 16 } else { 0 };
        let flops =
            |fma: u32| 2.0 * f64::from(fma) * f64::from(card.sm) * f64::from(card.mhz) * 1e6;
        let stated = |tflops: Option<f64>| tflops.map(|tflops| tflops * 1e12);
        Gpu {
            name: format!("{} {}", card.model, card.variant).trim_end().to_owned(),
            model: card.model.clone(),
            variant: card.variant.clone(),
            architecture: family.architecture.clone(),
            compute_capability: family.compute,
            memory_bytes,
            overhead_bytes: (family.overhead_mb << 20) + error_correction_bytes,
            memory_bytes_per_second: card.bandwidth * 1e9,
            tensor_flops: stated(card.tensor_tflops).unwrap_or_else(|| flops(family.tensor_fma)),
            f32_flops: stated(card.f32_tflops).unwrap_or_else(|| flops(family.f32_fma)),
            multiprocessors: card.sm,
            clock_hz: f64::from(card.mhz) * 1e6,
            bus: card.bus,
            upload_bytes_per_second: card.bus.bytes_per_second() * UPLOAD_SHARE,
            native_bf16: family.compute >= (8, 0),
            assumed: [&ALWAYS_ASSUMED[..], &family.assumed, &card.assumed].concat(),
            also: card.also.clone(),
            source: family.source.clone(),
        }
    }

    /// Whether a figure of this card is an assumption.
    pub fn assumes(&self, figure: Figure) -> bool {
        self.assumed.contains(&figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_entry_is_sane() {
        let gpus = read(include_str!("catalogue/gpus.toml")).unwrap();
        assert_eq!(gpus, all());
        assert!(gpus.len() > 100, "{}", gpus.len());
        let names: BTreeSet<&str> = gpus.iter().map(|gpu| &gpu.name[..]).collect();
        assert_eq!(names.len(), gpus.len(), "two cards of one name");
        for gpu in &gpus {
            let sane = |holds: bool, what: &str| assert!(holds, "{}: {what}", gpu.name);
            sane((4..=256).contains(&(gpu.memory_bytes >> 30)), "memory");
            sane(gpu.memory_bytes.is_multiple_of(1 << 30), "memory in whole GB");
            sane((300 << 20..gpu.memory_bytes / 8).contains(&gpu.overhead_bytes), "overhead");
            sane((96e9..10e12).contains(&gpu.memory_bytes_per_second), "bandwidth");
            sane((1e12..130e12).contains(&gpu.f32_flops), "f32");
            let tensor = gpu.tensor_flops / gpu.f32_flops;
            sane((1.0..=32.0).contains(&tensor), "tensor cores are faster, but not that much");
            sane([3, 4, 5].contains(&gpu.bus.generation), "bus");
            sane([8, 16].contains(&gpu.bus.lanes), "lanes");
            sane(gpu.upload_bytes_per_second < gpu.bus.bytes_per_second(), "upload");
            sane(gpu.source.contains("NVIDIA"), "source");
            sane(gpu.native_bf16 == (gpu.architecture != "Turing"), "bf16");
            let laptop = gpu.variant.contains("Laptop");
            sane(!laptop || gpu.assumes(Figure::Clock), "the clock of a laptop");
            // The variant that names the memory names it rightly.
            let named = gpu.variant.split(' ').find_map(|word| word.strip_suffix("GB"));
            let named = named.map(|number| number.parse::<u64>().unwrap() << 30);
            sane(named.is_none_or(|bytes| bytes == gpu.memory_bytes), "variant");
            // Operations for each byte of memory traffic: a slip of a digit leaves this range.
            let intensity = gpu.tensor_flops / gpu.memory_bytes_per_second;
            sane((10.0..500.0).contains(&intensity), "rates do not go together");
        }
    }

    /// Rates that the vendor prints, against what follows from multiprocessors and clocks.
    #[test]
    fn derived_rates_are_those_of_the_whitepapers() {
        // Name, dense f16 with f32 sums, and f32, in 10¹² operations a second.
        for (name, tensor, f32_rate) in [
            ("RTX 2080 Ti", 53.8, 13.4),
            ("Quadro RTX 6000", 130.5, 16.3),
            ("T4", 65.0, 8.1),
            ("RTX 3080 10GB", 59.5, 29.8),
            ("RTX 3090", 71.0, 35.6),
            ("RTX A6000", 154.8, 38.7),
            ("A10", 125.0, 31.2),
            ("A30", 165.0, 10.3),
            ("A40", 149.7, 37.4),
            ("A100 40GB", 312.0, 19.5),
            ("RTX 4080", 97.5, 48.7),
            ("RTX 4090", 165.2, 82.6),
            ("RTX 6000 Ada", 364.2, 91.1),
            ("L4", 121.0, 30.3),
            ("RTX 5090", 209.5, 104.8),
            ("RTX PRO 6000 Blackwell Workstation", 503.8, 126.0),
        ] {
            let gpu = find(name).unwrap();
            let near = |ours: f64, theirs: f64| (ours / 1e12 / theirs - 1.0).abs() < 0.01;
            assert!(near(gpu.tensor_flops, tensor), "{name}: {} for {tensor}", gpu.tensor_flops);
            assert!(near(gpu.f32_flops, f32_rate), "{name}: {} for {f32_rate}", gpu.f32_flops);
        }
    }

    #[test]
    fn error_correction_takes_its_share() {
        let overhead = |name: &str| find(name).unwrap().overhead_bytes;
        assert_eq!(overhead("T4") - overhead("Quadro RTX 5000"), 1 << 30);
    }

    #[test]
    fn a_bus_doubles_with_each_generation() {
        let rate = |generation, lanes| Bus { generation, lanes }.bytes_per_second();
        assert!((rate(3, 16) / 15.754e9 - 1.0).abs() < 1e-3);
        assert_eq!(rate(5, 8), rate(4, 16));
        assert_eq!(Bus { generation: 4, lanes: 8 }.to_string(), "PCIe 4.0 x8");
        let wrong = include_str!("catalogue/gpus.toml").replace("\"4x16\"", "\"fast\"");
        assert!(read(&wrong).unwrap_err().to_string().contains("fast"));
    }
}
