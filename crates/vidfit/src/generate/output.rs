//! The files of a run.

use crate::args::OutputArgs;
use crate::exit::Failure;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{Generated, kept_bytes};
use vidfit_engine::request::Job;
use vidfit_engine::safetensors::{StoredDtype, write_safetensors};
use vidfit_media::{
    Crf, Fps, OutputKind, VideoSettings, VideoWriter, Written, check_file, check_target,
    estimate_bytes,
};

/// More than the header of the file of `--save-tensors` takes.
const HEADER_BYTES: u64 = 4096;

/// Where the video goes.
pub struct Output {
    /// The file, or the folder.
    pub path: PathBuf,
    /// Its size and rate.
    pub settings: VideoSettings,
}

impl Output {
    /// Checks that the video, and the tensors if any, can be written, before there is anything to
    /// write.
    ///
    /// # Errors
    /// Bad input if they cannot.
    pub fn new(args: &OutputArgs, checkpoint: &Checkpoint, job: &Job) -> Result<Output, Failure> {
        let path = args.output.clone().unwrap_or_else(free_name);
        let fps = Fps::new(args.fps.unwrap_or(checkpoint.variant.fps())).map_err(Failure::input)?;
        let size = |pixels: usize| u32::try_from(pixels).map_err(Failure::input);
        let mut settings = VideoSettings::new(size(job.width)?, size(job.height)?, fps);
        settings.crf = Crf::new(args.crf).map_err(Failure::input)?;
        settings.check(&path).map_err(Failure::input)?;
        let kind = OutputKind::from_path(&path).map_err(Failure::input)?;
        let mut bytes = estimate_bytes(kind, settings.width, settings.height, job.frames as u64);
        if let Some(tensors) = &args.save_tensors {
            // As if both went to one disk.
            bytes += kept_bytes(checkpoint, job) + HEADER_BYTES;
            check_file(tensors, bytes).map_err(Failure::input)?;
        }
        check_target(&path, bytes).map_err(Failure::input)?;
        Ok(Output { path, settings })
    }

    /// Writes the video, whole or not at all.
    ///
    /// # Errors
    /// If the system will not, or the user stops it.
    pub fn write(&self, generated: &Generated, stop: &AtomicBool) -> Result<Written, Failure> {
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
pub(super) fn absolute(path: &Path) -> PathBuf {
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
///
/// # Errors
/// If the system will not.
pub fn save_tensors(path: &Path, job: &Job, generated: &Generated) -> Result<(), Failure> {
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
