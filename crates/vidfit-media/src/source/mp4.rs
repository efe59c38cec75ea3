//! MP4 and MOV in: the frames of the video track, and what of them our decoder does.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Facts;
use super::boxes::{Body, BoxError, read_index};
use super::track::{AvcConfig, Refusal, Sample, Track, Turn, read_track};
use crate::InputError;
use crate::limits::{MAX_FRAME_PIXELS, check_size};

/// The H.264 track of an MP4.
#[derive(Debug)]
pub(super) struct Mp4 {
    pub(super) path: PathBuf,
    /// In the order of decoding.
    samples: Vec<Sample>,
    /// How many frames the edit list hides before the first that is shown.
    pub(super) hidden: usize,
    /// Whether frames are shown in another order than they are decoded.
    pub(super) is_reordered: bool,
    pub(super) turn: Turn,
    pub(super) config: AvcConfig,
}

/// An MP4, as far as it can be told without ffmpeg.
pub(super) enum Opened {
    Ours(Box<Mp4>, Facts),
    /// Something about it, in words, is for ffmpeg.
    Foreign(String),
}

impl Mp4 {
    /// Reads the index of `path`.
    pub(super) fn open(path: &Path) -> Result<Opened, InputError> {
        let opening = |source| InputError::io("opening", path, source);
        let mut file = File::open(path).map_err(opening)?;
        let index = read_index(path, &mut file)?;
        let file_bytes = file.metadata().map_err(opening)?.len();
        match read_track(Body { bytes: &index }, file_bytes) {
            Ok(track) => Self::of_track(path, track),
            Err(Refusal::Foreign(what)) => Ok(Opened::Foreign(what)),
            Err(Refusal::Damaged(reason)) => Err(InputError::damaged(path, reason)),
            Err(Refusal::NoFrames) => Err(InputError::NoFrames { path: path.to_path_buf() }),
            Err(Refusal::TooManyFrames) => {
                Err(InputError::TooManyFrames { path: path.to_path_buf() })
            }
        }
    }

    fn of_track(path: &Path, track: Track) -> Result<Opened, InputError> {
        let sps = track.config.sps;
        check_size(path, (sps.width, sps.height), MAX_FRAME_PIXELS)?;
        if let Some(what) = sps.foreign() {
            return Ok(Opened::Foreign(what));
        }
        let (width, height) = match track.turn {
            Turn::No | Turn::Half => (sps.width, sps.height),
            Turn::Quarter | Turn::ThreeQuarters => (sps.height, sps.width),
        };
        let facts = Facts { width, height, frames: track.times.len(), times: Some(track.times) };
        let mp4 = Self {
            path: path.to_path_buf(),
            samples: track.samples,
            hidden: track.hidden,
            is_reordered: track.is_reordered,
            turn: track.turn,
            config: track.config,
        };
        if let Some(what) = mp4.foreign_beginning()? {
            return Ok(Opened::Foreign(what.into()));
        }
        Ok(Opened::Ours(Box::new(mp4), facts))
    }

    /// What about the first frames our decoder does not do, in words.
    fn foreign_beginning(&self) -> Result<Option<&'static str>, InputError> {
        const LOOKED_AT: usize = 16;
        for (number, sample) in self.samples()?.take(LOOKED_AT).enumerate() {
            let sample = sample?;
            // What breaks off is for the decoder to complain about.
            let nals: Vec<&[u8]> = self.nals(&sample).map_while(Result::ok).collect();
            let is_key = |nal: &&[u8]| nal.first().is_some_and(|header| header & 0x1f == 5);
            if number == 0 && !nals.is_empty() && !nals.iter().any(is_key) {
                return Ok(Some("H.264 that does not begin with a key frame"));
            }
            if self.is_reordered && nals.iter().any(|nal| !self.counts_by_twos(nal)) {
                return Ok(Some("H.264 with B-frames that are counted one by one"));
            }
        }
        Ok(None)
    }

    /// Whether a NAL unit is no slice, or of a picture with an even place in the order of showing.
    ///
    /// OpenH264 sorts pictures on the understanding that their places are two apart, as nearly all
    /// encoders count. Of others it would mix up the frames.
    pub(super) fn counts_by_twos(&self, nal: &[u8]) -> bool {
        let is_slice = matches!(nal.first().map(|header| header & 0x1f), Some(1 | 5));
        !is_slice || self.config.sps.order_of_slice(nal).is_some_and(|order| order % 2 == 0)
    }

    /// The NAL units of a sample; an error where it breaks off.
    pub(super) fn nals<'a>(
        &self,
        sample: &'a [u8],
    ) -> impl Iterator<Item = Result<&'a [u8], BoxError>> + use<'a> {
        let length_bytes = self.config.length_bytes;
        let mut rest = sample;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let whole = rest.split_at_checked(length_bytes).and_then(|(length, behind)| {
                let length = length.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
                behind.split_at_checked(length)
            });
            rest = whole.map_or(&[], |(_, behind)| behind);
            Some(whole.map(|(nal, _)| nal).ok_or_else(|| "its bytes break off".into()))
        })
    }

    /// The bytes of each frame, in the order of decoding.
    pub(super) fn samples(
        &self,
    ) -> Result<impl Iterator<Item = Result<Vec<u8>, InputError>> + '_, InputError> {
        let reading = |source| InputError::io("reading", &self.path, source);
        let mut file = File::open(&self.path).map_err(reading)?;
        Ok(self.samples.iter().map(move |sample| {
            let mut bytes = vec![0; sample.bytes as usize];
            file.seek(SeekFrom::Start(sample.at)).map_err(reading)?;
            file.read_exact(&mut bytes).map_err(reading)?;
            Ok(bytes)
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::sync::atomic::AtomicBool;

    use super::super::wanted::Wanted;
    use super::*;
    use crate::{Fps, Resize, VideoSettings, VideoWriter};

    /// xorshift64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % end
        }
    }

    /// Here rather than beside the other mutations: what turns into another coding by accident must
    /// not start ffmpeg.
    #[test]
    fn damaged_files_are_read_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let settings = VideoSettings::new(32, 32, Fps::new(8.0).unwrap());
        let mut video = VideoWriter::create(&path, settings).unwrap();
        for frame in 0..4u32 {
            let levels = (0..32 * 32 * 3).map(|i: u32| (i.wrapping_mul(i + frame) >> 5) as u8);
            video.write_frame(&levels.collect::<Vec<_>>()).unwrap();
        }
        video.finish().unwrap();

        let whole = fs::read(&path).unwrap();
        let index_bytes = whole.windows(4).position(|name| name == b"mdat").unwrap();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let go_on = AtomicBool::new(false);
        let (mut read, mut refused, mut foreign) = (0, 0, 0);
        for round in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                // Half of the time in the index, which is shorter than the frames.
                let end = if round % 2 == 0 { index_bytes } else { bytes.len() };
                let at = random.below(end);
                bytes[at] ^= 1 << random.below(8);
            }
            if round % 7 == 0 {
                bytes.truncate(random.below(whole.len()));
            }
            fs::write(&path, &bytes).unwrap();
            match Mp4::open(&path) {
                Ok(Opened::Ours(mp4, facts)) => {
                    let all: Vec<usize> = (0..facts.frames.min(50)).collect();
                    let mut wanted = Wanted::new(&path, (16, 16), Resize::Crop, &go_on);
                    let result = mp4.read(&all, &mut wanted);
                    read += u32::from(result.is_ok());
                    refused += u32::from(result.is_err());
                }
                Ok(Opened::Foreign(_)) => foreign += 1,
                Err(_) => refused += 1,
            }
            // Some systems wait for the disk when a file is overwritten.
            fs::remove_file(&path).unwrap();
        }
        println!("{read} read, {refused} refused, {foreign} for ffmpeg");
        assert!(read > 100 && refused > 500 && foreign > 10);
    }
}
