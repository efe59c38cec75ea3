//! What a user may name: the processor, a card, or one that is not there.

use std::str::FromStr;
use vidfit_cpu::SimConfig;
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::catalogue::{self, CatalogueError, Gpu};

/// `--device`.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceChoice {
    /// The best there is.
    Auto,
    /// The cores of this machine.
    Cpu,
    /// A card that is not there.
    Sim(SimCard),
    /// The NVIDIA card of this number.
    Cuda(u32),
}

/// A card that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct SimCard {
    /// As the user spells it: `sim:8GB`.
    pub spelled: String,
    /// All of its memory.
    pub memory_bytes: u64,
    /// What of that is not to be had.
    pub overhead_bytes: u64,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let kind = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let rest = text.split_once(':').map(|(_, rest)| rest.trim());
        match (kind.as_str(), rest) {
            ("auto", None) => Ok(DeviceChoice::Auto),
            ("cpu", None) => Ok(DeviceChoice::Cpu),
            ("cuda", None) => Ok(DeviceChoice::Cuda(0)),
            ("cuda", Some(number)) => number.parse().map(DeviceChoice::Cuda).map_err(|_| {
                format!("{number:?} is no number of a card: write cuda, or cuda:1 for the second")
            }),
            ("sim", Some(card)) => SimCard::named(card).map(DeviceChoice::Sim),
            _ => Err(format!(
                "{text:?} is none of auto, cpu, cuda, cuda:N, sim:8GB and \"sim:RTX 3060 12GB\""
            )),
        }
    }
}

/// As the command line spells it.
impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Sim(card) => f.write_str(&card.spelled),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl SimCard {
    /// The card of a size or of a name in the catalogue.
    fn named(text: &str) -> Result<SimCard, String> {
        let spelled = format!("sim:{text}");
        match (catalogue::find(text), text.parse()) {
            (Ok(Gpu { memory_bytes, overhead_bytes, .. }), _) => Ok(SimCard {
                spelled,
                memory_bytes: *memory_bytes,
                overhead_bytes: *overhead_bytes,
            }),
            (Err(CatalogueError::Unknown { .. }), Ok(ByteSize(memory_bytes))) => {
                Ok(SimCard { spelled, memory_bytes, overhead_bytes: 0 })
            }
            (Err(CatalogueError::Unknown { .. }), Err(error))
                if text.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                Err(error.to_string())
            }
            (Err(error), _) => Err(error.to_string()),
        }
    }

    /// What the simulation is made of.
    pub fn config(&self, threads: usize) -> SimConfig {
        SimConfig {
            name: self.spelled.clone(),
            overhead_bytes: self.overhead_bytes,
            threads,
            ..SimConfig::new(self.memory_bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> Result<DeviceChoice, String> {
        text.parse()
    }

    fn sim(text: &str) -> (u64, u64) {
        match choice(text) {
            Ok(DeviceChoice::Sim(card)) => (card.memory_bytes, card.overhead_bytes),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn devices_are_read() {
        assert_eq!(choice("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(choice("CPU"), Ok(DeviceChoice::Cpu));
        assert_eq!(choice("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(choice("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        assert_eq!(sim("sim:8GB"), (8 << 30, 0));
        assert_eq!(sim("sim:123456"), (123_456, 0));
        let gpu = catalogue::find("RTX 3060 12GB").unwrap();
        assert_eq!(sim("sim:RTX 3060 12GB"), (12 << 30, gpu.overhead_bytes));
        assert_eq!(sim("sim:rtx 4090").0, 24 << 30);
        for text in ["auto", "cpu", "cuda:3", "sim:8GB", "sim:rtx 4090"] {
            assert_eq!(choice(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_devices_are_explained() {
        for (text, words) in [
            ("tpu", &["tpu", "cpu"][..]),
            ("sim", &["sim:8GB"]),
            ("sim:", &["\"\""]),
            ("sim:8G", &["8G", "7.5GB"]),
            ("sim:RTX 3060", &["RTX 3060 12GB", "RTX 3060 8GB"]),
            ("sim:toaster", &["toaster", "vidfit gpus"]),
            ("cuda:x", &["cuda:1"]),
            ("cpu:2", &["cpu:2"]),
        ] {
            let error = choice(text).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }
}
