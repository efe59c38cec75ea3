//! The files of a run.

use crate::args::OutputArgs;
use crate::exit::Failure;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::Generated;
use vidfit_engine::host_memory::kept_bytes;
use vidfit_engine::request::Job;
use vidfit_engine::runs::Run;
use vidfit_engine::safetensors::{StoredDtype, write_safetensors};
use vidfit_media::{
    Crf, Fps, KeptFrames, MediaError, OutputKind, VideoSettings, VideoWriter, Written, check_file,
    check_target, estimate_bytes,
};

/// More than the header of the file of `--save-tensors` takes.
const HEADER_BYTES: u64 = 4096;

/// Where the video goes.
pub struct Output {
    /// The file, or the folder.
    pub path: PathBuf,
    /// Whether it is to be there whatever was. If not, another name will do where it is taken by the
    /// time that the video is written.
    pub is_settled: bool,
    /// Its size and rate.
    pub settings: VideoSettings,
    /// Frames of it.
    pub frames: u64,
    /// Where intermediate results go, if they are wanted.
    pub tensors: Option<PathBuf>,
}

impl Output {
    /// Where the video of `job` goes, by the arguments.
    ///
    /// # Errors
    /// Bad input if it cannot be written in that form.
    pub fn new(args: &OutputArgs, checkpoint: &Checkpoint, job: &Job) -> Result<Output, Failure> {
        let path = args.output.clone().unwrap_or_else(|| free_name(Path::new("output.mp4")));
        let fps = args.fps.unwrap_or(checkpoint.variant.fps());
        let output = Output::of(path, (job.frames, job.height, job.width), fps, args.crf)?;
        let tensors = args.save_tensors.clone();
        Ok(Output { is_settled: args.output.is_some(), tensors, ..output })
    }

    /// A video of so many frames of a height and a width, at `path`.
    ///
    /// # Errors
    /// As [`Output::new`].
    pub fn of(
        path: PathBuf,
        (frames, height, width): (usize, usize, usize),
        fps: f64,
        crf: u32,
    ) -> Result<Output, Failure> {
        let fps = Fps::new(fps).map_err(Failure::input)?;
        let size = |pixels: usize| u32::try_from(pixels).map_err(Failure::input);
        let mut settings = VideoSettings::new(size(width)?, size(height)?, fps);
        settings.crf = Crf::new(crf).map_err(Failure::input)?;
        settings.check(&path).map_err(Failure::input)?;
        Ok(Output { path, is_settled: true, settings, frames: frames as u64, tensors: None })
    }

    /// Where the video of a run goes: to `path` if that is given, else where it was to go, unless
    /// that place was not named, and is taken by now by another video than this.
    ///
    /// # Errors
    /// As [`Output::new`].
    pub fn of_run(run: &Run, path: Option<&PathBuf>) -> Result<Output, Failure> {
        let record = run.record();
        let is_own = |path: &PathBuf| run.video().is_some_and(|video| are_one_file(&video, path));
        let (path, is_settled) = match path {
            Some(path) => (path.clone(), true),
            None if record.output_is_named => (record.output.clone(), true),
            None => match names_of(&record.output).take_while(|path| is_taken(path)).find(is_own) {
                Some(path) => (path, true),
                None => (free_name(&record.output), false),
            },
        };
        let size = (record.frames, record.height, record.width);
        let output = Output::of(path, size, record.fps, record.crf)?;
        Ok(Output { is_settled, tensors: record.save_tensors.clone(), ..output })
    }

    /// Checks that the video, and the tensors if any, which take so many bytes, can be written, before
    /// there is anything to write, and says how many bytes they may take.
    ///
    /// # Errors
    /// Bad input if they cannot.
    pub fn check(&self, tensor_bytes: u64) -> Result<u64, Failure> {
        let kind = OutputKind::from_path(&self.path).map_err(Failure::of_output)?;
        let mut bytes = self.bytes_as(kind);
        if let Some(path) = &self.tensors {
            // As if both went to one disk.
            bytes += tensor_bytes;
            check_file(path, bytes).map_err(Failure::of_output)?;
        }
        check_target(&self.path, bytes).map_err(Failure::of_output)?;
        Ok(bytes)
    }

    /// Bytes that the video may take in a form.
    pub fn bytes_as(&self, kind: OutputKind) -> u64 {
        estimate_bytes(kind, self.settings.width, self.settings.height, self.frames)
    }

    /// Writes the video, whole or not at all.
    ///
    /// # Errors
    /// If the system will not, or the user stops it.
    pub fn write(&self, frames: &[Vec<u8>], stop: &AtomicBool) -> Result<Written, Failure> {
        self.put(frames.iter().map(Ok), stop)
    }

    /// As [`Output::write`], of frames that were kept; or, in words, why one of those cannot be read.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_kept(
        &self,
        kept: &KeptFrames,
        stop: &AtomicBool,
    ) -> Result<Result<Written, String>, Failure> {
        let mut damage = None;
        let read = |frame| kept.frame(frame).inspect_err(|error| damage = Some(error.to_string()));
        let result = self.put((0..kept.len()).map(read), stop);
        match damage {
            Some(damage) => Ok(Err(damage)),
            None => result.map(Ok),
        }
    }

    /// Writes frames to a name that is settled, or to one that is free once they are all written.
    fn put<Frame: AsRef<[u8]>>(
        &self,
        frames: impl Iterator<Item = Result<Frame, MediaError>>,
        stop: &AtomicBool,
    ) -> Result<Written, Failure> {
        let is_folder = matches!(OutputKind::from_path(&self.path), Ok(OutputKind::PngFolder));
        if self.is_settled {
            return write(&self.path, self.settings, frames, stop);
        }
        if is_folder {
            return write(&free_name(&self.path), self.settings, frames, stop);
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = self.path.with_file_name(format!(".{}.{name}", std::process::id()));
        let written = write(&hidden, self.settings, frames, stop)?;
        let path = put_beside(&hidden, &self.path).inspect_err(|_| {
            let _ = fs::remove_file(&hidden);
        })?;
        Ok(Written { path, ..written })
    }

    /// Keeps the frames as a folder of PNGs.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn keep(
        &self,
        folder: &Path,
        frames: &[Vec<u8>],
        stop: &AtomicBool,
    ) -> Result<Written, Failure> {
        write(folder, self.settings, frames.iter().map(Ok), stop)
    }
}

/// Bytes of the file of `--save-tensors`.
pub fn tensor_bytes(checkpoint: &Checkpoint, job: &Job) -> u64 {
    kept_bytes(checkpoint, job) + HEADER_BYTES
}

fn write<Frame: AsRef<[u8]>>(
    path: &Path,
    settings: VideoSettings,
    frames: impl Iterator<Item = Result<Frame, MediaError>>,
    stop: &AtomicBool,
) -> Result<Written, Failure> {
    let mut writer = VideoWriter::create(path, settings)?;
    for frame in frames {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
        writer.write_frame(frame?.as_ref())?;
    }
    Ok(writer.finish()?)
}

/// Gives a file the first name like `path` that is free, and says which.
fn put_beside(hidden: &Path, path: &Path) -> Result<PathBuf, Failure> {
    loop {
        let free = free_name(path);
        // A link never takes the place of what somebody else has put there meanwhile.
        let is_linked = match fs::hard_link(hidden, &free) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            linked => linked.is_ok(),
        };
        // Not all disks know links.
        let settled = if is_linked { fs::remove_file(hidden) } else { fs::rename(hidden, &free) };
        return match settled {
            Ok(()) => Ok(free),
            Err(source) => Err(MediaError::Io { action: "naming", path: free, source }.into()),
        };
    }
}

/// Whether two names are of one file.
#[cfg(unix)]
pub fn are_one_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    file(one).is_some() && file(one) == file(other)
}

/// Elsewhere, whether they are spelled the same.
#[cfg(not(unix))]
pub fn are_one_file(one: &Path, other: &Path) -> bool {
    absolute(one) == absolute(other)
}

/// The path from the root, with links followed as far as there are any.
pub fn absolute(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    path.canonicalize().or(folder.map(|folder| folder.join(name))).unwrap_or(path.to_owned())
}

/// `path`, or the first of `NAME-2.mp4`, `NAME-3.mp4`, … that is free.
pub fn free_name(path: &Path) -> PathBuf {
    names_of(path).find(|path| !is_taken(path)).unwrap_or_default()
}

/// Whether there is something of that name.
fn is_taken(path: &Path) -> bool {
    // Without the final slash, which would hide a file of that name.
    path.components().collect::<PathBuf>().symlink_metadata().is_ok()
}

/// `path`, `NAME-2.mp4`, `NAME-3.mp4`, …
fn names_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    let plain: PathBuf = path.components().collect();
    let is_folder = matches!(OutputKind::from_path(path), Ok(OutputKind::PngFolder));
    let part =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let numbered = move |number: usize| match is_folder {
        // Whatever is behind a dot in it.
        true => plain.with_file_name(format!("{}-{number}/", part(plain.file_name()))),
        false => {
            let (stem, extension) = (part(plain.file_stem()), part(plain.extension()));
            plain.with_file_name(format!("{stem}-{number}.{extension}"))
        }
    };
    std::iter::once(path.to_owned()).chain((2..).map(numbered))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, expected) in [("v.mp4", "v-2.mp4"), ("v1.5/", "v1.5-2"), ("frames", "frames-2")]
        {
            assert_eq!(free_name(&path(name)), path(name));
            std::fs::create_dir(path(name)).unwrap();
            assert_eq!(free_name(&path(name)), path(expected));
            assert_eq!(
                OutputKind::from_path(&free_name(&path(name))).ok(),
                OutputKind::from_path(&path(name)).ok()
            );
        }
        std::fs::write(path("v-2.mp4"), "").unwrap();
        assert_eq!(free_name(&path("v.mp4")), path("v-3.mp4"));
    }
}
