//! `vidfit generate`.

use crate::args::{DeviceChoice, Dtype, GenerateArgs};
use crate::exit::Failure;
use crate::human::{duration, size};
use crate::interrupt;
use crate::progress::{Shown, listener};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use vidfit_cpu::CpuDevice;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{
    Generated, Prepared, RunOptions, kept_bytes, prepare, result_bytes, run as run_job,
};
use vidfit_engine::hub::{HubConfig, resolve};
use vidfit_engine::machine::available_ram_bytes;
use vidfit_engine::request::{Job, Request};
use vidfit_engine::safetensors::{StoredDtype, write_safetensors};
use vidfit_media::{
    Crf, Fps, OutputKind, VideoSettings, VideoWriter, Written, check_file, check_target,
    estimate_bytes,
};
use vidfit_tensor::{DType, Device};

const NO_MODEL: &str = "\
no model was given. Download one and name it:
    vidfit models pull zai-org/CogVideoX-2b      (13 GB, the smallest)
    vidfit generate \"A panda plays the guitar\" --model zai-org/CogVideoX-2b
or give a folder in the diffusers layout with --model DIR";

/// More than the header of the file of `--save-tensors` takes.
const HEADER_BYTES: u64 = 4096;

/// Makes a video. A script that reads JSON is told of a failure there, too.
pub fn run(args: GenerateArgs) -> Result<(), Failure> {
    let shown = Shown::from(args.progress);
    make(args, shown).inspect_err(|failure| {
        shown.event(json!({ "event": "error", "code": failure.code, "message": failure.message }));
    })
}

fn make(args: GenerateArgs, shown: Shown) -> Result<(), Failure> {
    let stop = interrupt::watch()?;
    let began = Instant::now();
    let Some(prompt) = args.prompt.as_ref().or(args.prompt_flag.as_ref()) else {
        return Err(Failure::input(
            "no prompt was given: say what the video shows, as in vidfit generate \"A panda\"",
        ));
    };
    let Some(model) = &args.model else { return Err(Failure::input(NO_MODEL)) };
    let location = resolve(model, &HubConfig::from_env())?;
    let checkpoint = Checkpoint::open(&location.dir)?;

    check_threads(args.threads)?;
    let (DeviceChoice::Auto | DeviceChoice::Cpu) = args.device;
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(args.threads)?);
    let request = request(&args, prompt);
    let (job, _) = Job::new(&checkpoint, &request)?;
    // On the CPU, results and arena share the same memory.
    let results = result_bytes(&checkpoint, &job, args.save_tensors.is_some());
    let capacity_bytes =
        available_ram_bytes().map_or(u64::MAX, |available| available.saturating_sub(results));
    // Sizes, memory and paths are checked before any work.
    let prepared = prepare(&checkpoint, &request, &*device, capacity_bytes)?;
    let output = Output::new(&args, &checkpoint, &prepared.job)?;
    prepared.warnings.iter().for_each(|warning| shown.warn(warning));
    announce(shown, &checkpoint, &prepared, &output);

    let options = RunOptions {
        stop: &stop,
        listener: listener(shown),
        keep_tensors: args.save_tensors.is_some(),
        capacity_bytes,
        poison: false,
        state: None,
        replan: None,
    };
    let generated = run_job(&checkpoint, &prepared, &device, options)?;
    // The video first: whatever happens to the tensors, it is not lost.
    let written = output.write(&generated, &stop)?;
    if let Some(path) = &args.save_tensors {
        save_tensors(path, &prepared.job, &generated)?;
    }
    let took = began.elapsed();
    shown.say(&format!(
        "{} ({} frames, {}) after {}",
        written.path.display(),
        written.frames,
        size(written.bytes),
        duration(took)
    ));
    shown.event(json!({
        "event": "done",
        "output": written.path,
        "frames": written.frames,
        "bytes": written.bytes,
        "seconds": took.as_secs_f64(),
        "planned_peak_bytes": prepared.plan.layout.peak_bytes,
        "measured_peak_bytes": generated.measured.peak_bytes,
    }));
    Ok(())
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

fn request(args: &GenerateArgs, prompt: &str) -> Request {
    Request {
        negative_prompt: args.negative_prompt.clone(),
        frames: args.frames,
        height: args.height,
        width: args.width,
        steps: args.steps,
        guidance: args.guidance,
        dynamic_guidance: args.dynamic_cfg,
        seed: args.seed,
        scheduler: args.scheduler.kind(),
        dtype: match args.dtype {
            Dtype::Auto | Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        },
        tiling: args.vae_tiling.into(),
        tile_height: args.tile_height,
        tile_width: args.tile_width,
        ..Request::new(prompt)
    }
}

/// Says what is going to happen, and what it takes.
fn announce(shown: Shown, checkpoint: &Checkpoint, prepared: &Prepared, output: &Output) {
    let Prepared { job, plan, .. } = prepared;
    shown.say(&format!(
        "{}: {} frames of {}×{} at {} per second, {} steps in {} on the CPU",
        checkpoint.variant,
        job.frames,
        job.width,
        job.height,
        output.settings.fps,
        job.steps.len(),
        job.dtype,
    ));
    let phases: Vec<String> = plan
        .layout
        .phases
        .iter()
        .map(|phase| format!("{} {}", phase.name, size(phase.peak_bytes)))
        .collect();
    shown.say(&format!(
        "memory: {}, reserved once ({}), besides the weights' memory map",
        size(plan.device_bytes()),
        phases.join(", ")
    ));
    shown.event(json!({
        "event": "planned",
        "frames": job.frames,
        "width": job.width,
        "height": job.height,
        "steps": job.steps.len(),
        "dtype": job.dtype,
        "tiled": job.tiling.is_some(),
        "peak_bytes": plan.layout.peak_bytes,
        "scratch_bytes": plan.scratch_bytes,
    }));
}

/// Where the video goes.
struct Output {
    path: PathBuf,
    settings: VideoSettings,
}

impl Output {
    /// Checks that the video, and the tensors if any, can be written, before there is anything to
    /// write.
    fn new(args: &GenerateArgs, checkpoint: &Checkpoint, job: &Job) -> Result<Output, Failure> {
        let path = args.output.clone().unwrap_or_else(free_name);
        let fps = Fps::new(args.fps.unwrap_or(checkpoint.variant.fps())).map_err(Failure::input)?;
        let size = |pixels: usize| u32::try_from(pixels).map_err(Failure::input);
        let mut settings = VideoSettings::new(size(job.width)?, size(job.height)?, fps);
        settings.crf = Crf::new(args.crf).map_err(Failure::input)?;
        settings.check(&path).map_err(Failure::input)?;
        let kind = OutputKind::from_path(&path).map_err(Failure::input)?;
        let mut bytes = estimate_bytes(kind, settings.width, settings.height, job.frames as u64);
        if let Some(tensors) = &args.save_tensors {
            if absolute(tensors) == absolute(&path) {
                let both = path.display();
                return Err(Failure::input(format!(
                    "{both} cannot be both the video and the tensors; name two files"
                )));
            }
            // As if both went to one disk.
            bytes += kept_bytes(checkpoint, job) + HEADER_BYTES;
            check_file(tensors, bytes).map_err(Failure::input)?;
        }
        check_target(&path, bytes).map_err(Failure::input)?;
        Ok(Output { path, settings })
    }

    fn write(&self, generated: &Generated, stop: &AtomicBool) -> Result<Written, Failure> {
        let mut writer = VideoWriter::create(&self.path, self.settings)?;
        for frame in &generated.frames {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::interrupted());
            }
            writer.write_frame(frame)?;
        }
        Ok(writer.finish()?)
    }
}

/// The path from the root, with links followed as far as there are any.
fn absolute(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    path.canonicalize().or(folder.map(|folder| folder.join(name))).unwrap_or(path.to_owned())
}

/// `output.mp4`, or the first of `output-2.mp4`, `output-3.mp4`, … that is free.
fn free_name() -> PathBuf {
    let names = std::iter::once("output.mp4".to_owned())
        .chain((2..).map(|number| format!("output-{number}.mp4")));
    let mut free = names.map(PathBuf::from).filter(|path| !path.exists());
    free.next().unwrap_or_default()
}

/// Writes what `--save-tensors` promises.
fn save_tensors(path: &Path, job: &Job, generated: &Generated) -> Result<(), Failure> {
    let Some(kept) = &generated.tensors else { return Ok(()) };
    let Some(prompt) = job.prompts.last() else { return Ok(()) };
    let bytes =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let ids: Vec<u8> = prompt.iter().flat_map(|&id| (id as i64).to_le_bytes()).collect();
    let tokens = prompt.len();
    let (embeds, latents, frames) =
        (bytes(&kept.prompt_embeds), bytes(&kept.latents), bytes(&kept.frames));
    let latent_shape = [1, job.latent_frames, job.channels, job.latent_height, job.latent_width];
    let embeds_shape = [1, tokens, kept.prompt_embeds.len() / tokens];
    let frames_shape = [job.frames, job.height, job.width, 3];
    write_safetensors(
        path,
        &[
            ("input_ids", StoredDtype::I64, &[1, tokens], &ids),
            ("prompt_embeds", StoredDtype::F32, &embeds_shape, &embeds),
            ("latents", StoredDtype::F32, &latent_shape, &latents),
            ("frames", StoredDtype::F32, &frames_shape, &frames),
        ],
    )?;
    Ok(())
}
