//! `vidfit bench card`: how fast a card is, what of that its jobs reach wherever their weights wait, and
//! whether the driver sees as much memory in use as was planned.

mod operations;
mod placements;
mod reference;

use crate::args::{Dtype, MachineArgs};
use crate::device::{DeviceChoice, open};
use crate::exit::Failure;
use crate::human::size;
use crate::model::downloaded;
use crate::progress::Shown;
use crate::say::line;
use placements::{Measured, Placement};
use serde_json::{Value, json};
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
    /// Where weights wait, with all of the card.
    #[arg(
        long,
        value_name = "HOW",
        value_delimiter = ',',
        default_value = "none,model,auto,sequential"
    )]
    placements: Vec<Offload>,
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

/// Measures, and fails if something that vidfit promises does not hold. What is measured is told and written
/// as it comes, so that who is interrupted has it.
pub fn run(args: &CardArgs) -> Result<(), Failure> {
    let checkpoint = model(&args.model)?;
    let request = args.request(&checkpoint);
    let (job, _) = Job::new(&checkpoint, &request)?;
    let machine = args.machine();
    let opened = open(&machine, Shown::Lines)?;
    if let Some(why) = &opened.why {
        return Err(Failure::input(format!(
            "there is no card to measure: {why}. `--device cpu` measures the processor, with hours for a \
             published model"
        )));
    }
    let target = opened.target(&machine)?;
    tell_device(&target);
    let mut written = json!({
        "device": target.name, "overhead_bytes": target.overhead_bytes, "model": args.model,
        "placements": [],
    });

    let operations = operations::measure(&*opened.device, &checkpoint, &job);
    match &operations {
        Ok(operations) => {
            line!("{}", operations::table(operations).text(false));
            written["operations"] = json!(operations);
        }
        Err(why) => line!("Single operations at this size cannot be timed: {}\n", why.message),
    }
    args.write(&written)?;
    let mut measured = Vec::new();
    for placement in args.placements(&target) {
        let row = placements::measure(&placement, &checkpoint, &request, &opened, &target)?;
        line!("{}", placements::in_words(&placement, &row));
        if let Some(list) = written["placements"].as_array_mut() {
            list.push(json!({ "placement": placement.name, "measured": row }));
        }
        args.write(&written)?;
        measured.push((placement, row));
    }
    line!("\n{}", placements::table(&job, &measured).text(false));
    let mut broken = broken_promises(&measured);
    if let Some(python) = &args.python {
        match reference::measure(python, &args.script, &checkpoint, &job) {
            Ok(reference) => {
                line!("{}", reference::table(&reference, &measured).text(false));
                written["reference"] = json!(reference);
                args.write(&written)?;
            }
            Err(why) => broken.push(format!("the reference could not be timed: {}", why.message)),
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(Failure::other(format!("this does not hold: {}", broken.join("; ")))),
    }
}

/// A published model with weights that are made up, or one that is there.
fn model(name: &str) -> Result<Checkpoint, Failure> {
    match Variant::named(name) {
        Some(variant) if !Path::new(name).is_dir() => Ok(Checkpoint::pooled(variant)),
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

    /// Writes what was measured so far, if that is wanted.
    fn write(&self, measured: &Value) -> Result<(), Failure> {
        let Some(path) = &self.json else { return Ok(()) };
        let write = |file: &mut File| file.write_all(measured.to_string().as_bytes());
        write_whole(path, write)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))
    }

    /// All of the card in the ways that are asked for, then its parts.
    fn placements(&self, target: &Target) -> Vec<Placement> {
        let whole = target.budget_bytes() + target.overhead_bytes;
        let named = |name: &str, offload, limit_bytes| Placement {
            name: name.to_owned(),
            offload,
            limit_bytes,
        };
        let with_all = self.placements.iter();
        let with_all = with_all.map(|offload| named(&offload.to_string(), *offload, None));
        let budgets = self.budgets.iter().map(|budget| budget.0).filter(|bytes| *bytes < whole);
        let within = |bytes| named(&format!("auto, {}", size(bytes)), Offload::Auto, Some(bytes));
        with_all.chain(budgets.map(within)).collect()
    }
}

fn tell_device(target: &Target) {
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
    if !measured.iter().any(|(_, row)| matches!(row, Measured::Made(_))) {
        broken.push("the video fits in no placement, so nothing was measured".to_owned());
    }
    for (placement, row) in measured {
        let Measured::Made(made) = row else { continue };
        let name = &placement.name;
        if made.arena_peak_bytes != made.planned_arena_bytes {
            broken.push(format!("{name}: the arena's peak is not the planned one"));
        }
        let used = made.driver.map(|used| used.check(made.planned_bytes));
        broken.extend(used.and_then(Result::err).map(|what| format!("{name}: {what}")));
        // Tiles are another picture.
        if !made.is_tiled && *digest.get_or_insert(made.digest) != made.digest {
            broken.push(format!("{name}: the placement changes the bits"));
        }
    }
    broken
}
