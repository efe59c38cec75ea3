//! From the image or the video that is named on the command line to the pixels of a job.

use crate::args::InputArgs;
use crate::exit::Failure;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pixels::Pixels;
use vidfit_engine::request::{FrameCounts, Job, MOST_FRAMES, Request};
use vidfit_media::{InputError, Picture, Resize, VideoSource, picture_size, read_picture};

/// What a video starts from: looked at, and not yet decoded.
pub struct Input {
    source: Source,
    resize: Resize,
}

enum Source {
    Image(PathBuf),
    Video(VideoSource),
}

impl Input {
    /// What the arguments name, if they name anything.
    ///
    /// # Errors
    /// Bad input if it is not there, or not what it is said to be.
    pub fn open(args: &InputArgs) -> Result<Option<Input>, Failure> {
        if let Some(problem) = args.problem() {
            return Err(Failure::input(problem));
        }
        let source = match (args.image(), args.video()) {
            (Some(image), _) => {
                picture_size(image).map_err(Failure::input)?;
                Source::Image(image.to_owned())
            }
            (None, Some(video)) => Source::Video(VideoSource::open(video).map_err(Failure::input)?),
            (None, None) => return Ok(None),
        };
        Ok(Some(Input { source, resize: args.resize.into() }))
    }

    /// The file or the folder, as it was named.
    pub fn path(&self) -> &Path {
        match &self.source {
            Source::Image(path) => path,
            Source::Video(video) => video.path(),
        }
    }

    /// Settles how many frames of a video are made: as many as there are at the model's rate, and at
    /// most as many as are asked for, of the numbers that the model takes. Says so if it is fewer.
    ///
    /// # Errors
    /// Bad input if there are too few.
    pub fn settle_frames(
        &self,
        checkpoint: &Checkpoint,
        request: &mut Request,
    ) -> Result<Option<String>, Failure> {
        let Source::Video(video) = &self.source else { return Ok(None) };
        let counts = FrameCounts::of(checkpoint, request.start);
        let fps = checkpoint.variant.fps();
        let there = video.pick(fps, MOST_FRAMES).len();
        let asked = request.frames;
        let most = asked.unwrap_or(checkpoint.transformer.config.sample_frames);
        let frames = counts.at_most(most.min(there));
        // A still is no video, unless it is asked for.
        let is_still = frames == 1 && asked != Some(1);
        if frames > there || frames > most || is_still {
            let least = if is_still { counts.nth(1) } else { counts.first };
            return Err(Failure::input(format!(
                "{} has too few frames, {there} at {fps} per second, where {} starts from {least} at \
                 least: take a longer video. (--frames 1 makes 1 frame of it)",
                self.path().display(),
                checkpoint.name(),
            )));
        }
        request.frames = Some(frames);
        Ok(asked.filter(|&asked| asked > frames).map(|asked| {
            format!(
                "{frames} frames are made, not {asked}: {} has {there} at {fps} per second",
                self.path().display()
            )
        }))
    }

    /// Whether there is enough of it for another model, which may have another rate, to take the place
    /// of the one that `request` is for.
    pub fn suffices(&self, checkpoint: &Checkpoint, request: &Request) -> bool {
        let Source::Video(video) = &self.source else { return true };
        let counts = FrameCounts::of(checkpoint, request.start);
        let wanted = counts.at_most(request.frames.unwrap_or(MOST_FRAMES));
        wanted <= video.pick(checkpoint.variant.fps(), MOST_FRAMES).len()
    }

    /// The pixels that `job` starts from: of its size, and as many frames of a video as it has,
    /// picked at the model's rate.
    ///
    /// # Errors
    /// Bad input if they cannot be decoded, or are too few; and if the user stops it.
    pub fn read(
        &self,
        checkpoint: &Checkpoint,
        job: &Job,
        stop: &AtomicBool,
    ) -> Result<Pixels, Failure> {
        let size = |pixels: usize| u32::try_from(pixels).map_err(Failure::input);
        let (width, height) = (size(job.width)?, size(job.height)?);
        let pictures = match &self.source {
            Source::Image(path) => {
                let picture = read_picture(path).map_err(Failure::input)?;
                vec![picture.resized(width, height, self.resize)]
            }
            Source::Video(video) => {
                let picked = video.pick(checkpoint.variant.fps(), job.given_frames);
                let read = video.read_until(&picked, width, height, self.resize, stop);
                read.map_err(|error| match error {
                    InputError::Interrupted { .. } => Failure::interrupted(),
                    error => Failure::input(error),
                })?
            }
        };
        let frames = pictures.into_iter().map(|Picture { rgb, .. }| Arc::from(rgb)).collect();
        let pixels = Pixels::new(job.height, job.width, frames)?;
        job.check_pixels(Some(&pixels))?;
        Ok(pixels)
    }
}
