//! The device that a user names, and what of it may be used.

use crate::args::{Dtype, MachineArgs};
use crate::exit::Failure;
use crate::say::note;
use std::str::FromStr;
use std::sync::Arc;
use vidfit_cpu::{CpuDevice, SimConfig, SimDevice};
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::calibration;
use vidfit_engine::catalogue::{self, CatalogueError, Gpu};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::result_bytes;
use vidfit_engine::gpus::{GpuStatus, Gpus};
use vidfit_engine::machine::available_ram_bytes;
use vidfit_engine::placement::Parts;
use vidfit_engine::planner::{Certainty, Target};
use vidfit_engine::request::Job;
use vidfit_engine::settings::Settings;
use vidfit_tensor::{DType, Device, Rates};

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
    spelled: String,
    memory_bytes: u64,
    overhead_bytes: u64,
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

    fn config(&self, threads: usize) -> SimConfig {
        SimConfig {
            name: self.spelled.clone(),
            overhead_bytes: self.overhead_bytes,
            threads,
            ..SimConfig::new(self.memory_bytes)
        }
    }
}

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
}

/// Opens the device that was named.
///
/// # Errors
/// Bad input if there is no such device in this build.
pub fn open(args: &MachineArgs) -> Result<Opened, Failure> {
    check_threads(args.threads)?;
    match &args.device {
        DeviceChoice::Auto | DeviceChoice::Cpu => {
            Ok(Opened { device: Arc::new(CpuDevice::new(args.threads)?), memory_bytes: None })
        }
        DeviceChoice::Sim(card) => Ok(Opened {
            device: Arc::new(SimDevice::new(card.config(args.threads))?),
            memory_bytes: Some(card.memory_bytes),
        }),
        DeviceChoice::Cuda(_) => Err(Failure::input(
            "this build computes on the CPU and on simulated cards only; there is no CUDA device \
             in it yet. Leave --device away, or plan for the card with `vidfit plan`",
        )),
    }
}

/// What a run on the device that was named is planned for: no more RAM than is available now,
/// whatever `--ram` says.
pub fn target(args: &MachineArgs) -> Result<Target, Failure> {
    let ram = args.ram.map(|ram| ram.min(ByteSize(available_ram_bytes().unwrap_or(u64::MAX))));
    allowed(named(args)?, &MachineArgs { ram, ..args.clone() })
}

/// The device that was named, all of it.
fn named(args: &MachineArgs) -> Result<Target, Failure> {
    check_threads(args.threads)?;
    Ok(match &args.device {
        DeviceChoice::Auto | DeviceChoice::Cpu => processor(args.threads),
        DeviceChoice::Sim(card) => simulated(card, args.threads),
        DeviceChoice::Cuda(number) => installed(Some(*number))?,
    })
}

/// What a plan is made for: the card of the catalogue if one is named; else, if it is left open,
/// this machine's card, or its processor if it has none. `--ram` may be that of another machine.
pub fn planned_target(args: &MachineArgs, gpu: Option<&'static Gpu>) -> Result<Target, Failure> {
    match (gpu, &args.device) {
        (Some(gpu), _) => allowed(Target::of_card(gpu), args),
        (None, DeviceChoice::Auto) => match installed(None) {
            Ok(card) => allowed(card, args),
            Err(_) => allowed(named(args)?, args),
        },
        _ => allowed(named(args)?, args),
    }
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

/// The card of this machine with this number, or the one with the most room.
fn installed(number: Option<u32>) -> Result<Target, Failure> {
    let survey = Gpus::open().map_err(Failure::input)?.survey();
    let wanted = |gpu: &&GpuStatus| number.is_none_or(|number| gpu.index == number);
    let found = survey.gpus.iter().filter(wanted).max_by_key(|gpu| gpu.available_bytes);
    let Some(status) = found else {
        return Err(Failure::input(format!(
            "there is no card {} that answers; `vidfit status` lists those there are",
            number.unwrap_or_default()
        )));
    };
    Ok(of_status(status))
}

/// A card as its driver describes it, with the rates of its entry in the catalogue. One that is not
/// in there is taken for the slowest of its size, and its times for a guess.
fn of_status(status: &GpuStatus) -> Target {
    let distance = |gpu: &&&Gpu| gpu.memory_bytes.abs_diff(status.total_bytes);
    let named = catalogue::matching(&status.name);
    let (gpu, certainty) = match named.iter().min_by_key(distance) {
        Some(gpu) => (Some(*gpu), Certainty::Catalogue),
        None => {
            let nearest = catalogue::all().iter().min_by(|a, b| {
                let order = distance(&a).cmp(&distance(&b));
                order.then(a.tensor_flops.total_cmp(&b.tensor_flops))
            });
            (nearest, Certainty::Guess)
        }
    };
    let target = gpu.map_or_else(|| processor(0), Target::of_card);
    Target { name: status.name.clone(), certainty, free_bytes: status.available_bytes, ..target }
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

    #[test]
    fn a_card_of_the_driver_is_found_by_its_name_and_its_size() {
        let mut status = crate::snapshot::tests::gpu(0);
        status.name = "NVIDIA GeForce RTX 3060".into();
        for gigabytes in [8, 12] {
            status.total_bytes = (gigabytes << 30) - (250 << 20);
            status.available_bytes = 7 << 30;
            let target = of_status(&status);
            let gpu = catalogue::find(&format!("RTX 3060 {gigabytes}GB")).unwrap();
            assert_eq!(target.rates, Target::of_card(gpu).rates);
            assert_eq!(target.certainty, Certainty::Catalogue);
            assert_eq!(target.budget_bytes(), (7 << 30) - gpu.overhead_bytes);
        }
        status.name = "NVIDIA Model Unknown".into();
        assert_eq!(of_status(&status).certainty, Certainty::Guess);
    }
}
