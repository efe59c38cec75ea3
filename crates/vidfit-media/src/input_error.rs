//! What can go wrong on the way in, to what, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::limits::{MAX_FRAMES, MAX_SIDE, MIN_SIDE};

/// Why a picture or a video could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// There is nothing of this name.
    #[error("there is no '{}'. Check the name; it is taken from the folder you are in", path.display())]
    NotFound {
        /// The input as named.
        path: PathBuf,
    },
    /// The system refused to read.
    #[error("{action} '{}' failed: {source}", path.display())]
    Io {
        /// What we were doing, such as "reading".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder is where a picture is wanted.
    #[error(
        "'{}' is a folder, not a picture. Name one PNG, JPEG or WebP file; a folder of frames is \
         given as a video, with --video", path.display()
    )]
    IsAFolder {
        /// The input as named.
        path: PathBuf,
    },
    /// A device, a pipe or a socket is where a file is wanted.
    #[error("cannot read '{}': it is a device or a pipe, not a file. Save it to a file first", path.display())]
    NotAFile {
        /// The input as named.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("'{}' is empty (0 bytes). Copy or download it again", path.display())]
    Empty {
        /// The input as named.
        path: PathBuf,
    },
    /// The content is no picture we know.
    #[error("'{}' is {found}, not a picture: give a PNG, JPEG or WebP file", path.display())]
    NotAPicture {
        /// The input as named.
        path: PathBuf,
        /// What it looks like instead, such as "text".
        found: &'static str,
    },
    /// The content is no video we know.
    #[error(
        "'{}' is {found}, not a video: give an MP4, a GIF, a folder of pictures, or what ffmpeg reads",
        path.display()
    )]
    NotAVideo {
        /// The input as named.
        path: PathBuf,
        /// What it looks like instead, such as "text".
        found: &'static str,
    },
    /// A video was given where a picture is wanted.
    #[error(
        "'{}' is a video ({form}), not a picture. Give it with --video, or give a PNG, JPEG or \
         WebP picture with --image", path.display()
    )]
    IsAVideo {
        /// The input as named.
        path: PathBuf,
        /// Its form, such as "MP4".
        form: &'static str,
    },
    /// A picture was given where a video is wanted.
    #[error(
        "'{}' is a single picture ({form}), not a video. Give it with --image; a folder of \
         pictures can be given with --video", path.display()
    )]
    IsAPicture {
        /// The input as named.
        path: PathBuf,
        /// Its form, such as "PNG".
        form: &'static str,
    },
    /// The header promises more pixels than we take memory for.
    #[error(
        "'{}' says it is {width}x{height} pixels: that is too large. Scale it down to at most \
         {MAX_SIDE} pixels a side and {} million pixels", path.display(), most_pixels / 1_000_000
    )]
    TooLarge {
        /// The input as named.
        path: PathBuf,
        /// Width in pixels, as the header says.
        width: u32,
        /// Height in pixels, as the header says.
        height: u32,
        /// Most pixels that such an input may have.
        most_pixels: u64,
    },
    /// There is next to nothing to see.
    #[error(
        "'{}' is only {width}x{height} pixels: the smallest that is of use has {MIN_SIDE} a side. \
         Give a larger one", path.display()
    )]
    TooSmall {
        /// The input as named.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The file is larger than anything of its kind.
    #[error("'{}' has {bytes} bytes, more than the {most_bytes} we read of such a file. Cut or scale it down", path.display())]
    FileTooLarge {
        /// The input as named.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The most we read, in bytes.
        most_bytes: u64,
    },
    /// The content breaks off or contradicts itself.
    #[error("'{}' is damaged: {reason}. Copy or download it again, or convert it anew", path.display())]
    Damaged {
        /// The input as named.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is sound, but of a kind that we don't read.
    #[error("cannot read '{}': {reason}", path.display())]
    Unsupported {
        /// The input as named.
        path: PathBuf,
        /// What it is, and what to convert it to.
        reason: String,
    },
    /// Only ffmpeg could read this, and it is not installed.
    #[error(
        "cannot read '{}': {what} is read through ffmpeg, which is not installed here. Install \
         ffmpeg (with ffprobe) so that it is found by its name, or convert the video to {convert_to}",
        path.display()
    )]
    NeedsFfmpeg {
        /// The input as named.
        path: PathBuf,
        /// What needs ffmpeg, such as "HEVC video".
        what: String,
        /// What we read without it.
        convert_to: &'static str,
    },
    /// ffmpeg could not read it either.
    #[error("ffmpeg could not read '{}': {said}", path.display())]
    Ffmpeg {
        /// The input as named.
        path: PathBuf,
        /// What ffmpeg said last.
        said: String,
    },
    /// ffmpeg stopped making progress and was ended.
    #[error(
        "ffmpeg was ended: it gave nothing of '{}' for {seconds} seconds. Convert the video to an \
         MP4 with H.264 first", path.display()
    )]
    FfmpegStalled {
        /// The input as named.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The folder holds no picture.
    #[error("the folder '{}' holds no picture: put frames into it as PNG, JPEG or WebP files", path.display())]
    NoPictures {
        /// The folder as named.
        path: PathBuf,
    },
    /// One picture of a folder is of another size than the first.
    #[error(
        "the pictures in '{}' are not all of one size: '{odd}' is {odd_width}x{odd_height}, but \
         '{first}' is {width}x{height}. Scale or remove the odd one", path.display()
    )]
    OddOne {
        /// The folder as named.
        path: PathBuf,
        /// Name of the first picture.
        first: String,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
        /// Name of the picture that differs.
        odd: String,
        /// Its width in pixels.
        odd_width: u32,
        /// Its height in pixels.
        odd_height: u32,
    },
    /// The video is sound, but empty.
    #[error("'{}' is a video without frames: there is nothing to begin from", path.display())]
    NoFrames {
        /// The input as named.
        path: PathBuf,
    },
    /// The video is longer than any we count the frames of.
    #[error("'{}' has more than {MAX_FRAMES} frames. Cut out the part you want", path.display())]
    TooManyFrames {
        /// The input as named.
        path: PathBuf,
    },
    /// The caller wanted no more of it.
    #[error("reading '{}' was interrupted", path.display())]
    Interrupted {
        /// The input as named.
        path: PathBuf,
    },
    /// A frame was asked for that the video does not have, or out of order.
    #[error("'{}' has {frames} frames: frame {index} cannot be read from it in this order", path.display())]
    NoSuchFrame {
        /// The input as named.
        path: PathBuf,
        /// Which frame was asked for, counted from 0.
        index: usize,
        /// How many there are.
        frames: usize,
    },
}

impl InputError {
    /// Sorts a failed file operation: a wrong name is named as such.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            // A file further up the path reports itself as "not a directory".
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound { path },
            io::ErrorKind::UnexpectedEof => {
                Self::Damaged { path, reason: "it ends too early".into() }
            }
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), reason: reason.into() }
    }
}
