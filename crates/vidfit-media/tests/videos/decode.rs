//! An MP4 back into frames, by other people's code as far as there is some.

use std::path::Path;

use openh264::decoder::Decoder;
use openh264::formats::YUVSource;

pub struct Decoded {
    pub width: usize,
    pub height: usize,
    /// RGB frames.
    pub frames: Vec<Vec<u8>>,
    /// When each frame is shown, in seconds.
    pub times: Vec<f64>,
    pub length_seconds: f64,
    pub key_frames: usize,
}

pub fn decode(path: &Path) -> Decoded {
    let bytes = std::fs::read(path).unwrap();
    let mp4 = re_mp4::Mp4::read_bytes(&bytes).unwrap();
    assert_eq!(mp4.tracks().len(), 1);
    let track = mp4.tracks().values().next().unwrap();
    let (sps, pps) = parameter_sets(&track.raw_codec_config(&mp4).unwrap());

    let mut decoder = Decoder::new().unwrap();
    let mut decoded = Decoded {
        width: track.width.into(),
        height: track.height.into(),
        frames: Vec::new(),
        times: track
            .samples
            .iter()
            .map(|s| s.composition_timestamp as f64 / s.timescale as f64)
            .collect(),
        length_seconds: track.duration as f64 / track.timescale as f64,
        key_frames: track.samples.iter().filter(|sample| sample.is_sync).count(),
    };
    let mut stream = annex_b(&[&sps, &pps]);
    for sample in &track.samples {
        let mut rest = &bytes[sample.byte_range()];
        let mut nals = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            nals.push(&rest[4..4 + length]);
            rest = &rest[4 + length..];
        }
        stream.extend(annex_b(&nals));
        if let Some(picture) = decoder.decode(&stream).unwrap() {
            decoded.frames.push(rgb(&picture));
        }
        stream.clear();
    }
    for picture in decoder.flush_remaining().unwrap() {
        decoded.frames.push(rgb(&picture));
    }
    decoded
}

/// The names of the outermost boxes, in order.
pub fn outer_boxes(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        names.push(String::from_utf8(bytes[at + 4..at + 8].to_vec()).unwrap());
        at += length;
    }
    assert_eq!(at, bytes.len());
    names
}

fn parameter_sets(avcc: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let sps_length = usize::from(u16::from_be_bytes([avcc[6], avcc[7]]));
    let sps = &avcc[8..8 + sps_length];
    let rest = &avcc[8 + sps_length + 1..];
    let pps_length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    (sps.to_vec(), rest[2..2 + pps_length].to_vec())
}

fn annex_b(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
}

/// BT.601, limited range, straight from the formula in floating point.
fn rgb(picture: &impl YUVSource) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let (y_stride, u_stride, v_stride) = picture.strides();
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for column in 0..width {
            let y = (f64::from(picture.y()[row * y_stride + column]) - 16.0) / 219.0;
            let u = f64::from(picture.u()[row / 2 * u_stride + column / 2]) - 128.0;
            let v = f64::from(picture.v()[row / 2 * v_stride + column / 2]) - 128.0;
            let (u, v) = (u / 224.0, v / 224.0);
            let red = y + 1.402 * v;
            let blue = y + 1.772 * u;
            let green = (y - 0.299 * red - 0.114 * blue) / 0.587;
            rgb.extend([red, green, blue].map(|c| (255.0 * c).round().clamp(0.0, 255.0) as u8));
        }
    }
    rgb
}
