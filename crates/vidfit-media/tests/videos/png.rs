use std::fs;
use std::path::Path;

use vidfit_media::{
    Fps, MediaError, OutputKind, VideoSettings, VideoWriter, check_target, estimate_bytes,
};

use crate::clips::{noise, write};

fn settings() -> VideoSettings {
    VideoSettings::new(50, 31, Fps::new(8.0).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn frames_come_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain", "slash/", "v1.5/"] {
        let path = folder.path().join(name);
        let written = write(&path, settings(), 3, |i| noise(50, 31, i));
        assert_eq!(written.kind, OutputKind::PngFolder);
        assert_eq!(names(&path), ["frame_00000.png", "frame_00001.png", "frame_00002.png"]);
        let mut bytes = 0;
        for i in 0..3 {
            let file = path.join(format!("frame_{i:05}.png"));
            bytes += fs::metadata(&file).unwrap().len();
            let image = image::open(file).unwrap().into_rgb8();
            assert_eq!(image.dimensions(), (50, 31));
            assert!(image.into_raw() == noise(50, 31, i));
        }
        assert_eq!(written.bytes, bytes);
        assert!(bytes <= estimate_bytes(OutputKind::PngFolder, 50, 31, 3));
    }
    assert_eq!(names(folder.path()), ["plain", "slash", "v1.5"]);
}

#[test]
fn our_own_frames_are_replaced_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    write(&path, settings(), 5, |i| noise(50, 31, i));
    write(&path, settings(), 2, |i| noise(50, 31, 100 + i));
    assert_eq!(names(&path), ["frame_00000.png", "frame_00001.png"]);
    let image = image::open(path.join("frame_00000.png")).unwrap().into_rgb8();
    assert!(image.into_raw() == noise(50, 31, 100));
    assert_eq!(names(folder.path()), ["frames"]);
}

#[test]
fn an_empty_folder_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames");
    fs::create_dir(&path).unwrap();
    write(&path, settings(), 1, |i| noise(50, 31, i));
    assert_eq!(names(&path), ["frame_00000.png"]);
}

#[test]
fn what_is_not_ours_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photos");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("holiday.png"), b"dear").unwrap();
    let refused = |result: Result<_, MediaError>| {
        assert!(matches!(result, Err(MediaError::ForeignFiles { .. })));
    };
    refused(VideoWriter::create(&path, settings()).map(drop));
    refused(check_target(&path, 0));

    // The same when it comes after the writer has begun.
    let path = folder.path().join("frames");
    let mut video = VideoWriter::create(&path, settings()).unwrap();
    video.write_frame(&noise(50, 31, 0)).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("holiday.png"), b"dear").unwrap();
    refused(video.finish().map(drop));
    assert_eq!(names(&path), ["holiday.png"]);
    assert_eq!(names(folder.path()), ["frames", "photos"]);
}
