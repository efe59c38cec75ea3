use std::path::Path;

use vidfit_media::{Crf, Fps, MediaError, OutputKind, VideoSettings, VideoWriter, estimate_bytes};

use crate::clips::{flat, gradient, noise, psnr, write};
use crate::decode::{decode, outer_boxes};

fn settings(width: u32, height: u32, fps: f64) -> VideoSettings {
    VideoSettings::new(width, height, Fps::new(fps).unwrap())
}

fn crf(value: u32) -> Crf {
    Crf::new(value).unwrap()
}

#[test]
fn a_smooth_clip_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let (width, height) = (240, 160);
    write(&path, settings(width, height, 8.0), 49, |i| gradient(width, height, i));

    assert_eq!(outer_boxes(&path), ["ftyp", "moov", "mdat"]);
    let video = decode(&path);
    assert_eq!((video.width, video.height), (240, 160));
    assert_eq!(video.frames.len(), 49);
    assert_eq!(video.key_frames, 4, "one every two seconds");
    assert!((video.length_seconds - 49.0 / 8.0).abs() < 1e-9);
    for (i, time) in video.times.iter().enumerate() {
        assert!((time - i as f64 / 8.0).abs() < 1e-9, "frame {i} is shown at {time} s");
    }
    for (i, frame) in video.frames.iter().enumerate() {
        let quality = psnr(frame, &gradient(width, height, i as u32));
        assert!(quality > 35.0, "frame {i}: {quality:.1} dB");
        // A frame is itself, not its neighbour.
        let neighbour = psnr(frame, &gradient(width, height, i as u32 + 1));
        assert!(quality > neighbour + 3.0, "frame {i}: {quality:.1} dB, next {neighbour:.1} dB");
    }
}

#[test]
fn flat_colours_keep_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let colours =
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [128, 128, 128]];
    write(&path, settings(64, 64, 8.0), 6, |i| flat(64, 64, colours[i as usize]));
    let video = decode(&path);
    assert_eq!(video.frames.len(), 6);
    for (frame, colour) in video.frames.iter().zip(colours) {
        for pixel in frame.chunks_exact(3) {
            for channel in 0..3 {
                let distance = pixel[channel].abs_diff(colour[channel]);
                assert!(distance <= 4, "{colour:?} became {pixel:?}");
            }
        }
    }
}

#[test]
fn every_frame_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for (name, frames, fps) in [
        ("one.mp4", 1, 8.0),
        ("long.mp4", 161, 16.0),
        ("fast.mp4", 130, 240.0),
        ("slow.mp4", 3, 0.5),
    ] {
        let path = folder.path().join(name);
        write(&path, settings(96, 64, fps), frames, |i| gradient(96, 64, i));
        let video = decode(&path);
        assert_eq!(video.frames.len(), frames as usize, "{name}");
        assert_eq!(video.times.len(), frames as usize, "{name}");
        assert!((video.length_seconds - f64::from(frames) / fps).abs() < 1e-6, "{name}");
    }
}

#[test]
fn noise_loses_no_frame_at_any_quality() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.mp4");
    let (width, height) = (720, 480);
    for quality in [0, 18, 51] {
        let settings = VideoSettings { crf: crf(quality), ..settings(width, height, 8.0) };
        let written = write(&path, settings, 17, |i| noise(width, height, i));
        assert_eq!(decode(&path).frames.len(), 17, "crf {quality}");
        let bits = 8.0 * written.bytes as f64 / f64::from(width * height * 17);
        println!("noise at crf {quality}: {bits:.2} bits a pixel");
        // Twice: the frames wait beside the file.
        let bound = estimate_bytes(OutputKind::Mp4, width, height, 17);
        assert!(2 * written.bytes <= bound, "{} bytes of {bound}", written.bytes);
    }
}

/// The encoder fails on noise as fine as this, and is replaced by a coarser one until the next key
/// frame: every frame must still be there, in order, and the smooth ones fine again in the end.
#[test]
fn noise_between_smooth_frames_harms_only_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    for fps in [8.0, 0.5] {
        let source = |i| if i == 1 { noise(240, 160, i) } else { gradient(240, 160, i) };
        write(&path, settings(240, 160, fps), 40, source);
        let video = decode(&path);
        assert_eq!(video.frames.len(), 40);
        for (i, frame) in video.frames.iter().enumerate() {
            let quality = psnr(frame, &source(i as u32));
            let least = if i == 1 { 10.0 } else { 33.0 };
            assert!(quality > least, "{fps} fps, frame {i}: {quality:.1} dB");
        }
    }
}

#[test]
fn a_lower_crf_makes_a_larger_and_better_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = |i| {
        let (mut smooth, grain) = (gradient(160, 96, i), noise(160, 96, i));
        smooth.iter_mut().zip(grain).for_each(|(s, g)| *s = s.saturating_add(g / 16));
        smooth
    };
    let mut previous: Option<(u64, f64)> = None;
    for quality in [12, 18, 24, 30, 40, 51] {
        let path = folder.path().join("a.mp4");
        let settings = VideoSettings { crf: crf(quality), ..settings(160, 96, 8.0) };
        let bytes = write(&path, settings, 9, source).bytes;
        let dbs = psnr(&decode(&path).frames[8], &source(8));
        println!("crf {quality}: {bytes} bytes, {dbs:.1} dB");
        if let Some((more_bytes, more_dbs)) = previous {
            assert!(bytes < more_bytes && dbs < more_dbs, "crf {quality}");
        }
        previous = Some((bytes, dbs));
    }
}

#[test]
fn the_same_frames_make_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = ["a.mp4", "b.mp4"].map(|name| {
        let path = folder.path().join(name);
        write(&path, settings(96, 64, 8.0), 9, |i| gradient(96, 64, i));
        std::fs::read(path).unwrap()
    });
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn sizes_that_are_no_multiple_of_16_are_cropped_not_padded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write(&path, settings(90, 50, 8.0), 3, |i| gradient(90, 50, i));
    let video = decode(&path);
    assert_eq!((video.width, video.height), (90, 50));
    assert!(psnr(&video.frames[2], &gradient(90, 50, 2)) > 35.0);
}

#[test]
fn sizes_that_h264_cannot_hold_are_refused() {
    for (width, height) in [(97, 64), (96, 63), (8, 64), (4096, 64), (2400, 2400), (0, 64)] {
        let error = VideoWriter::create(Path::new("a.mp4"), settings(width, height, 8.0));
        let Err(MediaError::Unsupported { .. }) = error else {
            panic!("{width}x{height} was accepted");
        };
    }
    assert!(matches!(Crf::new(52), Err(MediaError::BadCrf { crf: 52 })));
}
