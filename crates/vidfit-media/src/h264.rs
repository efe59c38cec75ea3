//! H.264 through OpenH264, at a constant quantiser.

use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, QpRange,
    RateControlMode, UsageType, VuiConfig,
};

use crate::colour::Yuv420;
use crate::{Crf, VideoSettings};

/// What OpenH264 accepts, in pixels.
pub(crate) const MIN_SIDE: u32 = 16;
pub(crate) const MAX_LONG_SIDE: u32 = 3840;
pub(crate) const MAX_SHORT_SIDE: u32 = 2160;

const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;

/// Turns RGB frames into H.264 frames as MP4 stores them.
pub(crate) struct H264Encoder {
    settings: VideoSettings,
    encoder: Encoder,
    /// How much coarser than asked for `encoder` quantises, in steps of its scale.
    coarser: u8,
    /// Frames and key frames that `encoder` has made.
    frames: u32,
    key_frames: u32,
    /// If the last frame was a key frame: which one of its encoder's, counted from 1.
    last_key_frame: Option<u32>,
    picture: Yuv420,
    /// The parameter sets, empty before the first frame.
    pub(crate) sps: Vec<u8>,
    pub(crate) pps: Vec<u8>,
}

/// One frame: NAL units, each after its length in 4 bytes, without parameter sets.
pub(crate) struct EncodedFrame {
    pub(crate) bytes: Vec<u8>,
    /// Whether decoding can start here.
    pub(crate) is_key: bool,
}

/// How much coarser to try a frame that did not fit, and the coarsest quantiser there is.
const COARSER_STEP: u8 = 4;
const MAX_QUANTISER: u8 = 51;

impl H264Encoder {
    /// An encoder for frames of the given size, which must be even.
    pub(crate) fn new(settings: &VideoSettings) -> Result<Self, openh264::Error> {
        Ok(Self {
            settings: *settings,
            encoder: new_encoder(settings, 0)?,
            coarser: 0,
            frames: 0,
            key_frames: 0,
            last_key_frame: None,
            picture: Yuv420::new(settings.width as usize, settings.height as usize),
            sps: Vec::new(),
            pps: Vec::new(),
        })
    }

    /// Encodes the next frame.
    ///
    /// OpenH264 fails, for good, on a frame of more than about 8 bits a pixel: noise at a fine
    /// quantiser. Such a frame begins anew with a coarser one, and the quantiser asked for comes
    /// back where the next key frame is due.
    pub(crate) fn encode(&mut self, rgb: &[u8]) -> Result<EncodedFrame, openh264::Error> {
        self.picture.fill_from_rgb(rgb);
        if self.coarser > 0 && self.frames == key_frame_period(&self.settings) {
            self.restart(0)?;
        }
        let frame = loop {
            match encode_picture(&mut self.encoder, &self.picture, &mut self.sps, &mut self.pps) {
                Ok(frame) => break frame,
                Err(error) => {
                    let coarser = self.coarser + COARSER_STEP;
                    if quantiser(self.settings.crf) + coarser > MAX_QUANTISER {
                        return Err(error);
                    }
                    self.restart(coarser)?;
                }
            }
        };
        self.frames += 1;
        self.key_frames += u32::from(frame.is_key);
        self.last_key_frame = frame.is_key.then_some(self.key_frames);
        Ok(frame)
    }

    /// Goes on with a new encoder, which begins with a key frame.
    fn restart(&mut self, coarser: u8) -> Result<(), openh264::Error> {
        // Of two key frames in a row, the second must have another `idr_pic_id`. Every encoder
        // counts them alike, so one is spent unseen after an encoder's first.
        self.encoder = new_encoder(&self.settings, coarser)?;
        self.coarser = coarser;
        self.frames = 0;
        self.key_frames = 0;
        if self.last_key_frame == Some(1) && self.encoder.encode(&self.picture).is_ok() {
            self.encoder.force_intra_frame();
            self.key_frames = 1;
        }
        Ok(())
    }
}

fn encode_picture(
    encoder: &mut Encoder,
    picture: &Yuv420,
    sps: &mut Vec<u8>,
    pps: &mut Vec<u8>,
) -> Result<EncodedFrame, openh264::Error> {
    let stream = encoder.encode(picture)?;
    let is_key = match stream.frame_type() {
        FrameType::IDR => true,
        FrameType::I | FrameType::P => false,
        _ => return Err(openh264::Error::msg("a frame came out empty")),
    };
    let mut bytes = Vec::new();
    for layer in (0..stream.num_layers()).filter_map(|index| stream.layer(index)) {
        for nal in (0..layer.nal_count()).filter_map(|index| layer.nal_unit(index)) {
            let nal = without_start_code(nal);
            let Some(&header) = nal.first() else { continue };
            match header & 0x1f {
                NAL_SPS => keep_parameter_set(sps, nal)?,
                NAL_PPS => keep_parameter_set(pps, nal)?,
                _ => {
                    bytes.extend((nal.len() as u32).to_be_bytes());
                    bytes.extend(nal);
                }
            }
        }
    }
    if bytes.is_empty() || sps.len() < 4 || pps.is_empty() {
        return Err(openh264::Error::msg("the stream came out incomplete"));
    }
    Ok(EncodedFrame { bytes, is_key })
}

fn new_encoder(settings: &VideoSettings, coarser: u8) -> Result<Encoder, openh264::Error> {
    let fps = settings.fps.as_f64();
    let pixels = f64::from(settings.width) * f64::from(settings.height);
    let qp = quantiser(settings.crf) + coarser;
    let config = EncoderConfig::new()
        .usage_type(UsageType::CameraVideoRealTime)
        // The one mode that keeps to a fixed quantiser in silence: `Off` ignores it, and the
        // others want to drop frames or warn on stderr that they may not.
        .rate_control_mode(RateControlMode::Bufferbased)
        .qp(QpRange::new(qp, qp))
        .skip_frames(false)
        // What would move the quantiser, or (background) make slow motion stick.
        .scene_change_detect(false)
        .adaptive_quantization(false)
        .background_detection(false)
        // Steers nothing at a fixed quantiser, but has to be plausible.
        .bitrate(BitRate::from_bps((pixels * fps / 4.0).clamp(1e5, 5e7) as u32))
        // OpenH264 knows no more than 60; the container holds the true rate.
        .max_frame_rate(FrameRate::from_hz(fps.clamp(1.0, 60.0) as f32))
        .intra_frame_period(IntraFramePeriod::from_num_frames(key_frame_period(settings)))
        // The same bytes on every machine.
        .num_threads(1)
        .vui(VuiConfig::bt601());
    Encoder::with_api_config(OpenH264API::from_source(), config)
}

/// Frames from one key frame to the next: a player can jump to every other second.
fn key_frame_period(settings: &VideoSettings) -> u32 {
    (2.0 * settings.fps.as_f64()).round().max(1.0) as u32
}

/// The quantiser for a quality. OpenH264 goes no lower than 12 with camera pictures, and given 0
/// it silently opens the range up to 42.
fn quantiser(crf: Crf) -> u8 {
    crf.get().max(12)
}

fn without_start_code(nal: &[u8]) -> &[u8] {
    nal.strip_prefix(&[0, 0, 0, 1]).or_else(|| nal.strip_prefix(&[0, 0, 1])).unwrap_or(nal)
}

/// MP4 keeps one set for the whole track, so it must not change on the way.
fn keep_parameter_set(kept: &mut Vec<u8>, nal: &[u8]) -> Result<(), openh264::Error> {
    if kept.is_empty() {
        kept.extend(nal);
    } else if kept != nal {
        return Err(openh264::Error::msg("the parameter sets changed within the video"));
    }
    Ok(())
}
