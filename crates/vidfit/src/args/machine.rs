//! On what, and how much of it.

use super::choices::Dtype;
use crate::device::DeviceChoice;
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::planner::{Offload, Step};
use vidfit_engine::request::TilingChoice;

/// The device, and what of it may be used.
#[derive(clap::Args, Clone)]
pub struct MachineArgs {
    /// Type of the arithmetic; auto is f32 on the CPU, and on cards the type that the model was
    /// published for.
    #[arg(long, value_enum, default_value_t = Dtype::Auto, help_heading = "Machine")]
    pub dtype: Dtype,
    /// The device that computes: cpu, cuda:0, or a simulated card, which computes on the CPU but has the
    /// memory of a card: sim:8GB, or "sim:RTX 3060 12GB". auto is an NVIDIA card if one can be used, else
    /// the CPU; `vidfit doctor` says why.
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Machine")]
    pub device: DeviceChoice,
    /// Threads of the CPU; 0 is one for each core.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Machine")]
    pub threads: usize,

    /// Device memory that may be taken, such as 8GB or 7.5GB, the driver's share included. The
    /// smaller of it and what is free counts.
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub vram_budget: Option<ByteSize>,
    /// Device memory to leave to others [default: vram_buffer of the settings, or nothing].
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub buffer: Option<ByteSize>,
    /// RAM that may be taken [default: what is available]. Plans may be made for more than there is
    /// here; a run takes no more than is available.
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub ram: Option<ByteSize>,
    /// Where weights wait: auto is the fastest that fits; none keeps all components on the device;
    /// model one at a time; sequential streams everything, which takes the least; 40% keeps that
    /// share. None of them changes the picture.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Memory")]
    pub offload: Offload,
}

impl MachineArgs {
    /// The device of `machine`, and no more of it than may be used there; what is left open here is as
    /// it is there.
    pub fn on(&self, machine: &MachineArgs) -> MachineArgs {
        MachineArgs {
            dtype: if self.dtype == Dtype::Auto { machine.dtype } else { self.dtype },
            device: machine.device.clone(),
            threads: machine.threads,
            vram_budget: least(self.vram_budget, machine.vram_budget),
            buffer: self.buffer.max(machine.buffer),
            ram: least(self.ram, machine.ram),
            offload: if self.offload == Offload::Auto { machine.offload } else { self.offload },
        }
    }
}

/// The smaller of two limits, of those that there are.
pub fn least(one: Option<ByteSize>, other: Option<ByteSize>) -> Option<ByteSize> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What may change so that a job fits.
#[derive(clap::Args, Clone)]
pub struct FitArgs {
    /// If the job does not fit, change it until it does, and say what was changed.
    #[arg(long, help_heading = "Fitting")]
    pub fit: bool,
    /// What may change, in this order [default: tiling,frames,size,model; without tiling where
    /// --vae-tiling off forbids it].
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        requires = "fit",
        help_heading = "Fitting"
    )]
    pub fit_order: Vec<Step>,
    /// The model to take if the job does not fit with the other.
    #[arg(long, value_name = "DIR_OR_ID", help_heading = "Fitting")]
    pub fallback_model: Option<String>,
}

impl FitArgs {
    /// The kinds of changes that are allowed, in order. Tiles that were forbidden stay so, unless
    /// they are named here.
    pub fn order(&self, tiling: TilingChoice) -> Vec<Step> {
        let is_allowed = |step: &Step| *step != Step::Tiling || tiling != TilingChoice::Off;
        match (self.fit, &self.fallback_model) {
            (true, _) if !self.fit_order.is_empty() => self.fit_order.clone(),
            (true, _) => Step::ORDER.into_iter().filter(is_allowed).collect(),
            (false, Some(_)) => vec![Step::Model],
            (false, None) => Vec::new(),
        }
    }
}
