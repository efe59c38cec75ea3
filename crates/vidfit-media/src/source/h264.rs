//! H.264 frames through OpenH264, in the order of showing.

use openh264::OpenH264API;
use openh264::decoder::{DecodedYUV, Decoder, DecoderConfig, Flush};
use openh264::formats::YUVSource;

use super::TakeFrame;
use super::mp4::{Mp4, Turn};
use super::yuv::{Planes, to_rgb};
use crate::{InputError, Picture};

impl Mp4 {
    /// Decodes up to the last of `indices` and hands these over.
    pub(super) fn read(
        &self,
        indices: &[usize],
        take: &mut TakeFrame<'_>,
    ) -> Result<(), InputError> {
        let Some(&last) = indices.last() else {
            return Ok(());
        };
        let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
        let mut decoder = Decoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|error| self.undecodable(0, &error.to_string()))?;
        let mut shown = Shown { mp4: self, indices, next: 0, take };
        let mut stream = Vec::new();
        for set in &self.config.parameter_sets {
            put_nal(&mut stream, set);
        }
        for (number, sample) in self.samples()?.enumerate() {
            self.put_sample(&mut stream, number, &sample?)?;
            let decoded = decoder.decode(&stream);
            let picture = decoded.map_err(|error| self.undecodable(number, &error.to_string()))?;
            if let Some(picture) = picture {
                shown.show(&picture)?;
            }
            if shown.next > self.hidden + last {
                return Ok(());
            }
            stream.clear();
        }
        let rest = decoder.flush_remaining();
        for picture in rest.map_err(|error| self.undecodable(shown.next, &error.to_string()))? {
            shown.show(&picture)?;
        }
        if shown.next > self.hidden + last {
            return Ok(());
        }
        Err(self.undecodable(shown.next, "the decoder gave fewer frames than the index names"))
    }

    /// Appends the NAL units of a sample with start codes in place of their lengths.
    fn put_sample(
        &self,
        stream: &mut Vec<u8>,
        number: usize,
        sample: &[u8],
    ) -> Result<(), InputError> {
        let mut rest = sample;
        while !rest.is_empty() {
            let (length, behind) = rest
                .split_at_checked(self.config.length_bytes)
                .ok_or_else(|| self.undecodable(number, "its bytes break off"))?;
            let length = length.iter().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
            let (nal, behind) = behind
                .split_at_checked(length)
                .ok_or_else(|| self.undecodable(number, "its bytes break off"))?;
            self.check_order(nal)?;
            put_nal(stream, nal);
            rest = behind;
        }
        Ok(())
    }

    /// OpenH264 sorts pictures on the understanding that their places in the order of showing are
    /// two apart, as nearly all encoders count. Of others it would mix up the frames.
    fn check_order(&self, nal: &[u8]) -> Result<(), InputError> {
        let is_slice = matches!(nal.first().map(|header| header & 0x1f), Some(1 | 5));
        if !self.is_reordered || !is_slice {
            return Ok(());
        }
        match self.config.sps.order_of_slice(nal) {
            Some(order) if order % 2 == 0 => Ok(()),
            _ => Err(InputError::Unsupported {
                path: self.path.clone(),
                reason: "its H.264 frames are ordered in a way that is read through ffmpeg only. \
                         Install ffmpeg, or convert it to an MP4 without B-frames"
                    .into(),
            }),
        }
    }

    fn undecodable(&self, frame: usize, reason: &str) -> InputError {
        InputError::damaged(&self.path, format!("frame {frame} cannot be decoded ({reason})"))
    }
}

fn put_nal(stream: &mut Vec<u8>, nal: &[u8]) {
    stream.extend([0, 0, 0, 1]);
    stream.extend(nal);
}

/// Counts the frames that come out, and hands over those that are wanted.
struct Shown<'a, 'b> {
    mp4: &'a Mp4,
    indices: &'a [usize],
    /// Which frame comes next, hidden ones included.
    next: usize,
    take: &'a mut TakeFrame<'b>,
}

impl Shown<'_, '_> {
    fn show(&mut self, picture: &DecodedYUV<'_>) -> Result<(), InputError> {
        let index = self.next.checked_sub(self.mp4.hidden);
        self.next += 1;
        if index.is_none_or(|index| self.indices.binary_search(&index).is_err()) {
            return Ok(());
        }
        let (width, height) = picture.dimensions();
        let sps = &self.mp4.config.sps;
        if (width, height) != (sps.width as usize, sps.height as usize) {
            return Err(InputError::Unsupported {
                path: self.mp4.path.clone(),
                reason: "its frames change their size midway. Convert it to one size".into(),
            });
        }
        let planes = Planes {
            width,
            height,
            strides: picture.strides(),
            y: picture.y(),
            u: picture.u(),
            v: picture.v(),
        };
        let rgb = to_rgb(&planes, self.mp4.config.colour);
        let upright = turned(rgb, sps.width, sps.height, self.mp4.turn);
        (self.take)(upright)
    }
}

fn turned(rgb: Vec<u8>, width: u32, height: u32, turn: Turn) -> Picture {
    let flat = Picture { width, height, rgb };
    let Some(image) = image::RgbImage::from_raw(width, height, flat.rgb) else {
        return Picture { width, height, rgb: vec![0; (width * height * 3) as usize] };
    };
    let upright = match turn {
        Turn::No => image,
        Turn::Quarter => image::imageops::rotate90(&image),
        Turn::Half => image::imageops::rotate180(&image),
        Turn::ThreeQuarters => image::imageops::rotate270(&image),
    };
    Picture { width: upright.width(), height: upright.height(), rgb: upright.into_raw() }
}
