//! Frames to write.

use std::path::Path;

use vidfit_media::{VideoSettings, VideoWriter, Written};

/// A smooth gradient in all three channels that moves by two pixels a frame.
pub fn gradient(width: u32, height: u32, frame: u32) -> Vec<u8> {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let wave = |phase: f32, along: u32, scale: f32| {
                let at = (along + 2 * frame) as f32 / scale + phase;
                (127.5 + 100.0 * at.sin()).round() as u8
            };
            rgb.extend([wave(0.0, x, 60.0), wave(1.0, y, 45.0), wave(2.0, x + y, 80.0)]);
        }
    }
    rgb
}

/// Independent noise in every byte.
pub fn noise(width: u32, height: u32, frame: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(u64::from(frame) + 1);
    (0..width * height * 3)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn flat(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    colour.repeat((width * height) as usize)
}

pub fn write(
    path: &Path,
    settings: VideoSettings,
    frames: u32,
    frame: impl Fn(u32) -> Vec<u8>,
) -> Written {
    let mut video = VideoWriter::create(path, settings).unwrap();
    for index in 0..frames {
        video.write_frame(&frame(index)).unwrap();
    }
    let written = video.finish().unwrap();
    assert_eq!(written.frames, u64::from(frames));
    assert_eq!(written.path, path);
    written
}

/// Peak signal-to-noise ratio in dB.
#[cfg_attr(not(feature = "h264"), allow(dead_code))]
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares.max(1e-9)).log10()
}
