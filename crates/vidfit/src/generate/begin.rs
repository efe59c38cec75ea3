//! The beginning of a run: its directory, and what it is asked for.

use super::PlannedVideo;
use super::output::{Output, tensor_bytes};
use crate::args::GenerateArgs;
use crate::exit::Failure;
use crate::model::{Model, folder};
use crate::progress::Shown;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::host_memory::state_bytes;
use vidfit_engine::pixels::Pixels;
use vidfit_engine::planner::SavedPlan;
use vidfit_engine::request::Job;
use vidfit_engine::runs::{
    MachineRecord, RECORD_VERSION, Run, RunRecord, Runs, are_on_one_disk, check_room, settled,
};
use vidfit_media::OutputKind;

/// Says what the run is called.
pub fn name(shown: Shown, run: &Run) {
    shown.say(&format!("run {}", run.id()));
    shown.event(json!({ "event": "run", "id": run.id().as_str(), "folder": run.folder() }));
}

/// Makes the run's directory, once it is certain that all that will be written has room.
///
/// # Errors
/// Bad input if it has not.
pub fn begin(
    args: &GenerateArgs,
    video: &PlannedVideo,
    output: &Output,
    pixels: Option<&Pixels>,
) -> Result<Run, Failure> {
    let PlannedVideo { model: Model { checkpoint, spelled }, request, planned, .. } = video;
    let job = &planned.job;
    let runs = args.keep.folder.runs();
    let keeps = args.keep.keeps()?;
    check_all_room(&runs, checkpoint, job, output, keeps)?;
    let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let machine = &args.machine;
    let record = RunRecord {
        version: RECORD_VERSION,
        vidfit: env!("CARGO_PKG_VERSION").into(),
        began_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        model: spelled.clone(),
        model_folder: folder(checkpoint),
        model_identity: checkpoint.identity(),
        request: settled(request, job),
        steps: job.steps.len(),
        frames: job.frames,
        height: job.height,
        width: job.width,
        tiling: job.tiling,
        encode_tiling: job.encode_tiling,
        output: from_root(&output.path),
        output_is_named: args.output.output.is_some(),
        fps: output.settings.fps.as_f64(),
        crf: args.output.crf,
        save_tensors: output.tensors.as_deref().map(from_root),
        machine: MachineRecord {
            device: machine.device.to_string(),
            threads: machine.threads,
            vram_budget_bytes: bytes(machine.vram_budget),
            buffer_bytes: bytes(machine.buffer),
            ram_bytes: bytes(machine.ram),
            offload: planned.offload,
        },
        keeps,
        inputs: video.input.iter().map(|input| from_root(input.path())).collect(),
    };
    let plan = SavedPlan::of(checkpoint, spelled, request, planned);
    Ok(runs.begin(&record, &plan, pixels)?)
}

fn from_root(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or(path.to_owned())
}

/// More than request, plan, log and report of a run take.
const RECORD_BYTES: u64 = 4 << 20;

/// Checks that all that a run will write can be written: its video, its tensors, and what is kept of
/// it.
///
/// # Errors
/// Bad input if it cannot.
pub fn check_all_room(
    runs: &Runs,
    checkpoint: &Checkpoint,
    job: &Job,
    output: &Output,
    keeps: bool,
) -> Result<(), Failure> {
    let video_bytes = output.check(tensor_bytes(checkpoint, job))?;
    // While a state takes the place of another, both are there.
    let given_bytes = Pixels::bytes(job.given_frames, job.height, job.width);
    let mut run_bytes = RECORD_BYTES + given_bytes + 2 * state_bytes(checkpoint, job);
    if keeps {
        run_bytes += output.bytes_as(OutputKind::PngFolder);
        if !are_on_one_disk(runs.folder(), &output.path) {
            run_bytes += video_bytes;
        }
    }
    Ok(check_room(&[(runs.folder(), run_bytes), (&output.path, video_bytes)])?)
}
