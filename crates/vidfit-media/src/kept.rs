//! Frames that were kept as a folder of PNGs, read back to be written in another form.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use crate::chunks::png_chunks;
use crate::picture::png_size;
use crate::target::frame_name;
use crate::{InputError, MediaError, VideoSettings, read_picture};

/// A folder of PNGs as [`VideoWriter`](crate::VideoWriter) writes it, of frames that are all there and
/// of the size that is asked for.
pub struct KeptFrames {
    folder: PathBuf,
    width: u32,
    height: u32,
    frames: u64,
}

impl KeptFrames {
    /// The frames in `folder`, if these are as many as `frames` of the size in `settings`, and each is
    /// a PNG from its beginning to its end. Their pixels are not looked at.
    pub fn open(folder: &Path, settings: &VideoSettings, frames: u64) -> Option<KeptFrames> {
        let VideoSettings { width, height, .. } = *settings;
        let is_whole = (0..frames).all(|frame| {
            let size = size_if_whole(&folder.join(frame_name(frame)));
            size.is_ok_and(|size| size == (width, height))
        });
        is_whole.then(|| KeptFrames { folder: folder.to_owned(), width, height, frames })
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.frames
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Frame number `frame`, counted from 0, as rows of 8-bit RGB from the top left.
    ///
    /// # Errors
    ///
    /// [`MediaError::KeptFrame`] if the file cannot be read, is damaged, or is no frame of ours: the
    /// frames can be had only by decoding them again.
    pub fn frame(&self, frame: u64) -> Result<Vec<u8>, MediaError> {
        let path = self.folder.join(frame_name(frame));
        self.read(&path).map_err(|source| MediaError::KeptFrame { source })
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, InputError> {
        let picture = read_picture(path)?;
        match (picture.width, picture.height) == (self.width, self.height) {
            true => Ok(picture.rgb),
            false => Err(InputError::damaged(path, "it is no frame of this video")),
        }
    }
}

/// Width and height in pixels of a PNG that has all its parts.
fn size_if_whole(path: &Path) -> Result<(u32, u32), InputError> {
    let reading = |source| InputError::io("reading", path, source);
    let mut file = BufReader::new(File::open(path).map_err(reading)?);
    let size = png_size(path, &mut file)?;
    png_chunks(path, &mut file, &mut |_| Ok(()))?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fps, VideoWriter};

    #[test]
    fn frames_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames/");
        let settings = VideoSettings::new(16, 32, Fps::new(8.0).unwrap());
        let frame = |number: u8| -> Vec<u8> {
            (0..16 * 32 * 3).map(|byte| (byte as u8).wrapping_mul(number)).collect()
        };
        let mut writer = VideoWriter::create(&path, settings).unwrap();
        (1..4).for_each(|number| writer.write_frame(&frame(number)).unwrap());
        writer.finish().unwrap();

        let kept = KeptFrames::open(&path, &settings, 3).unwrap();
        assert_eq!((kept.len(), kept.is_empty()), (3, false));
        (1..4).for_each(|n| assert_eq!(kept.frame(u64::from(n) - 1).unwrap(), frame(n)));
        assert!(KeptFrames::open(&path, &settings, 4).is_none());

        // Of another size, cut short, and no PNG at all.
        let other = VideoSettings { width: 32, ..settings };
        let whole = std::fs::read(path.join("frame_00000.png")).unwrap();
        assert!(KeptFrames::open(&path, &other, 3).is_none());
        let damage = |error| match error {
            MediaError::KeptFrame { source } => source.to_string(),
            other => panic!("{other}"),
        };
        for damaged in [&whole[..whole.len() / 2], &whole[..20], b"text", b""] {
            std::fs::write(path.join("frame_00000.png"), damaged).unwrap();
            assert!(KeptFrames::open(&path, &settings, 3).is_none());
            let error = damage(kept.frame(0).unwrap_err());
            assert!(error.contains("frame_00000.png"), "{error}");
        }

        // Of the right size, but with other pixels than were written.
        let mut bytes = whole.clone();
        let pixels_at = whole.windows(4).position(|name| name == b"IDAT").unwrap() + 20;
        bytes[pixels_at] ^= 0x10;
        std::fs::write(path.join("frame_00000.png"), bytes).unwrap();
        let error = damage(KeptFrames::open(&path, &settings, 3).unwrap().frame(0).unwrap_err());
        assert!(error.contains("frame_00000.png"), "{error}");
    }
}
