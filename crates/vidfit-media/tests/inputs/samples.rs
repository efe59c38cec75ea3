//! Small inputs to read.

use std::path::{Path, PathBuf};

use vidfit_media::{Fps, VideoSettings, VideoWriter};

/// A file of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/fixtures/pictures").join(name)
}

/// Frame `number` of a clip in which everything moves.
pub fn frame(width: u32, height: u32, number: u32) -> Vec<u8> {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let wave = |phase: f32, along: u32, scale: f32| {
                let at = (along + 5 * number) as f32 / scale + phase;
                (127.5 + 100.0 * at.sin()).round() as u8
            };
            rgb.extend([wave(0.0, x, 30.0), wave(1.0, y, 25.0), wave(2.0, x + y, 40.0)]);
        }
    }
    rgb
}

/// Writes a clip of such frames, in the form that the name says.
pub fn write_clip(path: &Path, width: u32, height: u32, frames: u32, fps: f64) {
    let settings = VideoSettings::new(width, height, Fps::new(fps).unwrap());
    let mut video = VideoWriter::create(path, settings).unwrap();
    for number in 0..frames {
        video.write_frame(&frame(width, height, number)).unwrap();
    }
    video.finish().unwrap();
}

/// Mean distance of the levels of two pictures.
pub fn mean_distance(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

/// Largest distance of the levels of two pictures.
pub fn max_distance(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or_default()
}

/// A chunk of a PNG, with its checksum.
pub fn png_chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut chunk = (content.len() as u32).to_be_bytes().to_vec();
    chunk.extend(name);
    chunk.extend(content);
    let mut crc = !0u32;
    for byte in &chunk[4..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    chunk.extend((!crc).to_be_bytes());
    chunk
}

/// The beginning of an RGB PNG of this size.
pub fn png_head(width: u32, height: u32) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    [b"\x89PNG\r\n\x1a\n".to_vec(), png_chunk(b"IHDR", &header)].concat()
}
