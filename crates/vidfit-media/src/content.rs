//! What a file is, told from its first bytes and never from its name.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::InputError;

/// What an input turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Folder,
    Png,
    /// An animated PNG.
    Apng,
    Jpeg,
    WebP,
    /// A WebP that says it moves.
    AnimatedWebP,
    Gif,
    /// MP4, MOV and their kin (ISO/IEC 14496-12).
    Mp4,
    /// AVIF or HEIF: a picture in the boxes of an MP4.
    BoxedPicture,
    /// Words, or a playlist.
    Text,
    /// Perhaps a video, for ffmpeg to say.
    Other,
}

impl Content {
    /// Looks at the beginning of `path`.
    pub(crate) fn of(path: &Path) -> Result<Self, InputError> {
        let reading = |source| InputError::io("reading", path, source);
        let meta = fs::metadata(path).map_err(reading)?;
        if meta.is_dir() {
            return Ok(Self::Folder);
        }
        // Opening a pipe could wait for ever.
        if !meta.is_file() {
            return Err(InputError::NotAFile { path: path.to_path_buf() });
        }
        let mut head = Vec::new();
        File::open(path).map_err(reading)?.take(4096).read_to_end(&mut head).map_err(reading)?;
        if head.is_empty() {
            return Err(InputError::Empty { path: path.to_path_buf() });
        }
        Ok(Self::of_bytes(&head))
    }

    fn of_bytes(head: &[u8]) -> Self {
        let name_at = |at: usize| head.get(at..at + 4).unwrap_or_default();
        if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            return if moves_before_its_pixels(head) { Self::Apng } else { Self::Png };
        }
        if head.starts_with(b"\xff\xd8\xff") {
            return Self::Jpeg;
        }
        if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
            return Self::Gif;
        }
        if name_at(0) == b"RIFF" && name_at(8) == b"WEBP" {
            const ANIMATION: u8 = 2;
            let flags = head.get(20).copied().unwrap_or_default();
            let moves = name_at(12) == b"VP8X" && flags & ANIMATION != 0;
            return if moves { Self::AnimatedWebP } else { Self::WebP };
        }
        match (name_at(4), name_at(8)) {
            (b"ftyp", b"avif" | b"heic" | b"heix" | b"mif1") => Self::BoxedPicture,
            // Old MOVs begin with any of these.
            (b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip", _) => Self::Mp4,
            _ if is_text(head) => Self::Text,
            _ => Self::Other,
        }
    }

    /// How people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Folder => "a folder",
            Self::Png => "PNG",
            Self::Apng => "animated PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::AnimatedWebP => "animated WebP",
            Self::Gif => "GIF",
            Self::Mp4 => "MP4 or MOV",
            Self::BoxedPicture => "AVIF or HEIF",
            Self::Text => "text",
            Self::Other => "nothing we know by its first bytes",
        }
    }
}

/// Whether a PNG has its animation control chunk, which comes before the first pixels.
fn moves_before_its_pixels(head: &[u8]) -> bool {
    let mut at = 8;
    while let Some(chunk) = head.get(at..at + 8) {
        match &chunk[4..] {
            b"acTL" => return true,
            b"IDAT" => return false,
            _ => {}
        }
        let length = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) as usize;
        at = at.saturating_add(length).saturating_add(12);
        if at > head.len() {
            return false;
        }
    }
    false
}

/// Whether these bytes are words in UTF-8, cut off anywhere, without control characters.
fn is_text(head: &[u8]) -> bool {
    let whole = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !whole.is_empty() && whole.chars().all(|c| !c.is_control() || c.is_whitespace())
}
