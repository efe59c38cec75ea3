//! One writer for all forms.

use std::path::{Path, PathBuf};

use crate::gif::{self, GifWriter};
#[cfg(feature = "h264")]
use crate::mp4::{self, Mp4Writer};
use crate::png::PngFolder;
use crate::target::Target;
use crate::{Fps, MediaError, OutputKind};

/// Quality of an MP4, on the scale of x264's constant rate factor: 0 is best, 51 smallest.
///
/// OpenH264 has no finer quality than 12, so 0 to 11 give the same as 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Crf(u8);

impl Crf {
    /// A quality of `crf`.
    ///
    /// # Errors
    ///
    /// [`MediaError::BadCrf`] above 51.
    pub fn new(crf: u32) -> Result<Self, MediaError> {
        match u8::try_from(crf) {
            Ok(value) if value <= 51 => Ok(Self(value)),
            _ => Err(MediaError::BadCrf { crf }),
        }
    }

    /// The number, 0 to 51.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Crf {
    /// 18: hard to tell from the frames themselves.
    fn default() -> Self {
        Self(18)
    }
}

/// What a video is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoSettings {
    /// Width in pixels. Even for MP4.
    pub width: u32,
    /// Height in pixels. Even for MP4.
    pub height: u32,
    /// Frame rate. At most 50 for GIF; folders of PNGs have none.
    pub fps: Fps,
    /// Quality of an MP4; the other forms have none.
    pub crf: Crf,
}

impl VideoSettings {
    /// Settings for a video of `width` x `height` pixels at the default quality.
    pub fn new(width: u32, height: u32, fps: Fps) -> Self {
        Self { width, height, fps, crf: Crf::default() }
    }

    /// Checks that the form that `path` names can hold such a video. Like
    /// [`check_target`](crate::check_target), this belongs before any heavy work.
    ///
    /// # Errors
    ///
    /// [`MediaError::Unsupported`] says what the form wants instead;
    /// [`MediaError::UnknownExtension`] and [`MediaError::NoName`] if `path` names no form.
    pub fn check(&self, path: &Path) -> Result<(), MediaError> {
        let reason = if self.width == 0 || self.height == 0 {
            Some("a frame needs at least one pixel".into())
        } else {
            match OutputKind::from_path(path)? {
                #[cfg(feature = "h264")]
                OutputKind::Mp4 => mp4::unsupported(self),
                #[cfg(not(feature = "h264"))]
                OutputKind::Mp4 => return Err(MediaError::H264Off { path: path.to_path_buf() }),
                OutputKind::Gif => gif::unsupported(self),
                OutputKind::PngFolder => None,
            }
        };
        match reason {
            None => Ok(()),
            Some(reason) => Err(MediaError::Unsupported {
                path: path.to_path_buf(),
                width: self.width,
                height: self.height,
                fps: self.fps.as_f64(),
                reason,
            }),
        }
    }
}

/// What [`VideoWriter::finish`] has put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The output, as it was named.
    pub path: PathBuf,
    /// Its form.
    pub kind: OutputKind,
    /// How many frames it holds.
    pub frames: u64,
    /// Its size in bytes; of a folder, that of its files.
    pub bytes: u64,
}

/// Writes a video frame by frame. Nothing is at the output's name before [`finish`](Self::finish);
/// dropped without it, the writer removes what it began and an older output stays as it was.
pub struct VideoWriter {
    sink: Sink,
    path: PathBuf,
    kind: OutputKind,
    settings: VideoSettings,
    frames: u64,
}

enum Sink {
    #[cfg(feature = "h264")]
    Mp4(Box<Mp4Writer>),
    Gif(Box<GifWriter>),
    Png(Box<PngFolder>),
    /// A write failed. What had been begun is gone, and with it the room it took.
    GivenUp,
}

impl VideoWriter {
    /// Begins the output `path`, in the form that its name says.
    ///
    /// # Errors
    ///
    /// Those of [`VideoSettings::check`]; what [`check_target`](crate::check_target) finds, short
    /// of the free room; [`MediaError::Io`] and [`MediaError::DiskFull`].
    pub fn create(path: &Path, settings: VideoSettings) -> Result<Self, MediaError> {
        let target = Target::resolve(path)?;
        settings.check(path)?;
        let kind = target.kind;
        let sink = match kind {
            #[cfg(feature = "h264")]
            OutputKind::Mp4 => Sink::Mp4(Box::new(Mp4Writer::create(target, &settings)?)),
            #[cfg(not(feature = "h264"))]
            OutputKind::Mp4 => return Err(MediaError::H264Off { path: path.to_path_buf() }),
            OutputKind::Gif => Sink::Gif(Box::new(GifWriter::create(target, &settings)?)),
            OutputKind::PngFolder => Sink::Png(Box::new(PngFolder::create(target, &settings)?)),
        };
        Ok(Self { sink, path: path.to_path_buf(), kind, settings, frames: 0 })
    }

    /// Appends a frame: `rgb` holds rows of 8-bit R, G, B from the top left, without padding.
    ///
    /// # Errors
    ///
    /// [`MediaError::FrameSize`] if `rgb` is not width x height x 3 bytes long; the writer stays
    /// usable. After [`MediaError::DiskFull`], [`MediaError::Io`] or [`MediaError::Encoder`] it
    /// has removed what it began, and answers [`MediaError::GivenUp`].
    pub fn write_frame(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let VideoSettings { width, height, .. } = self.settings;
        let expected_bytes = (u64::from(width) * u64::from(height)).saturating_mul(3);
        if rgb.len() as u64 != expected_bytes {
            return Err(MediaError::FrameSize {
                frame: self.frames,
                got_bytes: rgb.len() as u64,
                expected_bytes,
                width,
                height,
            });
        }
        let result = match &mut self.sink {
            #[cfg(feature = "h264")]
            Sink::Mp4(mp4) => mp4.write_frame(rgb),
            Sink::Gif(gif) => gif.write_frame(rgb),
            Sink::Png(png) => png.write_frame(rgb),
            Sink::GivenUp => Err(MediaError::GivenUp { path: self.path.clone() }),
        };
        match result {
            Ok(()) => self.frames += 1,
            Err(_) => self.sink = Sink::GivenUp,
        }
        result
    }

    /// The form of the output.
    pub fn kind(&self) -> OutputKind {
        self.kind
    }

    /// How many frames have been written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Completes the video, waits until it is safely on the disk and puts it in place.
    ///
    /// # Errors
    ///
    /// [`MediaError::NoFrames`], [`MediaError::GivenUp`], [`MediaError::DiskFull`],
    /// [`MediaError::Io`]; for a folder of PNGs also [`MediaError::ForeignFiles`]. An older output
    /// is then still in place.
    pub fn finish(self) -> Result<Written, MediaError> {
        if self.frames == 0 && !matches!(self.sink, Sink::GivenUp) {
            return Err(MediaError::NoFrames { path: self.path });
        }
        let bytes = match self.sink {
            #[cfg(feature = "h264")]
            Sink::Mp4(mp4) => mp4.finish()?,
            Sink::Gif(gif) => gif.finish()?,
            Sink::Png(png) => png.finish()?,
            Sink::GivenUp => return Err(MediaError::GivenUp { path: self.path }),
        };
        Ok(Written { path: self.path, kind: self.kind, frames: self.frames, bytes })
    }
}
