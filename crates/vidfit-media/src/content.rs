//! What a file is, told from its first bytes and never from its name.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use crate::InputError;
use crate::chunks::MAX_CHUNKS;

/// The first bytes of every PNG.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

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
        let mut file = BufReader::new(File::open(path).map_err(reading)?);
        file.by_ref().take(4096).read_to_end(&mut head).map_err(reading)?;
        if head.is_empty() {
            return Err(InputError::Empty { path: path.to_path_buf() });
        }
        match Self::of_bytes(&head) {
            Self::Png if moves_before_its_pixels(&mut file).map_err(reading)? => Ok(Self::Apng),
            content => Ok(content),
        }
    }

    /// What begins like this; an animated PNG begins like any.
    fn of_bytes(head: &[u8]) -> Self {
        let name_at = |at: usize| head.get(at..at + 4).unwrap_or_default();
        if head.starts_with(SIGNATURE) {
            return Self::Png;
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

/// Whether a PNG has its animation control chunk, which comes before the first pixels. Profiles and
/// notes of any length may come before both.
fn moves_before_its_pixels<Source: Read + Seek>(png: &mut BufReader<Source>) -> io::Result<bool> {
    png.seek(SeekFrom::Start(SIGNATURE.len() as u64))?;
    for _ in 0..MAX_CHUNKS {
        let mut head = [0; 8];
        match png.read_exact(&mut head) {
            // What breaks off so early is for the decoder to complain about.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        match &head[4..] {
            b"acTL" => return Ok(true),
            b"IDAT" => return Ok(false),
            _ => {}
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        const CHECKSUM_BYTES: i64 = 4;
        png.seek_relative(i64::from(length) + CHECKSUM_BYTES)?;
    }
    Ok(false)
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
