//! How much of an input we believe before its bytes prove it.

use std::path::Path;

use crate::InputError;

/// Longest side of a picture or frame, in pixels.
pub(crate) const MAX_SIDE: u32 = 16_384;
/// Most pixels of a picture: 300 MB as RGB, and up to 800 MB as a decoder gives those of 16 bits with
/// transparency.
pub(crate) const MAX_PICTURE_PIXELS: u64 = 100_000_000;
/// Most pixels of a video's frame, of which decoders keep several: those of 8K.
pub(crate) const MAX_FRAME_PIXELS: u64 = 7680 * 4320;
/// Shortest side of a picture or frame that can say anything about a video, in pixels.
pub(crate) const MIN_SIDE: u32 = 16;
/// Most frames of a video: nine hours at 30 frames a second.
pub(crate) const MAX_FRAMES: usize = 1_000_000;
/// Most bytes of a picture's file.
pub(crate) const MAX_PICTURE_BYTES: u64 = 1 << 30;
/// Most bytes that a picture's decoder may take beside its result. Those of PNG and GIF are told so;
/// what those of JPEG and WebP take follows from the header and the length of the file, and is held to
/// it before they begin. An animated WebP is held to the pixels of a frame alone.
pub(crate) const MAX_DECODER_BYTES: u64 = 1 << 30;

/// Checks a size that a header gives, before any memory is taken for it.
pub(crate) fn check_size(
    path: &Path,
    (width, height): (u32, u32),
    most_pixels: u64,
) -> Result<(), InputError> {
    let path = path.to_path_buf();
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > most_pixels {
        return Err(InputError::TooLarge { path, width, height, most_pixels });
    }
    if width < MIN_SIDE || height < MIN_SIDE {
        return Err(InputError::TooSmall { path, width, height });
    }
    Ok(())
}
