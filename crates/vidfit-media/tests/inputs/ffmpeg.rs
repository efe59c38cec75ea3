//! Videos that ffmpeg, where it is installed, wrote; and the frames that it reads from them.

use std::path::{Path, PathBuf};
use std::process::Command;

use vidfit_media::{InputError, Picture, Resize, VideoSource};

use crate::samples::{max_distance, mean_distance};

/// A second and a half at 30 frames a second: a picture with its number in it, on moving colours.
const PATTERN: &str = "testsrc2=size=96x64:rate=30:duration=1.5";

/// Runs ffmpeg; `None`, said aloud, where it is not installed or lacks what is asked for.
fn ffmpeg(arguments: &[&str], output: &Path) -> Option<()> {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments)
        .arg(output)
        .status();
    match status {
        Ok(status) if status.success() => Some(()),
        other => {
            println!("skipped: ffmpeg is not installed, or cannot {arguments:?} ({other:?})");
            None
        }
    }
}

fn write(folder: &Path, name: &str, pattern: &str, coding: &[&str]) -> Option<PathBuf> {
    let path = folder.join(name);
    let arguments = [&["-f", "lavfi", "-i", pattern], coding].concat();
    ffmpeg(&arguments, &path).map(|()| path)
}

/// All frames as ffmpeg decodes them.
fn decoded_by_ffmpeg(path: &Path, width: u32, height: u32) -> Option<Vec<Vec<u8>>> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        .output()
        .ok()?;
    assert!(output.status.success());
    let frames = output.stdout.chunks_exact((width * height * 3) as usize);
    Some(frames.map(<[u8]>::to_vec).collect())
}

fn read_all(source: &VideoSource) -> Vec<Picture> {
    let (width, height) = source.size();
    let all: Vec<usize> = (0..source.frames()).collect();
    source.read(&all, width, height, Resize::Stretch).unwrap()
}

/// Holds each of our frames to ffmpeg's.
fn compare(name: &str, path: &Path) -> Option<()> {
    let source = VideoSource::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (width, height) = source.size();
    let theirs = decoded_by_ffmpeg(path, width, height)?;
    let ours = read_all(&source);
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let (mut worst, mut mean) = (0, 0f64);
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let (max, average) = (max_distance(&ours.rgb, theirs), mean_distance(&ours.rgb, theirs));
        assert!(max <= 4 && average < 1.0, "{name}, frame {number}: {max}, {average}");
        (worst, mean) = (worst.max(max), mean.max(average));
    }
    println!("{name}: {} frames, off by at most {worst}, {mean:.3} on average", ours.len());
    Some(())
}

const X264: [&str; 4] = ["-pix_fmt", "yuv420p", "-c:v", "libx264"];

#[test]
fn frames_and_colours_are_those_of_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 12] = [
        ("plain.mp4", &["-bf", "0"]),
        ("b_frames.mp4", &["-bf", "3", "-g", "12"]),
        ("pyramid.mp4", &["-bf", "8", "-x264-params", "b-adapt=0:b-pyramid=normal:ref=5"]),
        ("open_gop.mp4", &["-bf", "3", "-x264-params", "open-gop=1:keyint=12:bframes=3:b-adapt=0"]),
        ("main.mp4", &["-profile:v", "main", "-bf", "2"]),
        ("baseline.mp4", &["-profile:v", "baseline"]),
        ("slices.mp4", &["-x264-params", "slices=4:bframes=2"]),
        ("weighted.mp4", &["-vf", "fade=in:0:30", "-x264-params", "weightp=2:weightb=1:bframes=3"]),
        ("bt709.mp4", &["-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"]),
        ("full.mp4", &["-vf", "scale=out_range=full", "-color_range", "pc"]),
        ("old.mov", &["-bf", "2", "-movflags", "+faststart"]),
        ("lossless_start.mp4", &["-crf", "1", "-preset", "ultrafast"]),
    ];
    for (name, options) in cases {
        let coding = [&X264, options].concat();
        let Some(path) = write(folder.path(), name, PATTERN, &coding) else { return };
        if compare(name, &path).is_none() {
            return;
        }
    }
}

#[test]
fn a_large_untagged_video_is_bt601_as_in_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = "testsrc2=size=1280x720:rate=30:duration=0.1";
    let Some(path) = write(folder.path(), "hd.mp4", pattern, &X264) else { return };
    compare("hd.mp4", &path);
}

#[test]
fn cuts_and_turns_of_the_container_are_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let coding = [&X264[..], &["-bf", "2", "-g", "45"]].concat();
    let Some(whole) = write(folder.path(), "whole.mp4", PATTERN, &coding) else { return };
    let whole_name = whole.to_str().unwrap();
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("cut.mp4", &["-ss", "0.5"], &["-c", "copy"]),
        ("quarter.mp4", &[], &["-c", "copy", "-metadata:s:v", "rotate=90"]),
        ("half.mp4", &[], &["-c", "copy", "-metadata:s:v", "rotate=180"]),
        ("three_quarters.mp4", &[], &["-c", "copy", "-metadata:s:v", "rotate=270"]),
    ];
    for (name, before, after) in cases {
        let path = folder.path().join(name);
        let arguments = [before, &["-i", whole_name], after].concat();
        if ffmpeg(&arguments, &path).is_none() {
            return;
        }
        compare(name, &path);
    }
    let cut = VideoSource::open(&folder.path().join("cut.mp4")).unwrap();
    assert_eq!((cut.frames(), cut.times().unwrap()[0]), (30, 0.0));
    let turned = VideoSource::open(&folder.path().join("quarter.mp4")).unwrap();
    if turned.size() == (96, 64) {
        println!("skipped: this ffmpeg does not write the turn");
    }
}

#[test]
fn other_videos_are_read_through_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 7] = [
        ("a.mkv", &["-pix_fmt", "yuv420p", "-c:v", "libx264", "-bf", "2"]),
        ("a.webm", &["-c:v", "libvpx-vp9", "-deadline", "realtime"]),
        ("a.avi", &["-c:v", "mjpeg"]),
        ("422.mp4", &["-c:v", "libx264", "-pix_fmt", "yuv422p"]),
        ("10bit.mp4", &["-c:v", "libx264", "-pix_fmt", "yuv420p10le"]),
        ("hevc.mp4", &["-c:v", "libx265", "-x265-params", "log-level=none"]),
        ("pieces.mp4", &["-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov"]),
    ];
    for (name, coding) in cases {
        let Some(path) = write(folder.path(), name, PATTERN, coding) else { continue };
        let source = VideoSource::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((source.frames(), source.size()), (45, (96, 64)), "{name}");
        assert!((source.fps().unwrap() - 30.0).abs() < 0.1, "{name}: {:?}", source.fps());
        let picked = source.pick(8.0, 49);
        assert_eq!(picked, [0, 4, 7, 11, 15, 19, 22, 26, 30, 34, 37, 41], "{name}");
        let theirs = decoded_by_ffmpeg(&path, 96, 64).unwrap();
        let ours = source.read(&picked, 96, 64, Resize::Stretch).unwrap();
        for (picture, &number) in ours.iter().zip(&picked) {
            assert_eq!(max_distance(&picture.rgb, &theirs[number]), 0, "{name}, frame {number}");
        }
    }
}

#[test]
fn a_name_is_only_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plain) = write(folder.path(), "plain.mkv", PATTERN, &X264) else { return };
    for name in ["-i", "%d.mkv", "concat:a|b.mkv", "a b'\"$(x).mkv", "pipe:0"] {
        let path = folder.path().join(name);
        std::fs::copy(&plain, &path).unwrap();
        let source = VideoSource::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(source.read(&[44], 96, 64, Resize::Stretch).unwrap().len(), 1, "{name}");
    }
}

#[test]
fn a_video_that_breaks_off_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let Some(whole) = write(folder.path(), "whole.mkv", PATTERN, &X264) else { return };
    let bytes = std::fs::read(&whole).unwrap();
    let path = folder.path().join("cut.mkv");
    for kept in [40, bytes.len() / 2, bytes.len() - 10] {
        std::fs::write(&path, &bytes[..kept]).unwrap();
        // What is left can be read; what is not there cannot be had.
        match VideoSource::open(&path) {
            Ok(source) => assert!(source.frames() < 45, "{kept}: {}", source.frames()),
            Err(InputError::Ffmpeg { .. } | InputError::NoFrames { .. }) => {}
            Err(error) => panic!("{kept}: {error}"),
        }
    }
}
