//! Folders of pictures.

use std::fs;
use std::sync::atomic::AtomicBool;

use vidfit_media::{InputError, Picture, Resize, VideoSource};

use crate::samples::{fixture, frame, write_clip};

#[test]
fn frames_come_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    write_clip(&folder.path().join("written"), 40, 32, 3, 8.0);
    let frames = folder.path().join("frames");
    fs::create_dir(&frames).unwrap();
    for (from, to) in [(0, "2.png"), (1, "10.png"), (2, "011.PNG")] {
        let from = folder.path().join(format!("written/frame_{from:05}.png"));
        fs::copy(from, frames.join(to)).unwrap();
    }
    // Others' files are left alone.
    fs::write(frames.join("notes.txt"), "2 is the best").unwrap();
    fs::write(frames.join(".2.png"), "hidden").unwrap();
    fs::create_dir(frames.join("old.png")).unwrap();

    let source = VideoSource::open(&frames).unwrap();
    assert_eq!((source.frames(), source.size(), source.fps()), (3, (40, 32), None));
    assert_eq!(source.pick(8.0, 49), [0, 1, 2]);
    assert_eq!(source.pick(8.0, 2), [0, 1]);
    let read = source.read(&[0, 2], 40, 32, Resize::Stretch).unwrap();
    let expected = |number| Picture { width: 40, height: 32, rgb: frame(40, 32, number) };
    assert_eq!(read, [expected(0), expected(2)]);
    let small = source.read(&[1], 20, 16, Resize::Stretch).unwrap();
    assert_eq!(small, [expected(1).resized(20, 16, Resize::Stretch)]);
}

#[test]
fn the_odd_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_clip(&folder.path().join("frames"), 40, 32, 2, 8.0);
    fs::copy(fixture("samples/turned6.jpg"), folder.path().join("frames/frame_00001b.jpg"))
        .unwrap();
    let error = VideoSource::open(&folder.path().join("frames")).unwrap_err();
    assert!(
        matches!(&error, InputError::OddOne { odd, odd_width: 16, odd_height: 20, .. } if odd == "frame_00001b.jpg"),
        "{error}"
    );
}

#[test]
fn indices_must_rise_and_be_there() {
    let folder = tempfile::tempdir().unwrap();
    write_clip(&folder.path().join("frames"), 40, 32, 2, 8.0);
    let source = VideoSource::open(&folder.path().join("frames")).unwrap();
    for indices in [&[2][..], &[1, 0], &[1, 1]] {
        let error = source.read(indices, 40, 32, Resize::Stretch).unwrap_err();
        assert!(matches!(error, InputError::NoSuchFrame { frames: 2, .. }), "{error}");
    }
    assert_eq!(source.read(&[], 40, 32, Resize::Stretch).unwrap(), []);
}

#[test]
fn reading_can_be_interrupted_at_any_frame() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["frames", "a.gif", "a.mp4"] {
        if name == "a.mp4" && cfg!(not(feature = "h264")) {
            continue;
        }
        let path = folder.path().join(name);
        write_clip(&path, 40, 32, 3, 8.0);
        let source = VideoSource::open(&path).unwrap();
        let read = |stop| source.read_until(&[1], 40, 32, Resize::Stretch, &AtomicBool::new(stop));
        assert_eq!(read(false).unwrap().len(), 1, "{name}");
        let error = read(true).unwrap_err();
        assert!(matches!(error, InputError::Interrupted { .. }), "{name}: {error}");
    }
}
