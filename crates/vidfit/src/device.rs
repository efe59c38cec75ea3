//! The device that a user names, and what of it may be used.

pub mod cards;
mod choice;

pub use choice::{DeviceChoice, SimCard};

use crate::args::{Dtype, MachineArgs};
use crate::exit::Failure;
use crate::progress::Shown;
use crate::say::note;
use serde_json::json;
use std::sync::Arc;
use vidfit_cpu::{CpuDevice, SimDevice};
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::calibration;
use vidfit_engine::catalogue::{self, Gpu};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::host_memory::result_bytes;
use vidfit_engine::machine::available_ram_bytes;
use vidfit_engine::pipelines::Pipelines;
use vidfit_engine::placement::Parts;
use vidfit_engine::planner::{Certainty, Target};
use vidfit_engine::request::Job;
use vidfit_engine::settings::Settings;
use vidfit_tensor::rates::Class;
use vidfit_tensor::{DType, Device, Rates};

/// The card of this name, for arguments.
pub fn card(name: &str) -> Result<&'static Gpu, String> {
    catalogue::find(name).map_err(|error| error.to_string())
}

/// A device to run on.
pub struct Opened {
    /// It.
    pub device: Arc<dyn Device>,
    /// Its memory, if it has any of its own.
    pub memory_bytes: Option<u64>,
    /// Why it is none of this machine's cards, where one would have been taken.
    pub why: Option<String>,
    /// Whose weights stay on it between jobs.
    pub pipelines: Option<Pipelines>,
    kind: Kind,
}

/// What a device is, for plans.
enum Kind {
    /// The cores of this machine: so many threads.
    Processor(usize),
    /// A card that is not there, simulated on so many threads.
    Simulated(SimCard, usize),
    /// A card, as it was when it was opened.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "nothing opens one"))]
    Card(Box<Target>),
}

/// Opens the device that was named, and says so if the driver takes its time.
///
/// # Errors
/// Bad input if there is no such device, or not in this build; else why it cannot be used.
pub fn open(args: &MachineArgs, shown: Shown) -> Result<Opened, Failure> {
    check_threads(args.threads)?;
    match &args.device {
        DeviceChoice::Cpu => open_processor(args.threads, None),
        DeviceChoice::Sim(card) => Ok(Opened {
            device: Arc::new(SimDevice::new(card.config(args.threads))?),
            memory_bytes: Some(card.memory_bytes),
            why: None,
            pipelines: None,
            kind: Kind::Simulated(card.clone(), args.threads),
        }),
        DeviceChoice::Cuda(number) => cards::open(Some(*number), shown),
        DeviceChoice::Auto => match cards::open(None, shown) {
            Ok(card) => Ok(card),
            Err(Failure { message, .. }) => open_processor(args.threads, Some(message)),
        },
    }
}

fn open_processor(threads: usize, why: Option<String>) -> Result<Opened, Failure> {
    let device = Arc::new(CpuDevice::new(threads)?);
    Ok(Opened { device, memory_bytes: None, why, pipelines: None, kind: Kind::Processor(threads) })
}

impl Opened {
    /// What a run on it is planned for: what is free by now, or will be once weights go that stay
    /// between jobs, and no more RAM than is available, whatever `--ram` says.
    ///
    /// # Errors
    /// Bad input in the settings.
    pub fn target(&self, args: &MachineArgs) -> Result<Target, Failure> {
        let warm_bytes = self.pipelines.as_ref().map_or(0, Pipelines::warm_bytes);
        let target = match &self.kind {
            Kind::Processor(threads) => {
                let target = processor(*threads);
                Target { free_bytes: target.free_bytes.saturating_add(warm_bytes), ..target }
            }
            Kind::Simulated(card, threads) => simulated(card, *threads),
            Kind::Card(target) => {
                let free_bytes = self.device.free_bytes().unwrap_or(0);
                let free_bytes = free_bytes + warm_bytes + target.overhead_bytes;
                Target { free_bytes, ..(**target).clone() }
            }
        };
        let ram = args.ram.map(|ram| ram.min(ByteSize(available_ram_bytes().unwrap_or(u64::MAX))));
        allowed(target, &MachineArgs { ram, ..args.clone() })
    }

    /// Says why the cards of this machine are not used, if they might have been.
    pub fn announce(&self, shown: Shown) {
        if let Some(why) = &self.why {
            shown.say(&format!("computing on the CPU: {why}; `vidfit doctor` says more"));
            shown.event(json!({ "event": "no_card", "why": why }));
        }
    }
}

/// What a plan is made for: the card of the catalogue if one is named; else, if it is left open,
/// this machine's card, or its processor if it has none. `--ram` may be that of another machine.
pub fn planned_target(args: &MachineArgs, gpu: Option<&'static Gpu>) -> Result<Target, Failure> {
    check_threads(args.threads)?;
    let target = match (gpu, &args.device) {
        (Some(gpu), _) => Target::of_card(gpu),
        (None, DeviceChoice::Auto) => {
            cards::target(None).unwrap_or_else(|_| processor(args.threads))
        }
        (None, DeviceChoice::Cpu) => processor(args.threads),
        (None, DeviceChoice::Sim(card)) => simulated(card, args.threads),
        (None, DeviceChoice::Cuda(number)) => cards::target(Some(*number))?,
    };
    allowed(target, args)
}

/// The type that is asked for, or the one that suits the device.
pub fn dtype(choice: Dtype, checkpoint: &Checkpoint, target: &Target) -> DType {
    match choice {
        Dtype::Auto if target.profile.reads_host_memory => DType::F32,
        Dtype::Auto => checkpoint.variant.published_dtype(),
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
    }
}

/// Where a device computes much slower in a type than in one that would do as well, what to do.
pub fn slow_type(target: &Target, dtype: DType) -> Option<String> {
    let costs = target.rates.class(Class::Linear);
    let times = costs.bf16.seconds_per_flop / costs.f16.seconds_per_flop;
    (dtype == DType::BF16 && times > 2.0).then(|| {
        format!(
            "the tensor cores of {} do not multiply bf16: --dtype f16 computes up to {times:.0} times \
             as fast, with a slightly other picture",
            target.name
        )
    })
}

/// Takes the room of a run's results from the RAM that they lie in: from the device's memory, if
/// that is RAM; else what plans do not count, the tensors that are kept.
pub fn beside_results(
    target: Target,
    checkpoint: &Checkpoint,
    job: &Job,
    keeps_tensors: bool,
) -> Target {
    let results = result_bytes(checkpoint, job, keeps_tensors);
    if target.shares_ram {
        return Target { free_bytes: target.free_bytes.saturating_sub(results), ..target };
    }
    let kept = results - result_bytes(checkpoint, job, false);
    Target { ram_bytes: target.ram_bytes.map(|ram| ram.saturating_sub(kept)), ..target }
}

/// How fast this machine's processor is.
fn rates(threads: usize) -> (Rates, Certainty) {
    let mut warnings = Vec::new();
    let rates = calibration::rates(threads, &mut warnings);
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    rates
}

fn processor(threads: usize) -> Target {
    let (rates, certainty) = rates(threads);
    let ram_bytes = available_ram_bytes();
    Target {
        name: "the CPU".into(),
        profile: CpuDevice::profile_of(threads),
        rates,
        certainty,
        free_bytes: ram_bytes.unwrap_or(u64::MAX),
        overhead_bytes: 0,
        limit_bytes: None,
        buffer_bytes: 0,
        ram_bytes,
        shares_ram: true,
        warm: Parts::default(),
        warm_bytes: 0,
    }
}

/// A simulated card computes as fast as the processor that simulates it.
fn simulated(card: &SimCard, threads: usize) -> Target {
    Target {
        name: card.spelled.clone(),
        profile: SimDevice::profile_of(&card.config(threads)),
        free_bytes: card.memory_bytes,
        overhead_bytes: card.overhead_bytes,
        shares_ram: false,
        ..processor(threads)
    }
}

/// The target with what the user allows of it.
fn allowed(target: Target, args: &MachineArgs) -> Result<Target, Failure> {
    let bytes = |size: Option<ByteSize>| size.map(|ByteSize(bytes)| bytes);
    let ram_bytes = bytes(args.ram).or_else(available_ram_bytes);
    // What stands in the settings is for cards.
    let standing = match target.shares_ram {
        true => None,
        false => Settings::load().and_then(|settings| settings.read("vram_buffer"))?,
    };
    Ok(Target {
        free_bytes: match bytes(args.ram) {
            Some(ram) if target.shares_ram => ram,
            _ => target.free_bytes,
        },
        limit_bytes: bytes(args.vram_budget),
        buffer_bytes: bytes(args.buffer.or(standing)).unwrap_or(0),
        ram_bytes,
        ..target
    })
}

/// Many more threads than cores only wait for each other.
fn check_threads(threads: usize) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (8 * cores).clamp(16, CpuDevice::MAX_THREADS);
    if threads <= most {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{threads} threads are too many for a machine of {cores} cores: at most {most}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_tensor_cores_do_not_multiply_is_named() {
        let on =
            |card: &str, dtype| slow_type(&Target::of_card(catalogue::find(card).unwrap()), dtype);
        let what = on("Tesla T4", DType::BF16).unwrap();
        assert!(what.contains("of T4 do not") && what.contains("--dtype f16"), "{what}");
        assert_eq!(on("Tesla T4", DType::F16), None);
        assert_eq!(on("RTX 3060 12GB", DType::BF16), None);
        assert_eq!(slow_type(&processor(1), DType::BF16), None);
    }
}
