//! Animated GIFs, PNGs and WebPs.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use ::gif::{DecodeOptions, MemoryLimit};
use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, Frames, ImageDecoder};

use super::{Facts, Wanted};
use crate::chunks::{Chunk, png_chunks, webp_chunks};
use crate::content::Content;
use crate::limits::{MAX_DECODER_BYTES, MAX_FRAME_PIXELS, MAX_FRAMES, check_size};
use crate::picture::{limits, refused, rgb_of_rgba};
use crate::{InputError, Picture};

/// An animation of one of the three forms. Frames are composed as browsers do; what no frame
/// covers is black.
#[derive(Debug)]
pub(super) struct Animation {
    path: PathBuf,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Gif,
    Png,
    WebP,
}

/// Delays shorter than anybody meant are shown as this many seconds, by browsers and by ffmpeg.
const DEFAULT_DELAY_SECONDS: f64 = 0.1;

impl Animation {
    /// Reads the headers of all frames.
    pub(super) fn open(path: &Path, content: Content) -> Result<(Self, Facts), InputError> {
        let form = match content {
            Content::Gif => Form::Gif,
            Content::Apng => Form::Png,
            _ => Form::WebP,
        };
        let animation = Self { path: path.to_path_buf(), form };
        let ((width, height), delays) = match form {
            Form::Gif => gif_delays(path)?,
            Form::Png => png_delays(path)?,
            Form::WebP => webp_delays(path)?,
        };
        if delays.is_empty() {
            return Err(InputError::NoFrames { path: path.to_path_buf() });
        }
        check_size(path, (width, height), MAX_FRAME_PIXELS)?;
        let mut now = 0.0;
        let times = delays.iter().map(|delay| {
            let begins = now;
            now += delay;
            begins
        });
        let times = Some(times.collect());
        Ok((animation, Facts { width, height, frames: delays.len(), times }))
    }

    /// Decodes up to the last of `indices` and hands these over.
    pub(super) fn read(
        &self,
        indices: &[usize],
        wanted: &mut Wanted<'_>,
    ) -> Result<(), InputError> {
        let Some(&last) = indices.last() else {
            return Ok(());
        };
        let mut decoded = 0;
        for frame in self.frames()?.take(last + 1) {
            wanted.go_on()?;
            let image = frame.map_err(|error| refused(&self.path, &error))?.into_buffer();
            if indices.binary_search(&decoded).is_ok() {
                let (width, height) = image.dimensions();
                wanted.take(Picture { width, height, rgb: rgb_of_rgba(&image) });
            }
            decoded += 1;
        }
        if decoded <= last {
            return Err(InputError::damaged(&self.path, format!("it ends after {decoded} frames")));
        }
        Ok(())
    }

    fn frames(&self) -> Result<Frames<'static>, InputError> {
        let file = open(&self.path)?;
        let failed = |error| refused(&self.path, &error);
        match self.form {
            Form::Gif => {
                let mut decoder = GifDecoder::new(file).map_err(failed)?;
                decoder.set_limits(limits()).map_err(failed)?;
                Ok(decoder.into_frames())
            }
            Form::Png => {
                let decoder = PngDecoder::with_limits(file, limits()).map_err(failed)?;
                Ok(decoder.apng().map_err(failed)?.into_frames())
            }
            Form::WebP => Ok(WebPDecoder::new(file).map_err(failed)?.into_frames()),
        }
    }
}

/// Width and height in pixels, and how long each frame is shown in seconds.
type Delays = ((u32, u32), Vec<f64>);

fn gif_delays(path: &Path) -> Result<Delays, InputError> {
    let mut options = DecodeOptions::new();
    options.skip_frame_decoding(true);
    if let Some(limit) = NonZeroU64::new(MAX_DECODER_BYTES) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    let damaged = |error: ::gif::DecodingError| InputError::damaged(path, error.to_string());
    let mut file = open(path)?;
    if is_empty_gif(&mut file).map_err(|source| InputError::io("reading", path, source))? {
        return Ok(((0, 0), Vec::new()));
    }
    let mut gif = options.read_info(file).map_err(damaged)?;
    let mut delays = Vec::new();
    while let Some(frame) = gif.next_frame_info().map_err(damaged)? {
        // In 1/100 s.
        let delay =
            if frame.delay < 2 { DEFAULT_DELAY_SECONDS } else { f64::from(frame.delay) / 100.0 };
        push_delay(path, &mut delays, delay)?;
    }
    Ok(((u32::from(gif.width()), u32::from(gif.height())), delays))
}

/// Whether the end follows at once upon the header and its palette: no damage, but no picture.
fn is_empty_gif(file: &mut BufReader<File>) -> io::Result<bool> {
    const END: u8 = b';';
    let mut head = [0; 13];
    file.read_exact(&mut head)?;
    let has_palette = head[10] & 0x80 != 0;
    let palette_bytes = if has_palette { 3 << ((head[10] & 7) + 1) } else { 0 };
    file.seek_relative(palette_bytes)?;
    let mut next = [0];
    file.read_exact(&mut next)?;
    file.rewind()?;
    Ok(next == [END])
}

fn png_delays(path: &Path) -> Result<Delays, InputError> {
    let mut size = (0, 0);
    let mut delays = Vec::new();
    let mut promised = 0;
    png_chunks(path, &mut open(path)?, &mut |chunk| {
        let be = |at: usize| chunk.head().get(at..at + 4).map_or(0, be_number);
        match &chunk.name {
            b"IHDR" => size = (be(0), be(4)),
            b"acTL" => promised = be(0) as usize,
            b"fcTL" => {
                let (number, per) = (be(20) >> 16, be(20) & 0xffff);
                let per = if per == 0 { 100 } else { per };
                push_delay(path, &mut delays, or_default(f64::from(number) / f64::from(per)))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if delays.len() != promised {
        let there = delays.len();
        return Err(InputError::damaged(
            path,
            format!("it promises {promised} frames and has {there}"),
        ));
    }
    Ok((size, delays))
}

fn webp_delays(path: &Path) -> Result<Delays, InputError> {
    let mut size = (0, 0);
    let mut delays = Vec::new();
    webp_chunks(path, &mut open(path)?, &mut |chunk| {
        match &chunk.name {
            b"VP8X" => size = (1 + le_24(chunk, 4), 1 + le_24(chunk, 7)),
            b"ANMF" => {
                push_delay(path, &mut delays, or_default(f64::from(le_24(chunk, 12)) / 1000.0))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((size, delays))
}

fn push_delay(path: &Path, delays: &mut Vec<f64>, delay: f64) -> Result<(), InputError> {
    if delays.len() == MAX_FRAMES {
        return Err(InputError::TooManyFrames { path: path.to_path_buf() });
    }
    delays.push(delay);
    Ok(())
}

fn or_default(seconds: f64) -> f64 {
    if seconds > 0.01 { seconds } else { DEFAULT_DELAY_SECONDS }
}

fn be_number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte))
}

fn le_24(chunk: &Chunk, at: usize) -> u32 {
    let bytes = chunk.head().get(at..at + 3).unwrap_or_default();
    bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte))
}

fn open(path: &Path) -> Result<BufReader<File>, InputError> {
    let opening = |source| InputError::io("opening", path, source);
    Ok(BufReader::new(File::open(path).map_err(opening)?))
}
