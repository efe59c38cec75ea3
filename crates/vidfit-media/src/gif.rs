//! Animated GIFs that loop forever.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use ::gif::{Encoder, EncodingError, Frame, Repeat};

use crate::atomic::AtomicFile;
use crate::palette::index_frame;
use crate::target::Target;
use crate::{Fps, MediaError, VideoSettings};

/// Writes one GIF to its file.
pub(crate) struct GifWriter {
    stream: GifStream<BufWriter<AtomicFile>>,
    named: std::path::PathBuf,
}

/// Why a GIF cannot hold a video of these settings, if so.
pub(crate) fn unsupported(settings: &VideoSettings) -> Option<String> {
    const LARGEST_SIDE: u32 = u16::MAX as u32;
    if settings.width > LARGEST_SIDE || settings.height > LARGEST_SIDE {
        return Some(format!(
            "a GIF has at most {LARGEST_SIDE} pixels on a side; scale the frames"
        ));
    }
    // Browsers show delays below 2/100 s as 10/100 s.
    if settings.fps.as_f64() > 50.0 {
        return Some(
            "players show GIFs at no more than 50 frames a second; lower it, or write an MP4"
                .into(),
        );
    }
    if centiseconds_until(1, settings.fps) > u64::from(u16::MAX) {
        return Some("a GIF shows a frame for at most 655 seconds; raise the frame rate".into());
    }
    None
}

impl GifWriter {
    pub(crate) fn create(target: Target, settings: &VideoSettings) -> Result<Self, MediaError> {
        let named = target.named.clone();
        let file = BufWriter::new(AtomicFile::create(target)?);
        let stream = GifStream::start(file, settings)
            .map_err(|source| MediaError::io("writing", &named, source))?;
        Ok(Self { stream, named })
    }

    pub(crate) fn write_frame(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        self.stream
            .write_frame(rgb)
            .map_err(|source| MediaError::io("writing", &self.named, source))
    }

    /// Puts the animation in place; returns its size in bytes.
    pub(crate) fn finish(self) -> Result<u64, MediaError> {
        let failed = |source| MediaError::io("writing", &self.named, source);
        let buffered = self.stream.finish().map_err(failed)?;
        buffered.into_inner().map_err(|error| failed(error.into_error()))?.commit()
    }
}

/// GIF bytes into anything.
struct GifStream<W: Write> {
    encoder: Encoder<W>,
    width: u16,
    height: u16,
    fps: Fps,
    frames: u64,
}

impl<W: Write> GifStream<W> {
    fn start(out: W, settings: &VideoSettings) -> io::Result<Self> {
        let (width, height) = (settings.width as u16, settings.height as u16);
        let mut encoder = Encoder::new(out, width, height, &[]).map_err(into_io)?;
        encoder.set_repeat(Repeat::Infinite).map_err(into_io)?;
        Ok(Self { encoder, width, height, fps: settings.fps, frames: 0 })
    }

    fn write_frame(&mut self, rgb: &[u8]) -> io::Result<()> {
        let indexed = index_frame(rgb, usize::from(self.width));
        let shown_from = centiseconds_until(self.frames, self.fps);
        let shown_to = centiseconds_until(self.frames + 1, self.fps);
        let frame = Frame {
            width: self.width,
            height: self.height,
            delay: (shown_to - shown_from) as u16,
            palette: Some(indexed.palette),
            buffer: Cow::Owned(indexed.pixels),
            ..Frame::default()
        };
        self.encoder.write_frame(&frame).map_err(into_io)?;
        self.frames += 1;
        Ok(())
    }

    fn finish(self) -> io::Result<W> {
        self.encoder.into_inner().map_err(into_io)
    }
}

fn into_io(error: EncodingError) -> io::Error {
    match error {
        EncodingError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// When the frame begins, in the 1/100 s of GIF delays. Rounding the beginnings rather than the
/// delays keeps the mean rate right.
fn centiseconds_until(frame: u64, fps: Fps) -> u64 {
    let (frames, seconds) = (u128::from(fps.frames()), u128::from(fps.seconds()));
    ((u128::from(frame) * 100 * seconds + frames / 2) / frames) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_sum_to_the_true_length() {
        for fps in [8.0, 7.0, 16.0, 24.0, 29.97, 30.0, 50.0, 0.3] {
            let fps = Fps::new(fps).unwrap();
            let mut previous = 0;
            for frame in 1..=500 {
                let now = centiseconds_until(frame, fps);
                let exact = frame as f64 * 100.0 / fps.as_f64();
                assert!((now as f64 - exact).abs() <= 0.5 + 1e-9, "{fps} {frame}");
                assert!(now - previous >= 2, "{fps}: browsers would slow down frame {frame}");
                previous = now;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let settings = VideoSettings::new(2, 2, Fps::new(8.0).unwrap());
        let error = GifStream::start(full, &settings).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
