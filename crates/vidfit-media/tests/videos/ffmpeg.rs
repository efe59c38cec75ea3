//! What ffmpeg, where it is installed, makes of our MP4s.

use std::path::Path;
use std::process::Command;

use vidfit_media::{Fps, VideoSettings};

use crate::clips::{flat, gradient, psnr, write};

/// The program's standard output, or `None` (said aloud) where it is not installed.
fn run(program: &str, arguments: &[&str], path: &Path) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(["-v", "error"]);
    if program == "ffmpeg" {
        command.args(["-nostdin", "-i"]).arg(path).args(arguments).arg("-");
    } else {
        command.args(arguments).arg(path);
    }
    match command.output() {
        Ok(output) => {
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && complaints.is_empty(), "{program}: {complaints}");
            Some(output.stdout)
        }
        Err(error) => {
            println!("skipped: {program} is not installed ({error})");
            None
        }
    }
}

#[test]
fn ffprobe_agrees_on_all_fields() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("one.mp4", 8.0, 1, "8/1"),
        ("a.mp4", 8.0, 49, "8/1"),
        ("b.mp4", 7.0, 20, "7/1"),
        ("c.mp4", 29.97, 31, "30000/1001"),
        ("d.mp4", 120.0, 31, "120/1"),
    ];
    for (name, fps, frames, rate) in cases {
        let path = folder.path().join(name);
        let settings = VideoSettings::new(96, 64, Fps::new(fps).unwrap());
        write(&path, settings, frames, |i| gradient(96, 64, i));
        let arguments = ["-count_frames", "-show_streams", "-of", "default"];
        let Some(output) = run("ffprobe", &arguments, &path) else { return };
        let output = String::from_utf8(output).unwrap();
        let count = format!("nb_read_frames={frames}");
        let average = format!("avg_frame_rate={rate}");
        for line in [
            "codec_name=h264",
            "codec_tag_string=avc1",
            "pix_fmt=yuv420p",
            "width=96",
            "height=64",
            "sample_aspect_ratio=1:1",
            "color_range=tv",
            "color_space=smpte170m",
            "color_transfer=smpte170m",
            "color_primaries=smpte170m",
            "has_b_frames=0",
            "start_pts=0",
            &count,
            &average,
        ] {
            assert!(output.lines().any(|l| l == line), "{name}: no {line} in\n{output}");
        }
    }
}

#[test]
fn ffmpeg_sees_our_colours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 120, 40]];
    let settings = VideoSettings::new(64, 64, Fps::new(8.0).unwrap());
    write(&path, settings, 4, |i| flat(64, 64, colours[i as usize]));
    let to_rgb = ["-f", "rawvideo", "-pix_fmt", "rgb24"];
    let Some(rgb) = run("ffmpeg", &to_rgb, &path) else { return };
    assert_eq!(rgb.len(), 4 * 64 * 64 * 3);
    for (frame, colour) in rgb.chunks_exact(64 * 64 * 3).zip(colours) {
        for (pixel, channel) in frame.iter().zip(colour.iter().cycle()) {
            assert!(pixel.abs_diff(*channel) <= 4, "{colour:?} became {pixel}");
        }
    }

    write(&path, VideoSettings { width: 240, height: 160, ..settings }, 9, |i| {
        gradient(240, 160, i)
    });
    let Some(rgb) = run("ffmpeg", &to_rgb, &path) else { return };
    for (i, frame) in rgb.chunks_exact(240 * 160 * 3).enumerate() {
        let quality = psnr(frame, &gradient(240, 160, i as u32));
        assert!(quality > 35.0, "frame {i}: {quality:.1} dB");
    }
}
