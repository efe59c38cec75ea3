//! What can go wrong on the way out, to what, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a video could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The output's extension is none of those we write.
    #[error(
        "cannot write '{}': .{extension} is not a known form. Name it *.mp4 for H.264 video, *.gif \
         for an animation, or end it with '/' for a folder of PNGs", path.display()
    )]
    UnknownExtension {
        /// The output as named.
        path: PathBuf,
        /// Its extension, without the dot.
        extension: String,
    },
    /// The output's name is empty, or a folder that has no parent.
    #[error("'{}' names no output: give a file such as video.mp4, or a folder such as frames/", path.display())]
    NoName {
        /// The output as named.
        path: PathBuf,
    },
    /// A frame that was kept is not as it was written.
    #[error("a frame that was kept cannot be used: {source}")]
    KeptFrame {
        /// What is wrong with which file.
        source: crate::InputError,
    },
    /// MP4 was asked of a build without an H.264 encoder.
    #[error(
        "cannot write '{}': this build has no H.264 encoder. Write a .gif or a folder of PNGs \
         instead, or build with the cargo feature `h264`", path.display()
    )]
    H264Off {
        /// The output as named.
        path: PathBuf,
    },
    /// The frame rate is not a number we can write.
    #[error(
        "a frame rate of {fps} is not possible: give a number above 0 and at most 240 frames a second"
    )]
    BadFps {
        /// Frames per second as asked for.
        fps: f64,
    },
    /// The quality is outside its scale.
    #[error(
        "a quality (crf) of {crf} is not possible: give 0 (best) to 51 (smallest), 18 is the default"
    )]
    BadCrf {
        /// Constant rate factor as asked for.
        crf: u32,
    },
    /// The form cannot hold frames of this size or rate.
    #[error("cannot write '{}' at {width}x{height}, {fps} frames a second: {reason}", path.display())]
    Unsupported {
        /// The output as named.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Frames per second.
        fps: f64,
        /// What the form wants instead.
        reason: String,
    },
    /// A frame's buffer is not width x height x 3 bytes long.
    #[error(
        "frame {frame} has {got_bytes} bytes, but a {width}x{height} RGB frame has {expected_bytes}"
    )]
    FrameSize {
        /// Which frame, counted from 0.
        frame: u64,
        /// Length of the buffer handed in, in bytes.
        got_bytes: u64,
        /// Length it should have had, in bytes.
        expected_bytes: u64,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The video was finished without any frame.
    #[error("'{}' was not written: it has no frames. Write at least one before finishing", path.display())]
    NoFrames {
        /// The output as named.
        path: PathBuf,
    },
    /// The folder that would hold the output does not exist.
    #[error("cannot write '{}': the folder '{}' does not exist. Make it with: mkdir -p '{}'",
        path.display(), folder.display(), folder.display())]
    NoFolder {
        /// The output as named.
        path: PathBuf,
        /// The folder that is missing.
        folder: PathBuf,
    },
    /// A file is where a folder is needed.
    #[error("cannot write '{}': '{}' is a file, not a folder. Choose another name, or move it away",
        path.display(), folder.display())]
    NotAFolder {
        /// The output as named.
        path: PathBuf,
        /// The file in the way.
        folder: PathBuf,
    },
    /// A folder is where the video file should go.
    #[error("cannot write '{}': it is a folder. Choose another name, or move it away", path.display())]
    IsAFolder {
        /// The output as named.
        path: PathBuf,
    },
    /// A device, a pipe or a socket is where the output should go.
    #[error("cannot write '{}': it is a device or a pipe, not a file. Choose another name", path.display())]
    NotAFile {
        /// The output as named.
        path: PathBuf,
    },
    /// The folder of PNGs already holds something that is not ours to replace.
    #[error(
        "will not replace the folder '{}': it holds '{found}', which is no frame_*.png of ours. \
         Choose another name, or empty the folder", path.display()
    )]
    ForeignFiles {
        /// The output as named.
        path: PathBuf,
        /// The first foreign entry found.
        found: String,
    },
    /// We may not write in the folder that would hold the output.
    #[error("cannot write in the folder '{}': {source}. Change its permissions, or choose another folder",
        folder.display())]
    NotWritable {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has less room than the output may need.
    #[error(
        "not enough room for '{}': it may need {}, the disk has {} free. Free some, or choose \
         another disk", path.display(), human_bytes(*needed_bytes), human_bytes(*free_bytes)
    )]
    NoRoom {
        /// The output as named.
        path: PathBuf,
        /// Most bytes the output may need while it is written.
        needed_bytes: u64,
        /// Bytes free to us.
        free_bytes: u64,
    },
    /// The disk, or the quota on it, filled up while writing.
    #[error(
        "the disk is full: {action} '{}' failed ({source}). What was begun has been removed; free \
         some room, or choose another disk", path.display()
    )]
    DiskFull {
        /// What we were doing, such as "writing".
        action: &'static str,
        /// The output as named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a file operation.
    #[error("{action} '{}' failed: {source}", path.display())]
    Io {
        /// What we were doing, such as "writing".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An encoder refused a frame.
    #[error("encoding frame {frame} of '{}' failed: {reason}. Another form (.gif, a folder of PNGs) may work",
        path.display())]
    Encoder {
        /// The output as named.
        path: PathBuf,
        /// Which frame, counted from 0.
        frame: u64,
        /// What the encoder said.
        reason: String,
    },
    /// The writer was used after one of its writes had failed.
    #[error("'{}' was given up after an earlier error; start it again", path.display())]
    GivenUp {
        /// The output as named.
        path: PathBuf,
    },
}

impl MediaError {
    /// Sorts a failed file operation: a full disk is named as such.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            // A file size limit (ulimit -f) is a quota by another name.
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::DiskFull { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

/// Bytes as people read them: GB = 2^30 bytes with one decimal, smaller units below.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GB", 30), ("MB", 20), ("kB", 10)];
    for (unit, shift) in UNITS {
        if bytes >= 1 << shift {
            return format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disks_are_told_from_other_failures() {
        let full =
            [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
        for kind in full {
            let error = MediaError::io("writing", Path::new("a.mp4"), kind.into());
            assert!(matches!(error, MediaError::DiskFull { .. }), "{kind:?}");
            assert!(error.to_string().contains("a.mp4"), "{error}");
        }
        let denied = io::ErrorKind::PermissionDenied.into();
        let error = MediaError::io("writing", Path::new("a.mp4"), denied);
        assert!(matches!(error, MediaError::Io { .. }));
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(human_bytes(12), "12 bytes");
        assert_eq!(human_bytes(1536), "1.5 kB");
        assert_eq!(human_bytes(5 << 29), "2.5 GB");
    }
}
