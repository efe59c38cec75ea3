use std::path::Path;

use image::AnimationDecoder;
use image::codecs::gif::GifDecoder;
use vidfit_media::{Fps, MediaError, OutputKind, VideoSettings, VideoWriter, estimate_bytes};

use crate::clips::{flat, gradient, noise, psnr, write};

fn settings(width: u32, height: u32, fps: f64) -> VideoSettings {
    VideoSettings::new(width, height, Fps::new(fps).unwrap())
}

/// RGB frames and their delays in milliseconds.
fn decode(path: &Path) -> Vec<(Vec<u8>, u32)> {
    let decoder = GifDecoder::new(std::io::Cursor::new(std::fs::read(path).unwrap())).unwrap();
    let frames = decoder.into_frames().collect_frames().unwrap();
    let rgb = |frame: image::Frame| {
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        let pixels = frame.into_buffer().pixels().flat_map(|p| [p[0], p[1], p[2]]).collect();
        (pixels, numerator / denominator)
    };
    frames.into_iter().map(rgb).collect()
}

#[test]
fn a_clip_survives_with_its_rate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    for (fps, frames) in [(8.0, 49), (30.0, 60), (12.0, 1)] {
        write(&path, settings(160, 96, fps), frames, |i| gradient(160, 96, i));
        let shown = decode(&path);
        assert_eq!(shown.len(), frames as usize);
        let milliseconds: u32 = shown.iter().map(|(_, delay)| delay).sum();
        let exact = 1000.0 * f64::from(frames) / fps;
        assert!((f64::from(milliseconds) - exact).abs() <= 5.0, "{milliseconds} for {exact}");
        for (i, (frame, _)) in shown.iter().enumerate() {
            assert_eq!(frame.len(), 160 * 96 * 3);
            let quality = psnr(frame, &gradient(160, 96, i as u32));
            assert!(quality > 28.0, "frame {i}: {quality:.1} dB");
        }
    }
}

#[test]
fn it_loops_forever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    write(&path, settings(16, 16, 8.0), 2, |i| gradient(16, 16, i));
    let bytes = std::fs::read(&path).unwrap();
    let block = b"NETSCAPE2.0\x03\x01\x00\x00\x00";
    assert!(bytes.windows(block.len()).any(|window| window == block));
}

#[test]
fn few_colours_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    let colours = [[255, 0, 0], [1, 254, 3], [0, 0, 255]];
    write(&path, settings(33, 17, 8.0), 3, |i| flat(33, 17, colours[i as usize]));
    for ((frame, _), colour) in decode(&path).iter().zip(colours) {
        assert!(*frame == flat(33, 17, colour));
    }
}

#[test]
fn noise_stays_below_the_estimate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    let written = write(&path, settings(320, 240, 8.0), 3, |i| noise(320, 240, i));
    let bound = estimate_bytes(OutputKind::Gif, 320, 240, 3);
    println!("{} bytes of {bound}", written.bytes);
    assert!(written.bytes <= bound);
}

#[test]
fn rates_and_sizes_that_gifs_do_not_have_are_refused() {
    for bad in [settings(16, 16, 60.0), settings(16, 16, 0.001), settings(70_000, 1, 8.0)] {
        let Err(MediaError::Unsupported { .. }) = VideoWriter::create(Path::new("a.gif"), bad)
        else {
            panic!("{bad:?} was accepted");
        };
    }
}
