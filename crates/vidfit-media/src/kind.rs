//! The form of an output, told from its name, and the room it needs.

use std::path::Path;

use crate::MediaError;

/// In which form a video is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// `*.mp4`: H.264 in yuv420p, ready to stream.
    Mp4,
    /// `*.gif`: an animation that loops forever, at most 50 frames a second.
    Gif,
    /// A name without an extension or with a `/` at its end: `frame_00000.png` and so on, lossless.
    PngFolder,
}

impl OutputKind {
    /// The form that an output's name stands for.
    ///
    /// # Errors
    ///
    /// [`MediaError::UnknownExtension`] for an extension we don't write,
    /// [`MediaError::NoName`] for an empty name.
    pub fn from_path(path: &Path) -> Result<Self, MediaError> {
        let name = path.as_os_str();
        if name.is_empty() {
            return Err(MediaError::NoName { path: path.to_path_buf() });
        }
        // `Path` itself forgets a separator at the end.
        let last_byte = name.as_encoded_bytes().last().copied().unwrap_or_default();
        if std::path::is_separator(char::from(last_byte)) {
            return Ok(Self::PngFolder);
        }
        let Some(extension) = path.extension() else {
            return Ok(Self::PngFolder);
        };
        if extension.eq_ignore_ascii_case("mp4") {
            Ok(Self::Mp4)
        } else if extension.eq_ignore_ascii_case("gif") {
            Ok(Self::Gif)
        } else {
            Err(MediaError::UnknownExtension {
                path: path.to_path_buf(),
                extension: extension.to_string_lossy().into_owned(),
            })
        }
    }
}

/// An upper bound of the disk bytes that writing `frames` frames of `width` x `height` pixels takes
/// at its peak, temporary files included.
///
/// It is what noise takes. What a camera sees takes about half as a PNG or GIF, and less than a
/// tenth as an MP4.
pub fn estimate_bytes(kind: OutputKind, width: u32, height: u32, frames: u64) -> u64 {
    let pixels = u64::from(width) * u64::from(height);
    let frame_bytes = match kind {
        // The encoder's limit of a byte a pixel; the frames wait beside the file they end up in.
        OutputKind::Mp4 => pixels.saturating_mul(2),
        // 12-bit codes that stand for a single pixel each, in blocks of 255, and a palette.
        OutputKind::Gif => pixels.saturating_mul(3) / 2 + pixels / 128 + 1024,
        // Stored bytes with a filter byte per row and deflate's block headers, in whole disk
        // blocks of 4 kB.
        OutputKind::PngFolder => {
            let raw = pixels.saturating_mul(3).saturating_add(u64::from(height));
            raw.saturating_add(raw / 1000).saturating_add(1024).div_ceil(4096).saturating_mul(4096)
        }
    };
    frames.saturating_mul(frame_bytes).saturating_add(64 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_form() {
        let cases = [
            ("a.mp4", OutputKind::Mp4),
            ("dir.x/a.MP4", OutputKind::Mp4),
            ("a.gif", OutputKind::Gif),
            ("frames", OutputKind::PngFolder),
            ("dir.x/frames", OutputKind::PngFolder),
            ("frames/", OutputKind::PngFolder),
            ("v1.5/", OutputKind::PngFolder),
        ];
        for (name, kind) in cases {
            assert_eq!(OutputKind::from_path(Path::new(name)).unwrap(), kind, "{name}");
        }
    }

    #[test]
    fn an_unknown_extension_names_the_three_forms() {
        for name in ["a.avi", "a.png", "v1.5"] {
            let message = OutputKind::from_path(Path::new(name)).unwrap_err().to_string();
            for part in [name, ".mp4", ".gif", "'/'", "folder of PNGs"] {
                assert!(message.contains(part), "{part} is missing in: {message}");
            }
        }
        assert!(matches!(OutputKind::from_path(Path::new("")), Err(MediaError::NoName { .. })));
    }

    #[test]
    fn huge_estimates_do_not_wrap() {
        for kind in [OutputKind::Mp4, OutputKind::Gif, OutputKind::PngFolder] {
            assert!(estimate_bytes(kind, u32::MAX, u32::MAX, u64::MAX) > u64::MAX / 2);
            assert!(estimate_bytes(kind, 16, 16, 1) > 0);
        }
    }
}
