//! MP4s that we wrote, read back.

use vidfit_media::{Resize, VideoSource};

use crate::samples::{frame, mean_distance, write_clip};

#[test]
fn what_we_wrote_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write_clip(&path, 90, 50, 30, 30.0);
    let source = VideoSource::open(&path).unwrap();
    assert_eq!((source.frames(), source.size()), (30, (90, 50)));
    assert!((source.fps().unwrap() - 30.0).abs() < 1e-6, "{:?}", source.fps());
    let picked = source.pick(8.0, 49);
    assert_eq!(picked, [0, 4, 7, 11, 15, 19, 22, 26]);
    let read = source.read(&picked, 90, 50, Resize::Stretch).unwrap();
    assert_eq!(read.len(), picked.len());
    for (picture, &number) in read.iter().zip(&picked) {
        let distance = |number| mean_distance(&picture.rgb, &frame(90, 50, number));
        let (own, next) = (distance(number as u32), distance(number as u32 + 1));
        assert!(own < 3.0 && own < next / 3.0, "frame {number}: {own}, next {next}");
    }
}

#[test]
fn frames_are_resized_as_pictures_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write_clip(&path, 64, 48, 3, 8.0);
    let source = VideoSource::open(&path).unwrap();
    for resize in [Resize::Stretch, Resize::Crop, Resize::Pad] {
        let small = source.read(&[1], 32, 32, resize).unwrap().remove(0);
        let whole = source.read(&[1], 64, 48, resize).unwrap().remove(0);
        assert_eq!(small, whole.resized(32, 32, resize));
    }
}

#[test]
fn a_single_frame_is_a_video() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    write_clip(&path, 64, 48, 1, 8.0);
    let source = VideoSource::open(&path).unwrap();
    assert_eq!((source.frames(), source.fps()), (1, None));
    assert_eq!(source.pick(8.0, 49), [0]);
    assert_eq!(source.read(&[0], 64, 48, Resize::Stretch).unwrap().len(), 1);
}
