//! MP4 files with H.264 video, the index before the frames so that players can start at once.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use crate::atomic::AtomicFile;
use crate::h264::{H264Encoder, MAX_LONG_SIDE, MAX_SHORT_SIDE, MIN_SIDE};
use crate::mp4_boxes::VideoTrack;
use crate::target::Target;
use crate::{MediaError, VideoSettings};

/// Writes one MP4. The index needs the sizes of all frames, so these wait in a nameless file
/// beside the output and are copied behind the index at the end.
pub(crate) struct Mp4Writer {
    encoder: H264Encoder,
    track: VideoTrack,
    waiting: BufWriter<File>,
    file: AtomicFile,
}

/// Why H.264 cannot hold a video of these settings, if so.
pub(crate) fn unsupported(settings: &VideoSettings) -> Option<String> {
    let (width, height) = (settings.width, settings.height);
    let (long, short) = (width.max(height), width.min(height));
    if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        return Some(
            "MP4 needs an even width and height; crop or scale the frames, or write PNGs".into(),
        );
    }
    if short < MIN_SIDE || long > MAX_LONG_SIDE || short > MAX_SHORT_SIDE {
        return Some(format!(
            "the H.264 encoder takes sides from {MIN_SIDE} up to \
             {MAX_LONG_SIDE}x{MAX_SHORT_SIDE}; scale the frames, or write PNGs"
        ));
    }
    None
}

impl Mp4Writer {
    pub(crate) fn create(target: Target, settings: &VideoSettings) -> Result<Self, MediaError> {
        let encoder =
            H264Encoder::new(settings).map_err(|error| encoder_failed(&target.named, 0, &error))?;
        let waiting = tempfile::tempfile_in(&target.folder)
            .map_err(|source| MediaError::io("creating", &target.named, source))?;
        let track = VideoTrack {
            width: settings.width as u16,
            height: settings.height as u16,
            fps: settings.fps,
            sps: Vec::new(),
            pps: Vec::new(),
            frame_bytes: Vec::new(),
            key_frames: Vec::new(),
        };
        let file = AtomicFile::create(target)?;
        Ok(Self { encoder, track, waiting: BufWriter::new(waiting), file })
    }

    pub(crate) fn write_frame(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let named = &self.file.target().named;
        let index = self.track.frame_bytes.len() as u64;
        let frame = self.encoder.encode(rgb).map_err(|e| encoder_failed(named, index, &e))?;
        self.waiting
            .write_all(&frame.bytes)
            .map_err(|source| MediaError::io("writing", named, source))?;
        self.track.frame_bytes.push(frame.bytes.len() as u32);
        if frame.is_key {
            self.track.key_frames.push(self.track.frame_bytes.len() as u32);
        }
        Ok(())
    }

    /// Puts the video in place; returns its size in bytes.
    pub(crate) fn finish(self) -> Result<u64, MediaError> {
        let Self { encoder, mut track, waiting, mut file } = self;
        track.sps = encoder.sps;
        track.pps = encoder.pps;
        put_together(&track.head(), waiting, &mut file)
            .map_err(|source| MediaError::io("writing", &file.target().named, source))?;
        file.commit()
    }
}

fn encoder_failed(named: &Path, frame: u64, error: &openh264::Error) -> MediaError {
    MediaError::Encoder { path: named.to_path_buf(), frame, reason: error.to_string() }
}

fn put_together(head: &[u8], waiting: BufWriter<File>, out: &mut impl Write) -> io::Result<()> {
    let mut frames = waiting.into_inner().map_err(io::IntoInnerError::into_error)?;
    frames.rewind()?;
    out.write_all(head)?;
    io::copy(&mut frames, out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let waiting = BufWriter::new(tempfile::tempfile().unwrap());
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = put_together(b"head", waiting, &mut full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
