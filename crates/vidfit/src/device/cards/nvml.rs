//! Cards to plan for, in a program that cannot compute on them: as NVML lists them.

use super::{Findings, Installed};
use crate::device::Opened;
use crate::exit::Failure;
use crate::progress::Shown;
use vidfit_engine::gpus::Gpus;

/// The cards that answer.
pub fn usable(_wanted: Option<u32>) -> Result<Vec<Installed>, String> {
    let survey = Gpus::open().map_err(|error| error.to_string())?.survey();
    let installed = survey.gpus.into_iter().map(|gpu| Installed {
        number: gpu.index,
        name: gpu.name,
        memory_bytes: gpu.total_bytes,
        free_bytes: gpu.available_bytes,
        overhead_bytes: None,
    });
    Ok(installed.collect())
}

const NO_CUDA: &str = "this build computes on the CPU and on simulated cards only: it was made without \
                       its feature `cuda`";

/// There is nothing to open.
///
/// # Errors
/// Always.
pub fn open(_number: Option<u32>, _shown: Shown) -> Result<Opened, Failure> {
    Err(Failure::input(format!(
        "{NO_CUDA}. Leave --device away, or plan for the card with `vidfit plan`"
    )))
}

/// There is nothing to look at.
pub fn examine(_opens: bool) -> Findings {
    let missing = vec![NO_CUDA.to_owned()];
    Findings {
        library: Err(NO_CUDA.to_owned()),
        cuda: None,
        missing,
        kernel_cache: None,
        cards: Vec::new(),
    }
}
