//! `vidfit bench card`: how fast a card is, what of that its jobs reach wherever their weights wait, and
//! whether the driver sees as much memory in use as was planned.

mod operations;
mod placements;
mod reference;

use crate::args::{Dtype, MachineArgs};
use crate::device::{DeviceChoice, Opened, open};
use crate::exit::Failure;
use crate::human::size;
use crate::model::downloaded;
use crate::say::line;
use placements::{Measured, Placement};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::{Offload, Target};
use vidfit_engine::request::{Job, Request, Start, TilingChoice};
use vidfit_engine::whole_file::write_whole;

/// `vidfit bench card`.
#[derive(clap::Args)]
pub struct CardArgs {
    /// The device.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// A published model by its short name, which is then taken with random weights that need no disk; or
    /// a folder, or an id that was downloaded.
    #[arg(long, value_name = "MODEL", default_value = "5b")]
    model: String,
    /// Frames of the video [default: the model's].
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Its height [default: the model's].
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,
    /// Its width [default: the model's].
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Denoising steps, of which the first is not timed.
    #[arg(long, value_name = "N", default_value_t = 4)]
    steps: usize,
    /// Budgets that the card is used with besides all of it.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "12GB,8GB,6GB")]
    budgets: Vec<ByteSize>,
    /// A Python that has torch and diffusers, to time the reference on the same card.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The script that times the reference.
    #[arg(long, value_name = "FILE", default_value = "bench/reference_card.py")]
    script: PathBuf,
    /// Also write everything to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// More than the driver's figure may be off the plan: a part of it.
const MOST_OFF: f64 = 0.02;

/// The driver gives memory in pages of this.
const PAGE_BYTES: u64 = 2 << 20;

/// Measures, and fails if something that vidfit promises does not hold.
pub fn run(args: &CardArgs) -> Result<(), Failure> {
    let checkpoint = model(&args.model)?;
    let request = args.request(&checkpoint);
    let (job, _) = Job::new(&checkpoint, &request)?;
    let machine = args.machine();
    let opened = open(&machine)?;
    let target = opened.target(&machine)?;
    tell_device(&opened, &target);

    let operations = operations::measure(&*opened.device, &checkpoint, &job);
    match &operations {
        Ok(operations) => line!("{}", operations::table(operations).text(false)),
        Err(why) => line!("Single operations at this size cannot be timed: {}\n", why.message),
    }
    let mut measured = Vec::new();
    for placement in args.placements(&target) {
        let row = placements::measure(&placement, &checkpoint, &request, &opened, &target)?;
        measured.push((placement, row));
    }
    line!("{}", placements::table(&job, &measured).text(false));
    let reference = match &args.python {
        Some(python) => Some(reference::measure(python, &args.script, &checkpoint, &job)?),
        None => None,
    };
    if let Some(reference) = &reference {
        line!("{}", reference::table(reference, &measured).text(false));
    }
    if let Some(path) = &args.json {
        let all = json!({
            "device": target.name, "overhead_bytes": target.overhead_bytes, "model": args.model,
            "operations": operations.ok(), "reference": reference,
            "placements": measured.iter().map(|(placement, row)| json!({
                "placement": placement.name, "measured": row,
            })).collect::<Vec<_>>(),
        });
        let write = |file: &mut File| file.write_all(all.to_string().as_bytes());
        write_whole(path, write)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
    }
    let broken = broken_promises(&measured);
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Failure::other(format!("this does not hold: {}", broken.join("; ")))),
    }
}

/// A published model with weights that are made up, or one that is there.
fn model(name: &str) -> Result<Checkpoint, Failure> {
    match Variant::named(name) {
        Some(variant) if !Path::new(name).is_dir() => Ok(Checkpoint::repeating(variant)),
        _ => Ok(downloaded(name)?.checkpoint),
    }
}

impl CardArgs {
    fn machine(&self) -> MachineArgs {
        MachineArgs {
            dtype: Dtype::Auto,
            device: self.device.clone(),
            threads: 0,
            vram_budget: None,
            buffer: Some(ByteSize(0)),
            ram: None,
            offload: Offload::Auto,
        }
    }

    fn request(&self, checkpoint: &Checkpoint) -> Request {
        Request {
            start: match checkpoint.variant.needs_image() {
                true => Start::Image,
                false => Start::Text,
            },
            frames: self.frames,
            height: self.height,
            width: self.width,
            steps: self.steps.max(2),
            dtype: checkpoint.variant.published_dtype(),
            tiling: TilingChoice::Auto,
            ..Request::new("A panda plays the guitar in a bamboo forest")
        }
    }

    /// All of the card in every way, then its parts.
    fn placements(&self, target: &Target) -> Vec<Placement> {
        let whole = target.budget_bytes() + target.overhead_bytes;
        let named = |name: &str, offload, limit_bytes| Placement {
            name: name.to_owned(),
            offload,
            limit_bytes,
        };
        let mut all = vec![
            named("none", Offload::None, None),
            named("model", Offload::Model, None),
            named("auto", Offload::Auto, None),
        ];
        for &ByteSize(bytes) in self.budgets.iter().filter(|budget| budget.0 < whole) {
            all.push(named(&format!("auto, {}", size(bytes)), Offload::Auto, Some(bytes)));
        }
        all.push(named("sequential", Offload::Sequential, None));
        all
    }
}

fn tell_device(opened: &Opened, target: &Target) {
    if let Some(why) = &opened.why {
        line!("computing on the CPU: {why}");
    }
    line!(
        "{}: {} may be reserved; the driver, its context and the kernels take {} besides\n",
        target.name,
        size(target.budget_bytes()),
        size(target.overhead_bytes)
    );
}

/// What vidfit promises and these measurements deny.
fn broken_promises(measured: &[(Placement, Measured)]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut digest = None;
    for (placement, row) in measured {
        let Measured::Made(made) = row else { continue };
        let name = &placement.name;
        if made.arena_peak_bytes != made.planned_arena_bytes {
            broken.push(format!("{name}: the arena's peak is not the planned one"));
        }
        if let Some(used) = &made.driver {
            if used.most_bytes != used.least_bytes {
                broken.push(format!("{name}: the driver's free memory moves while the job runs"));
            }
            let off = used.most_bytes.abs_diff(made.planned_bytes);
            if off > PAGE_BYTES.max((made.planned_bytes as f64 * MOST_OFF) as u64) {
                broken.push(format!("{name}: the driver sees {off} bytes more or less in use"));
            }
        }
        // Tiles are another picture.
        if !made.is_tiled && *digest.get_or_insert(made.digest) != made.digest {
            broken.push(format!("{name}: the placement changes the bits"));
        }
    }
    broken
}
