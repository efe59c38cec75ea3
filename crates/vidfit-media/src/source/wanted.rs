//! The frames that are wanted of a video, made small as soon as they are there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::resize::Resize;
use crate::{InputError, Picture};

/// Where the frames go, as long as they are still wanted.
pub(crate) struct Wanted<'a> {
    path: &'a Path,
    /// Width and height in pixels that each frame gets.
    size: (u32, u32),
    resize: Resize,
    stop: &'a AtomicBool,
    frames: Vec<Picture>,
}

impl<'a> Wanted<'a> {
    /// None yet. `stop` ends the reading of `path`.
    pub(crate) fn new(
        path: &'a Path,
        size: (u32, u32),
        resize: Resize,
        stop: &'a AtomicBool,
    ) -> Self {
        Self { path, size, resize, stop, frames: Vec::new() }
    }

    /// Asked before each frame that is decoded, wanted or not: a long video can take minutes.
    pub(crate) fn go_on(&self) -> Result<(), InputError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(InputError::Interrupted { path: self.path.to_path_buf() }),
            false => Ok(()),
        }
    }

    /// The next frame, of the source's size.
    pub(crate) fn take(&mut self, frame: Picture) {
        let (width, height) = self.size;
        self.frames.push(frame.resized(width, height, self.resize));
    }

    pub(crate) fn into_frames(self) -> Vec<Picture> {
        self.frames
    }
}
