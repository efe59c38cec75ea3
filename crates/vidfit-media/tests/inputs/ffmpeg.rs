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

/// How colours became YUV: the weights of red and blue, and whether levels go from 0 to 255.
type Colours = (f64, f64, bool);
const BT601: Colours = (0.299, 0.114, false);
const BT709: Colours = (0.2126, 0.0722, false);
const FULL: Colours = (0.299, 0.114, true);

/// All frames as ffmpeg decodes them, made RGB by the formula, each chroma sample for its four
/// pixels.
fn decoded_by_the_book(path: &Path, size: (u32, u32), colours: Colours) -> Option<Vec<Vec<u8>>> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-vsync", "passthrough", "-f", "rawvideo", "-"])
        .output()
        .ok()?;
    let (width, height) = (size.0 as usize, size.1 as usize);
    let (red_weight, blue_weight, is_full) = colours;
    let (floor, luma_range, chroma_range) =
        if is_full { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
    let (luma, chroma) = (width * height, width * height / 4);
    let to_rgb = |planes: &[u8]| -> Vec<u8> {
        let places = (0..height).flat_map(|row| (0..width).map(move |column| (row, column)));
        places
            .flat_map(|(row, column)| {
                let at = luma + row / 2 * (width / 2) + column / 2;
                let y = (f64::from(planes[row * width + column]) - floor) / luma_range;
                let u = (f64::from(planes[at]) - 128.0) / chroma_range;
                let v = (f64::from(planes[at + chroma]) - 128.0) / chroma_range;
                let red = y + 2.0 * (1.0 - red_weight) * v;
                let blue = y + 2.0 * (1.0 - blue_weight) * u;
                let rest = y - red_weight * red - blue_weight * blue;
                [red, rest / (1.0 - red_weight - blue_weight), blue]
            })
            .map(|level| (255.0 * level).round().clamp(0.0, 255.0) as u8)
            .collect()
    };
    Some(output.stdout.chunks_exact(luma + 2 * chroma).map(to_rgb).collect())
}

/// The share of levels that are off by more than `most`.
fn share_beyond(ours: &[Picture], theirs: &[Vec<u8>], most: u8) -> f64 {
    let pairs = || ours.iter().zip(theirs).flat_map(|(a, b)| a.rgb.iter().zip(b));
    pairs().filter(|(a, b)| a.abs_diff(**b) > most).count() as f64 / pairs().count() as f64
}

/// Holds each of our frames to ffmpeg's.
fn compare(name: &str, path: &Path, colours: Colours, has_b_frames: bool) -> Option<()> {
    let source = VideoSource::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (width, height) = source.size();
    let ours = read_all(&source);
    let exact = decoded_by_the_book(path, (width, height), colours)?;
    assert_eq!(ours.len(), exact.len(), "{name}");
    let worst = ours.iter().zip(&exact).map(|(a, b)| max_distance(&a.rgb, b)).max()?;
    let share = share_beyond(&ours, &exact, 1);
    // OpenH264 interpolates a few blocks of B-frames otherwise than ffmpeg, by a level or more.
    let (most, most_share) = if has_b_frames { (16, 0.005) } else { (1, 0.0) };
    assert!(worst <= most && share <= most_share, "{name}: {worst}, {share}");

    // ffmpeg's own conversion rounds down at every step.
    let theirs = decoded_by_ffmpeg(path, width, height)?;
    let mean = ours.iter().zip(&theirs).map(|(a, b)| mean_distance(&a.rgb, b)).fold(0.0, f64::max);
    let far = share_beyond(&ours, &theirs, 3);
    assert!(mean < 1.0 && far < 0.005, "{name}: {mean} on average, {far} of it by more than 3");
    let percent = 100.0 * share;
    println!(
        "{name}: decoded within {worst}, {percent:.4} % by more than 1; rgb24 {mean:.2} on average"
    );
    Some(())
}

const X264: [&str; 4] = ["-pix_fmt", "yuv420p", "-c:v", "libx264"];

#[test]
fn frames_and_colours_are_those_of_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 11] = [
        ("plain.mp4", &["-bf", "0"]),
        ("b_frames.mp4", &["-bf", "3", "-g", "12"]),
        ("pyramid.mp4", &["-bf", "8", "-x264-params", "b-adapt=0:b-pyramid=normal:ref=5"]),
        ("open_gop.mp4", &["-bf", "3", "-x264-params", "open-gop=1:keyint=12:bframes=3:b-adapt=0"]),
        ("main.mp4", &["-profile:v", "main", "-bf", "2"]),
        ("baseline.mp4", &["-profile:v", "baseline"]),
        ("slices.mp4", &["-x264-params", "slices=4:bframes=2"]),
        ("weighted.mp4", &["-vf", "fade=in:0:30", "-x264-params", "weightp=2:weightb=1:bframes=3"]),
        ("long.mp4", &["-bf", "3", "-r", "30", "-vf", "loop=4:45", "-g", "60"]),
        ("old.mov", &["-bf", "2", "-movflags", "+faststart"]),
        ("lossless_start.mp4", &["-crf", "1", "-preset", "ultrafast"]),
    ];
    for (name, options) in cases {
        let coding = [&X264, options].concat();
        let Some(path) = write(folder.path(), name, PATTERN, &coding) else { return };
        let has_b_frames = !["plain.mp4", "baseline.mp4", "lossless_start.mp4"].contains(&name);
        if compare(name, &path, BT601, has_b_frames).is_none() {
            return;
        }
    }
}

#[test]
fn colours_are_what_the_stream_says() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], Colours); 2] = [
        ("bt709.mp4", &["-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709"], BT709),
        ("full.mp4", &["-vf", "scale=out_range=full", "-color_range", "pc"], FULL),
    ];
    for (name, options, colours) in cases {
        let coding = [&X264, options, &["-bf", "0"]].concat();
        let Some(path) = write(folder.path(), name, PATTERN, &coding) else { return };
        compare(name, &path, colours, false);
    }
}

#[test]
fn a_large_untagged_video_is_bt601_as_in_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = "testsrc2=size=1280x720:rate=30:duration=0.1";
    let Some(path) = write(folder.path(), "hd.mp4", pattern, &X264) else { return };
    compare("hd.mp4", &path, BT601, true);
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
        compare(name, &path, BT601, true);
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
    for kept in [40, bytes.len() / 3, bytes.len() / 2] {
        std::fs::write(&path, &bytes[..kept]).unwrap();
        // What is left can be read; what is not there cannot be had.
        match VideoSource::open(&path) {
            Ok(source) => assert!(source.frames() < 45, "{kept}: {}", source.frames()),
            Err(InputError::Ffmpeg { .. } | InputError::NoFrames { .. }) => {}
            Err(error) => panic!("{kept}: {error}"),
        }
    }
}
