//! Frames that were kept as a folder of PNGs, read back to be written in another form.

use std::io;
use std::path::{Path, PathBuf};

use crate::target::frame_name;
use crate::{MediaError, VideoSettings, read_picture};

/// A folder of PNGs as [`VideoWriter`](crate::VideoWriter) writes it, of frames that are all there and
/// of the size that is asked for.
pub struct KeptFrames {
    folder: PathBuf,
    width: u32,
    height: u32,
    frames: u64,
}

impl KeptFrames {
    /// The frames in `folder`, if these are as many as `frames` of the size in `settings`. Only their
    /// names are looked at.
    pub fn open(folder: &Path, settings: &VideoSettings, frames: u64) -> Option<KeptFrames> {
        let is_whole = (0..frames).all(|frame| folder.join(frame_name(frame)).is_file());
        let VideoSettings { width, height, .. } = *settings;
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
    /// [`MediaError::Io`] if the file cannot be read, or is no frame of ours.
    pub fn frame(&self, frame: u64) -> Result<Vec<u8>, MediaError> {
        let path = self.folder.join(frame_name(frame));
        self.read(&path).map_err(|source| MediaError::io("reading", &path, source))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let picture = read_picture(path).map_err(io::Error::other)?;
        match (picture.width, picture.height) == (self.width, self.height) {
            true => Ok(picture.rgb),
            false => Err(io::Error::other("it is no frame of this video")),
        }
    }
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
        let kept_wrongly = KeptFrames::open(&path, &other, 3).unwrap();
        let mut errors = vec![kept_wrongly.frame(0).unwrap_err()];
        for damaged in [&whole[..whole.len() / 2], &whole[..20], b"text", b""] {
            std::fs::write(path.join("frame_00000.png"), damaged).unwrap();
            errors.push(kept.frame(0).unwrap_err());
        }
        for error in errors {
            assert!(error.to_string().contains("frame_00000.png"), "{error}");
        }
    }
}
