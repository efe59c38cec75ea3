//! `vidfit doctor`: what there is to compute on, and what is in the way.

use crate::device::cards::{self, Examined, Findings, KernelCache, PackedKernel};
use crate::exit::Failure;
use crate::human::{seconds, size};
use crate::say::answer;
use serde_json::{Value, json};
use vidfit_engine::gpus::Gpus;
use vidfit_engine::machine::{Ram, processor_name, ram};

/// `vidfit doctor`.
#[derive(clap::Args)]
pub struct DoctorArgs {
    /// Only look: open no card, which takes some seconds each.
    #[arg(long)]
    pub quick: bool,
    /// As one JSON object, in bytes.
    #[arg(long)]
    pub json: bool,
}

/// Looks, and says what was found.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let found = Diagnosis {
        processor: processor_name(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        ram: ram(),
        nvml: Gpus::open().map(drop).map_err(|reason| reason.to_string()),
        cuda: cards::examine(!args.quick),
    };
    match args.json {
        true => answer(&found.as_json().to_string()),
        false => answer(&found.in_words()),
    }
}

/// All that was found.
struct Diagnosis {
    processor: Option<String>,
    cores: usize,
    ram: Option<Ram>,
    /// The library that watches cards, or why there is none.
    nvml: Result<(), String>,
    cuda: Findings,
}

impl Diagnosis {
    /// What `--device auto` takes, and why it is no card if it is none.
    fn choice(&self) -> Result<&Examined, String> {
        let is_usable = |card: &&Examined| self.cuda.missing.is_empty() && card.problem().is_none();
        let best = self
            .cuda
            .cards
            .iter()
            .filter(is_usable)
            .max_by_key(|card| card.free_bytes.unwrap_or(card.memory_bytes));
        best.ok_or_else(|| {
            let problem = self.cuda.cards.iter().find_map(Examined::problem);
            let why = self.cuda.missing.first().map(String::as_str).or(problem);
            why.unwrap_or("the driver sees no card").to_owned()
        })
    }

    fn in_words(&self) -> String {
        let row = |what: &str, text: String| format!("{what:<10} {text}");
        let mut lines = vec![row("vidfit", env!("CARGO_PKG_VERSION").into())];
        let processor = self.processor.as_deref().unwrap_or("a processor without a name");
        let cores = if self.cores == 1 { "core" } else { "cores" };
        lines.push(row("processor", format!("{processor}, {} {cores}", self.cores)));
        if let Some(Ram { total_bytes, used_bytes, .. }) = self.ram {
            let available = size(total_bytes.saturating_sub(used_bytes));
            lines.push(row("RAM", format!("{}, {available} available", size(total_bytes))));
        }
        lines.push(row("driver", self.driver()));
        lines.push(row(
            "NVML",
            match &self.nvml {
                Ok(()) => "works: free memory is known before a card is opened".into(),
                Err(reason) => reason.clone(),
            },
        ));
        if let Some(cache) = &self.cuda.kernel_cache {
            lines.push(row("kernels", cache_in_words(cache)));
        }
        for card in &self.cuda.cards {
            lines.extend(card_in_words(card));
        }
        lines.push(String::new());
        lines.push(match self.choice() {
            Ok(card) => format!(
                "vidfit computes on {} ({}), if not told otherwise (--device).",
                card.id(),
                card.name
            ),
            Err(why) => format!(
                "vidfit computes on the CPU, where the demo model takes seconds for a video and a \
                 published model hours.\nNo NVIDIA card can be used: {why}"
            ),
        });
        lines.join("\n")
    }

    /// The driver, in words.
    fn driver(&self) -> String {
        let Findings { library, cuda, .. } = &self.cuda;
        match (library, cuda) {
            (Err(why), _) => format!("none: {why}"),
            (Ok(path), Some((major, minor))) => {
                format!("{} for CUDA {major}.{minor}", path.as_deref().unwrap_or("libcuda"))
            }
            (Ok(path), None) => path.clone().unwrap_or_else(|| "libcuda".into()),
        }
    }

    fn as_json(&self) -> Value {
        let choice = self.choice();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "processor": { "name": self.processor, "cores": self.cores },
            "ram": self.ram,
            "nvml": { "works": self.nvml.is_ok(), "why_not": self.nvml.as_ref().err() },
            "driver": {
                "library": self.cuda.library.as_ref().ok(),
                "why_not": self.cuda.library.as_ref().err(),
                "cuda": self.cuda.cuda.map(|(major, minor)| format!("{major}.{minor}")),
            },
            "kernel_cache": self.cuda.kernel_cache,
            "cards": self.cuda.cards,
            "missing": self.cuda.missing,
            "auto": choice.as_ref().map_or("cpu".into(), |card| card.id()),
            "why_cpu": choice.err(),
        })
    }
}

/// Whether the driver has to compile the kernels only once, in words.
fn cache_in_words(cache: &KernelCache) -> String {
    match (&cache.problem, &cache.folder) {
        (Some(problem), _) => {
            format!("the driver compiles them at every start, for 5 to 30 seconds: {problem}")
        }
        (None, Some(folder)) => {
            format!("the driver compiles them once, and keeps them in {}", folder.display())
        }
        (None, None) => "the driver compiles them".into(),
    }
}

/// How many blocks of the kernels that are made for more than one a multiprocessor has, in words.
fn packing_in_words(packed: &[PackedKernel]) -> String {
    let fewer = packed.iter().filter(|kernel| kernel.held < kernel.wanted);
    let fewer: Vec<String> = fewer
        .map(|PackedKernel { name, wanted, held }| format!("{name} has {held} of {wanted}"))
        .collect();
    let with_two = packed.iter().filter(|kernel| kernel.wanted > 1).count();
    match fewer.is_empty() {
        true => format!("two blocks of {with_two} kernels find room on a multiprocessor at a time"),
        false => format!(
            "fewer blocks find room on a multiprocessor than should, which is slow: {}",
            fewer.join(", ")
        ),
    }
}

/// What is known of a card, in lines.
fn card_in_words(card: &Examined) -> Vec<String> {
    let (major, minor) = card.capability;
    let free = match card.free_bytes {
        Some(bytes) => format!(", {} free", size(bytes)),
        None => String::new(),
    };
    let mut lines = vec![format!(
        "{:<10} {}: compute capability {major}.{minor}, {}{free}",
        card.id(),
        card.name,
        size(card.memory_bytes)
    )];
    let more = match &card.opened {
        None => match &card.problem {
            Some(problem) => vec![format!("cannot be used: {problem}")],
            None => vec!["was not opened".into()],
        },
        Some(Err(why)) => vec![format!("cannot be used: {why}")],
        Some(Ok(opened)) => {
            let mut more = vec![format!(
                "works: {} kernels for compute capability {}.{} and newer, ready after {}",
                opened.kernels,
                opened.architecture / 100,
                opened.architecture / 10 % 10,
                seconds(opened.seconds)
            )];
            more.push(format!("matrix products are made by {}", opened.products));
            more.push(packing_in_words(&opened.packed));
            more.push(match opened.overhead_bytes {
                0 => "what the driver takes of its memory is not known, for want of NVML".into(),
                bytes => format!(
                    "{} of its memory go to the driver, the context, the kernels and libraries",
                    size(bytes)
                ),
            });
            if opened.architecture < 800 {
                more.push(
                    "its tensor cores do not multiply bf16, which is slow here: --dtype f16".into(),
                );
            }
            more
        }
    };
    lines.extend(more.into_iter().map(|line| format!("{:<10} {line}", "")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cards::OpenedCard;

    fn card(number: u32) -> Examined {
        Examined {
            number,
            name: "NVIDIA GeForce RTX 4060".into(),
            capability: (8, 9),
            memory_bytes: 8 << 30,
            free_bytes: Some(7 << 30),
            problem: None,
            opened: None,
        }
    }

    fn diagnosis(cards: Vec<Examined>, missing: &[&str]) -> Diagnosis {
        Diagnosis {
            processor: Some("A processor".into()),
            cores: 1,
            ram: None,
            nvml: Err("no NVML".into()),
            cuda: Findings {
                library: Ok(Some("/lib/libcuda.so.1".into())),
                cuda: Some((12, 4)),
                missing: missing.iter().map(|&what| what.to_owned()).collect(),
                kernel_cache: Some(KernelCache { folder: Some("/cache".into()), problem: None }),
                cards,
            },
        }
    }

    #[test]
    fn the_card_with_the_most_room_is_taken() {
        let fuller = Examined { free_bytes: Some(6 << 30), ..card(0) };
        let broken = Examined { free_bytes: Some(8 << 30), problem: Some("old".into()), ..card(2) };
        let opened = OpenedCard {
            kernels: 44,
            packed: vec![packed(2), packed(2)],
            architecture: 800,
            products: "cuBLASLt 13.1.0".into(),
            overhead_bytes: 300 << 20,
            seconds: 2.0,
        };
        let best = Examined { opened: Some(Ok(opened)), ..card(1) };
        let found = diagnosis(vec![fuller, best, broken], &[]);
        let text = found.in_words();
        for words in [
            "/lib/libcuda.so.1 for CUDA 12.4",
            "compute capability 8.9, 8.00 GB, 7.00 GB free",
            "44 kernels for compute capability 8.0 and newer",
            "matrix products are made by cuBLASLt 13.1.0",
            "two blocks of 2 kernels find room",
            "compiles them once, and keeps them in /cache",
            "300.0 MB of its memory",
            "cannot be used: old",
            "computes on cuda:1 (NVIDIA GeForce RTX 4060)",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert_eq!(found.as_json()["auto"], "cuda:1");
    }

    fn packed(held: u32) -> PackedKernel {
        PackedKernel { name: "linear_f16".into(), wanted: 2, held }
    }

    #[test]
    fn what_is_slow_is_said() {
        assert!(packing_in_words(&[packed(2), packed(1)]).contains("linear_f16 has 1 of 2"));
        let cache =
            KernelCache { folder: Some("/cache".into()), problem: Some("it is off".into()) };
        assert!(cache_in_words(&cache).ends_with("at every start, for 5 to 30 seconds: it is off"));
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let found = diagnosis(vec![card(0)], &["the driver is too old"]);
        // A card that the driver is too old for is not taken.
        assert_eq!(found.as_json()["auto"], "cpu");
        let why = Examined { opened: Some(Err("no memory".into())), ..card(0) };
        assert!(diagnosis(vec![why], &[]).in_words().contains("be used: no memory"));
        assert_eq!(found.as_json()["missing"][0], "the driver is too old");
        let none = diagnosis(vec![], &["no driver"]);
        assert_eq!(none.as_json()["auto"], "cpu");
        assert!(none.in_words().contains("computes on the CPU"), "{}", none.in_words());
    }
}
