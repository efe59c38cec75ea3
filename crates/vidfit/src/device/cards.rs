//! The NVIDIA cards of this machine.

use crate::exit::Failure;
use std::path::PathBuf;
use vidfit_engine::catalogue::{self, Gpu};
use vidfit_engine::planner::{Certainty, Target};

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
use cuda as source;
#[cfg(not(feature = "cuda"))]
mod nvml;
#[cfg(not(feature = "cuda"))]
use nvml as source;

pub use source::{examine, open};

/// A card of this machine that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Installed {
    /// What `cuda:N` calls it.
    pub number: u32,
    /// Its driver's name of it.
    pub name: String,
    /// All of its memory.
    pub memory_bytes: u64,
    /// What of that is free, as nothing of this program is on it yet.
    pub free_bytes: u64,
    /// What the driver, its context and the kernels take, if that was measured before.
    pub overhead_bytes: Option<u64>,
}

/// What was found of cards that compute.
#[derive(Debug)]
pub struct Findings {
    /// Where the driver's library lies, if the system tells; or why it cannot be loaded.
    pub library: Result<Option<String>, String>,
    /// The CUDA that the driver is for.
    pub cuda: Option<(u32, u32)>,
    /// What is in the way of using any card.
    pub missing: Vec<String>,
    /// Where the driver keeps compiled kernels, if there is a driver.
    pub kernel_cache: Option<KernelCache>,
    /// The cards.
    pub cards: Vec<Examined>,
}

/// The driver's cache of compiled kernels.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KernelCache {
    /// Its folder, if there is one for it.
    pub folder: Option<PathBuf>,
    /// Why kernels do not stay there, if they do not, and what to do.
    pub problem: Option<String>,
}

/// A card of this machine, whether it can be used or not.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Examined {
    /// What `cuda:N` calls it.
    pub number: u32,
    /// Its driver's name of it.
    pub name: String,
    /// Its compute capability, such as 8.9.
    pub capability: (u32, u32),
    /// All of its memory.
    pub memory_bytes: u64,
    /// What of that is free, if NVML tells.
    pub free_bytes: Option<u64>,
    /// Why it cannot be used, by its description.
    pub problem: Option<String>,
    /// What came of opening it, if that was tried.
    pub opened: Option<Result<OpenedCard, String>>,
}

/// A card that was opened.
#[derive(Clone, Debug, serde::Serialize)]
pub struct OpenedCard {
    /// Its kernels.
    pub kernels: usize,
    /// Those of which a multiprocessor is to have more than one block at a time.
    pub packed: Vec<PackedKernel>,
    /// The architecture that they were compiled for, as `__CUDA_ARCH__` has it.
    pub architecture: u32,
    /// What makes its matrix products of f16 and bf16.
    pub products: String,
    /// Memory that is taken from then on, by the driver's own figures.
    pub overhead_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A kernel of which a multiprocessor is to have more than one block at a time.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PackedKernel {
    /// Its name.
    pub name: String,
    /// The blocks that the card has room for.
    pub wanted: u32,
    /// The blocks that there are, by the driver's own account.
    pub held: u32,
}

impl Examined {
    /// How a user names it.
    pub fn id(&self) -> String {
        format!("cuda:{}", self.number)
    }

    /// Why it cannot be used, as far as was tried.
    pub fn problem(&self) -> Option<&str> {
        let opened = self.opened.as_ref().and_then(|opened| opened.as_ref().err());
        self.problem.as_ref().or(opened).map(String::as_str)
    }
}

/// The card of this number, or the one with the most room.
///
/// # Errors
/// Why there is none, in words.
pub fn find(number: Option<u32>) -> Result<Installed, String> {
    let cards = source::usable(number).map_err(|why| match number {
        Some(number) => format!("cuda:{number} cannot be used: {why}"),
        None => why,
    })?;
    let wanted = |card: &Installed| number.is_none_or(|number| card.number == number);
    let found = cards.into_iter().filter(wanted).max_by_key(|card| card.free_bytes);
    found.ok_or_else(|| match number {
        Some(number) => {
            format!("there is no cuda:{number}; `vidfit doctor` lists the cards there are")
        }
        None => "no card of this machine can be used".into(),
    })
}

/// The card of this number, or the one with the most room, to plan for.
///
/// # Errors
/// Bad input if there is none.
pub fn target(number: Option<u32>) -> Result<Target, Failure> {
    find(number).map(|card| target_of(&card)).map_err(Failure::input)
}

/// A card as its driver describes it, with the rates of its entry in the catalogue. One that is not
/// in there is taken for the slowest of its size, and its times for a guess.
fn target_of(card: &Installed) -> Target {
    let (gpu, certainty) = entry(card);
    let target = Target::of_card(gpu);
    Target {
        name: card.name.clone(),
        certainty,
        free_bytes: card.free_bytes,
        overhead_bytes: card.overhead_bytes.unwrap_or(target.overhead_bytes),
        ..target
    }
}

/// What the catalogue has of a card, and how sure that is.
fn entry(card: &Installed) -> (&'static Gpu, Certainty) {
    let distance = |gpu: &&&Gpu| gpu.memory_bytes.abs_diff(card.memory_bytes);
    if let Some(gpu) = catalogue::matching(&card.name).iter().min_by_key(distance) {
        return (*gpu, Certainty::Catalogue);
    }
    let slower = |a: &&'static Gpu, b: &&'static Gpu| {
        distance(&a).cmp(&distance(&b)).then(a.tensor_flops.total_cmp(&b.tensor_flops))
    };
    let nearest = catalogue::all().iter().min_by(slower);
    (nearest.expect("the catalogue has cards"), Certainty::Guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_of_the_driver_is_found_by_its_name_and_its_size() {
        let mut card = Installed {
            number: 0,
            name: "NVIDIA GeForce RTX 3060".into(),
            memory_bytes: 0,
            free_bytes: 7 << 30,
            overhead_bytes: None,
        };
        for gigabytes in [8, 12] {
            card.memory_bytes = (gigabytes << 30) - (250 << 20);
            let target = target_of(&card);
            let gpu = catalogue::find(&format!("RTX 3060 {gigabytes}GB")).unwrap();
            assert_eq!(target.rates, Target::of_card(gpu).rates);
            assert_eq!(target.certainty, Certainty::Catalogue);
            assert_eq!(target.budget_bytes(), (7 << 30) - gpu.overhead_bytes);
        }
        card.overhead_bytes = Some(1 << 30);
        assert_eq!(target_of(&card).budget_bytes(), 6 << 30);
        card.name = "NVIDIA Model Unknown".into();
        assert_eq!(target_of(&card).certainty, Certainty::Guess);
    }
}
