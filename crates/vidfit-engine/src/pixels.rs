//! The pixels that a video starts from.

use crate::digest::Digest;
use crate::error::EngineError;
use crate::request::Job;
use crate::safetensors::{SafetensorsFile, StoredDtype, Values, write_values};
use std::path::Path;
use std::sync::Arc;
use vidfit_cogvideox::vae::Rectangle;

/// Frames of RGB, 8 bits: an image is one, a video several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    height: usize,
    width: usize,
    frames: Vec<Arc<[u8]>>,
}

impl Pixels {
    /// Frames of `height` rows of `width` pixels of red, green and blue.
    ///
    /// # Errors
    /// [`EngineError::Request`] if there is no frame, or one has another length.
    pub fn new(height: usize, width: usize, frames: Vec<Arc<[u8]>>) -> Result<Pixels, EngineError> {
        let bytes = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(3));
        let wrong = frames.iter().position(|frame| Some(frame.len()) != bytes);
        if let Some(frame) = wrong {
            return Err(EngineError::Request(format!(
                "frame {frame} has {} bytes, and {width}×{height} pixels of three do not",
                frames[frame].len()
            )));
        }
        match frames.is_empty() {
            true => Err(EngineError::Request("there is no frame to start from".into())),
            false => Ok(Pixels { height, width, frames }),
        }
    }

    /// How many frames there are.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// Writes a rectangle of a frame to `values`, `[height, width, 3]` in -1..=1, in the reference's
    /// arithmetic (`VaeImageProcessor`): divided by 255, doubled, less 1.
    ///
    /// # Panics
    /// If the rectangle is not within the frame.
    pub fn fill(&self, rectangle: Rectangle, values: &mut [f32]) {
        let Rectangle { frame, top, left, height, width } = rectangle;
        let rows = self.frames[frame].chunks_exact(3 * self.width).skip(top).take(height);
        for (row, line) in rows.zip(values.chunks_exact_mut(3 * width)) {
            for (value, &byte) in line.iter_mut().zip(&row[3 * left..][..3 * width]) {
                *value = 2.0 * (f32::from(byte) / 255.0) - 1.0;
            }
        }
    }

    /// Bytes of `count` frames of `height` rows of `width` pixels.
    pub fn bytes(count: usize, height: usize, width: usize) -> u64 {
        count as u64 * height as u64 * width as u64 * 3
    }

    /// Writes them to a file, whole or not at all.
    ///
    /// # Errors
    /// As [`write_values`].
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let (digest, shape) = (self.digest(), [self.height, self.width, 3]);
        let names: Vec<String> = (0..self.count()).map(name_of).collect();
        let frames = names.iter().zip(&self.frames);
        let frames = frames.map(|(name, frame)| {
            (name.as_str(), StoredDtype::U8, &shape[..], Values::Bytes(frame))
        });
        let digest_shape = [digest.len()];
        let digest = (DIGEST, StoredDtype::U8, &digest_shape[..], Values::Bytes(digest.as_bytes()));
        write_values(path, &frames.chain([digest]).collect::<Vec<_>>())?;
        Ok(())
    }

    /// Reads what [`Pixels::save`] wrote.
    ///
    /// # Errors
    /// [`EngineError::Request`] if it is something else; or as [`SafetensorsFile::open`].
    pub fn load(path: &Path) -> Result<Pixels, EngineError> {
        let wrong = || {
            let path = path.display();
            EngineError::Request(format!("{path} does not hold the pixels that were written to it"))
        };
        let file = SafetensorsFile::open(path)?;
        let &[height, width, 3] = &file.info(&name_of(0))?.shape[..] else { return Err(wrong()) };
        let count = file.tensors().len() - 1;
        let frames = (0..count).map(|frame| Ok(file.bytes(&name_of(frame))?.into()));
        let frames = frames.collect::<Result<_, EngineError>>()?;
        let pixels = Pixels::new(height, width, frames)?;
        match file.bytes(DIGEST)? == pixels.digest().as_bytes() {
            true => Ok(pixels),
            false => Err(wrong()),
        }
    }

    /// A digest of all of them, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut digest = Digest::default();
        for size in [self.height, self.width] {
            digest.add(&(size as u64).to_le_bytes());
        }
        self.frames.iter().for_each(|frame| digest.add(frame));
        digest.to_string()
    }
}

/// The digest beside the frames in a file.
const DIGEST: &str = "digest";

fn name_of(frame: usize) -> String {
    format!("frame_{frame:05}")
}

impl Job {
    /// Whether these are the pixels to start from: as many frames, of the video's size.
    ///
    /// # Errors
    /// [`EngineError::Request`] if they are missing, too many, or of another size.
    pub fn check_pixels(&self, pixels: Option<&Pixels>) -> Result<(), EngineError> {
        let refuse = |why: String| Err(EngineError::Request(why));
        match (pixels, self.given_frames) {
            (None, 0) => Ok(()),
            (Some(_), 0) => refuse("a video from text alone has no use for pixels".into()),
            (None, 1) => refuse("the image to start from is missing".into()),
            (None, frames) => {
                refuse(format!("the video of {frames} frames to start from is missing"))
            }
            (Some(pixels), frames) if pixels.count() != frames => {
                refuse(format!("{} frames were given to start from, not {frames}", pixels.count()))
            }
            (Some(Pixels { height, width, .. }), _)
                if (*height, *width) != (self.height, self.width) =>
            {
                refuse(format!(
                    "what to start from has {width}×{height} pixels, and the video {}×{}",
                    self.width, self.height
                ))
            }
            (Some(_), _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_are_cut_and_scaled() {
        let frame: Vec<u8> = (0..2 * 3 * 3).map(|n| n * 15).collect();
        let pixels = Pixels::new(2, 3, vec![frame.into()]).unwrap();
        assert_eq!(pixels.count(), 1);
        let mut cut = [0.0; 6];
        pixels.fill(Rectangle { frame: 0, top: 1, left: 1, height: 1, width: 2 }, &mut cut);
        let expected =
            [12.0_f32, 13.0, 14.0, 15.0, 16.0, 17.0].map(|n| 2.0 * (n * 15.0 / 255.0) - 1.0);
        assert_eq!(cut, expected);
        assert_eq!(cut[5], 1.0, "the last byte is 255");
    }

    #[test]
    fn pixels_come_back_from_a_file_as_they_were_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pixels.safetensors");
        let frame = |first: u8| Arc::from((0..18).map(|n| first + n).collect::<Vec<u8>>());
        let pixels = Pixels::new(2, 3, (0..3).map(frame).collect()).unwrap();
        pixels.save(&path).unwrap();
        assert_eq!(Pixels::load(&path).unwrap(), pixels);
        let whole = std::fs::read(&path).unwrap();
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [&other[..], &whole[..whole.len() - 1], &whole[..20], b""] {
            std::fs::write(&path, damaged).unwrap();
            let error = Pixels::load(&path).unwrap_err().to_string();
            assert!(error.contains("pixels.safetensors"), "{error}");
        }
    }

    #[test]
    fn frames_of_another_length_are_refused() {
        for (frames, word) in [(vec![vec![0; 17]], "17 bytes"), (vec![], "no frame")] {
            let frames = frames.into_iter().map(Arc::from).collect();
            let error = Pixels::new(2, 3, frames).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(Pixels::new(usize::MAX, 2, vec![vec![0].into()]).is_err());
    }

    #[test]
    fn other_pixels_have_another_digest() {
        let of = |height, width, value| {
            Pixels::new(height, width, vec![vec![value; 18].into()]).unwrap().digest()
        };
        assert_eq!(of(2, 3, 7), of(2, 3, 7));
        assert_ne!(of(2, 3, 7), of(3, 2, 7));
        assert_ne!(of(2, 3, 7), of(2, 3, 8));
    }
}
