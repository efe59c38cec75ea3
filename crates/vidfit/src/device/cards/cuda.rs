//! Cards behind the CUDA driver, to plan for and to run on.

use super::{
    Examined, Findings, Installed, KernelCache, OpenedCard, PackedKernel, find, target_of,
};
use crate::device::{Kind, Opened};
use crate::exit::Failure;
use crate::progress::Shown;
use crate::say::note;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use vidfit_cuda::{Card, Checkup, Compiling, Cuda, CudaDevice, Driver, check_up, free_bytes};
use vidfit_engine::folders::Folders;
use vidfit_engine::gpus::overhead::{CardUnderDriver, remember, remembered};
use vidfit_engine::planner::Target;
use vidfit_tensor::Device;

/// The cards that can be used. If none can, or the one that is wanted cannot, why.
pub fn usable(wanted: Option<u32>) -> Result<Vec<Installed>, String> {
    let found = check_up();
    if let Some(missing) = found.missing.first() {
        return Err(missing.clone());
    }
    let dir = Folders::from_env().state;
    let mut cards = Vec::new();
    let mut why = None;
    for (card, problem) in found.cards {
        match problem {
            Some(problem) if wanted.is_none_or(|number| number == card.index) => {
                why = Some(problem)
            }
            Some(_) => {}
            None => cards.push(Installed {
                number: card.index,
                free_bytes: free_bytes(&card).unwrap_or(card.memory_bytes),
                overhead_bytes: remembered(&dir, &under_driver(&card, found.cuda)),
                memory_bytes: card.memory_bytes,
                name: card.name,
            }),
        }
    }
    match why {
        Some(why) if wanted.is_some() || cards.is_empty() => Err(why),
        _ => Ok(cards),
    }
}

/// Opens the card of this number, or the one with the most room.
///
/// # Errors
/// Bad input if there is none, else whatever keeps it from being used.
pub fn open(number: Option<u32>, shown: Shown) -> Result<Opened, Failure> {
    let card = find(number).map_err(Failure::input)?;
    let driver = Cuda::open_telling(card.number, &|compiling| tell(compiling, shown))?;
    let overhead_bytes = measured_overhead(&driver);
    let device = CudaDevice::new(driver)?;
    let target = Target { profile: device.profile().clone(), overhead_bytes, ..target_of(&card) };
    Ok(Opened {
        device: Arc::new(device),
        memory_bytes: Some(card.memory_bytes),
        kind: Kind::Card(Box::new(target)),
        why: None,
        pipelines: None,
    })
}

/// Says that the driver compiles. In a server's worker it goes to the log as well: no client is told.
fn tell(compiling: &Compiling, shown: Shown) {
    match shown {
        Shown::Job(_) | Shown::Lines | Shown::Bars => note!("{compiling}"),
        Shown::Json | Shown::Nothing => {}
    }
    shown.event(json!({
        "event": "compiling",
        "card": compiling.card,
        "message": compiling.to_string(),
        "cache": compiling.cache.folder,
        "not_kept": compiling.cache.problem,
    }));
}

/// What an opened card's driver takes, as far as can be told from what others do; kept for plans.
fn measured_overhead(driver: &Cuda) -> u64 {
    let bytes = driver.overhead_bytes();
    // Without NVML the context is not in it.
    match bytes {
        0 => 0,
        _ => {
            let under_driver = under_driver(driver.card(), check_up().cuda);
            remember(&Folders::from_env().state, under_driver, bytes)
        }
    }
}

fn under_driver(card: &Card, cuda: Option<(u32, u32)>) -> CardUnderDriver {
    CardUnderDriver {
        card: card.name.clone(),
        memory_bytes: card.memory_bytes,
        cuda: cuda.unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Looks at the driver and the cards, and opens those that can be, if `opens`.
pub fn examine(opens: bool) -> Findings {
    let Checkup { library, cuda, cards, missing } = check_up();
    let opens = opens && missing.is_empty();
    let has_driver = library.is_ok();
    let examined = cards.into_iter().map(|(card, problem)| Examined {
        free_bytes: free_bytes(&card),
        opened: (opens && problem.is_none()).then(|| examine_opened(&card)),
        number: card.index,
        name: card.name,
        capability: card.capability,
        memory_bytes: card.memory_bytes,
        problem,
    });
    Findings {
        cards: examined.collect(),
        library: library.map(|path| path.map(|path| path.display().to_string())),
        cuda,
        missing,
        kernel_cache: has_driver.then(|| {
            let vidfit_cuda::KernelCache { folder, problem } = vidfit_cuda::KernelCache::find();
            KernelCache { folder, problem }
        }),
    }
}

fn examine_opened(card: &Card) -> Result<OpenedCard, String> {
    let began = Instant::now();
    // The answer is on standard output, so this goes beside it.
    let tell = |compiling: &Compiling| note!("{compiling}");
    let opened = Cuda::open_telling(card.index, &tell).map_err(|error| match error {
        vidfit_tensor::Error::Device { what, .. } => what,
        other => other.to_string(),
    })?;
    let packed = opened.kernels().iter().filter_map(|(name, kernel)| {
        let packing = kernel.packing?;
        Some(PackedKernel { name: name.clone(), wanted: packing.wanted, held: packing.held })
    });
    let mut packed: Vec<PackedKernel> = packed.collect();
    packed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(OpenedCard {
        kernels: opened.kernels().len(),
        packed,
        architecture: opened.architecture(),
        products: opened.products(),
        overhead_bytes: measured_overhead(&opened),
        seconds: began.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vidfit_engine::planner::target::{CARD_ALIGNMENT, CARD_SCRATCH_BYTES, STAGING_BYTES};

    #[test]
    fn plans_for_cards_know_what_the_device_takes() {
        let profile = CudaDevice::<Cuda>::profile_of("cuda:0");
        assert_eq!(profile.alignment, CARD_ALIGNMENT);
        assert_eq!(profile.scratch_bytes, CARD_SCRATCH_BYTES);
        assert_eq!(CudaDevice::<Cuda>::STAGING_BYTES, STAGING_BYTES);
    }
}
