//! Pictures and videos in, videos out, one frame at a time.
//!
//! # In
//!
//! [`read_picture`] reads a PNG, JPEG or WebP. [`VideoSource`] reads an MP4, a GIF, a folder of
//! pictures, and what a system's ffmpeg can read: opened, it tells its size, frames and times
//! without decoding any; then it gives the frames that are wanted, each made small at once. What
//! a file is, its content says. Sizes are believed within limits, before memory is taken.
//!
//! ```no_run
//! use std::path::Path;
//! use vidfit_media::{Resize, VideoSource};
//!
//! let video = VideoSource::open(Path::new("holiday.mp4"))?;
//! // What a model of 8 frames a second makes 49 frames of: about 6 seconds.
//! let picked = video.pick(8.0, 49);
//! let frames = video.read(&picked, 720, 480, Resize::Crop)?;
//! assert_eq!(frames[0].rgb.len(), 720 * 480 * 3);
//! # Ok::<(), vidfit_media::InputError>(())
//! ```
//!
//! # Out
//!
//! The output's name says its form ([`OutputKind`]). [`check_target`] finds out before any heavy
//! work whether the output can be written; [`VideoWriter`] then takes frames as 8-bit RGB rows
//! from the top left. Nothing appears at the output's name before [`VideoWriter::finish`]: a
//! writer that is dropped leaves no file behind and an older output unharmed.
//!
//! ```
//! use vidfit_media::{Fps, VideoSettings, VideoWriter};
//!
//! let folder = tempfile::tempdir()?;
//! let settings = VideoSettings::new(64, 48, Fps::new(8.0)?);
//! let mut video = VideoWriter::create(&folder.path().join("grey.gif"), settings)?;
//! for level in [0, 128, 255] {
//!     video.write_frame(&vec![level; 64 * 48 * 3])?;
//! }
//! assert_eq!(video.finish()?.frames, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # H.264 and its patents
//!
//! The cargo feature `h264` (on by default) builds Cisco's OpenH264 from its BSD-licensed source.
//! Cisco pays the H.264 patent royalties only for the binaries that Cisco itself distributes, not
//! for source builds like this one. Who distributes a build that includes the feature has to look
//! into licences of their own. Without it, writing `.mp4` is a clear error and reading one goes
//! through a system's ffmpeg; the other forms work.

mod atomic;
mod chunks;
#[cfg(feature = "h264")]
mod colour;
mod content;
mod error;
mod fps;
mod gif;
#[cfg(feature = "h264")]
mod h264;
mod input_error;
mod jpeg;
mod kept;
mod kind;
mod limits;
#[cfg(feature = "h264")]
mod mp4;
#[cfg(feature = "h264")]
mod mp4_boxes;
mod palette;
mod picture;
mod png;
mod resize;
mod source;
mod target;
mod writer;

pub use error::MediaError;
pub use fps::Fps;
pub use input_error::InputError;
pub use kept::KeptFrames;
pub use kind::{OutputKind, estimate_bytes};
pub use picture::{Picture, picture_size, read_picture};
pub use resize::Resize;
pub use source::{VideoSource, pick_frames};
pub use target::{check_file, check_target};
pub use writer::{Crf, VideoSettings, VideoWriter, Written};
