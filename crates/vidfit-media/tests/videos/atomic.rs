//! Nothing half-written is ever seen, and nothing old is harmed.

use std::fs;
use std::path::Path;

use vidfit_media::{Fps, MediaError, VideoSettings, VideoWriter};

use crate::clips::{noise, write};

/// One name for each form this build writes.
const OUTPUTS: &[&str] =
    if cfg!(feature = "h264") { &["a.mp4", "a.gif", "a"] } else { &["a.gif", "a"] };

fn settings() -> VideoSettings {
    VideoSettings::new(64, 48, Fps::new(8.0).unwrap())
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push((path.display().to_string(), Vec::new()));
            all.extend(contents(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn nothing_is_seen_before_finish() {
    for name in OUTPUTS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut video = VideoWriter::create(&path, settings()).unwrap();
        video.write_frame(&noise(64, 48, 0)).unwrap();
        assert!(!path.exists(), "{name}");
        drop(video);
        assert_eq!(contents(folder.path()), [], "{name}");
    }
}

#[test]
fn an_old_output_outlives_an_abandoned_one() {
    for name in OUTPUTS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        write(&path, settings(), 2, |i| noise(64, 48, i));
        let before = contents(folder.path());

        let mut video = VideoWriter::create(&path, settings()).unwrap();
        video.write_frame(&noise(64, 48, 7)).unwrap();
        drop(video);
        assert!(contents(folder.path()) == before, "{name}");

        let empty = VideoWriter::create(&path, settings()).unwrap();
        assert!(matches!(empty.finish(), Err(MediaError::NoFrames { .. })), "{name}");
        assert!(contents(folder.path()) == before, "{name}");

        write(&path, settings(), 1, |_| noise(64, 48, 9));
        assert!(contents(folder.path()) != before, "{name}");
    }
}

#[test]
fn a_frame_of_the_wrong_size_is_refused_and_the_writer_goes_on() {
    for name in OUTPUTS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut video = VideoWriter::create(&path, settings()).unwrap();
        let error = video.write_frame(&[0; 100]).unwrap_err();
        assert!(matches!(
            error,
            MediaError::FrameSize { frame: 0, got_bytes: 100, expected_bytes: 9216, .. }
        ));
        video.write_frame(&noise(64, 48, 0)).unwrap();
        assert_eq!(video.finish().unwrap().frames, 1);
    }
}

#[cfg(unix)]
#[test]
fn outputs_are_as_readable_as_other_files() {
    use std::os::unix::fs::PermissionsExt;
    for name in OUTPUTS {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let path = folder.path().join(name);
        write(&path, settings(), 1, |i| noise(64, 48, i));
        let other = folder.path().join("other");
        let dir = path.is_dir();
        if dir {
            fs::create_dir(&other).unwrap()
        } else {
            fs::write(&other, b"").unwrap()
        }
        assert_eq!(mode(&path), mode(&other), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn what_a_link_points_to_is_replaced_not_the_link() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.gif"), folder.path().join("link.gif"));
    fs::write(&real, b"old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    write(&link, settings(), 1, |i| noise(64, 48, i));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&real).unwrap().starts_with(b"GIF89a"));
}

/// Run by the test below in a process that may write no more than 64 kB to a file.
#[cfg(unix)]
#[test]
#[ignore = "needs the file size limit that running_out_of_room_is_survived sets"]
fn write_until_the_room_is_out() {
    let Some(path) = std::env::var_os("VIDFIT_MEDIA_FULL_DISK") else {
        return;
    };
    let settings = VideoSettings::new(320, 240, Fps::new(8.0).unwrap());
    let mut video = VideoWriter::create(Path::new(&path), settings).unwrap();
    let error = (0..20).find_map(|i| video.write_frame(&noise(320, 240, i)).err()).unwrap();
    assert!(matches!(error, MediaError::DiskFull { .. }), "{error}");
    let error = video.write_frame(&noise(320, 240, 0)).unwrap_err();
    assert!(matches!(error, MediaError::GivenUp { .. }), "{error}");
    assert!(matches!(video.finish(), Err(MediaError::GivenUp { .. })));
}

#[cfg(unix)]
#[test]
fn running_out_of_room_is_survived() {
    for name in OUTPUTS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        write(&path, settings(), 1, |i| noise(64, 48, i));
        let before = contents(folder.path());
        // A write beyond the limit fails like one on a full disk once its signal is ignored;
        // ulimit counts blocks of 512 bytes.
        let output = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "atomic::write_until_the_room_is_out"])
            .env("VIDFIT_MEDIA_FULL_DISK", &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
        assert!(contents(folder.path()) == before, "{name}");
    }
}
