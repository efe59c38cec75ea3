//! GIFs and other animations.

use std::fs::{self, File};
use std::path::Path;

use gif::{DisposalMethod, Encoder, Frame};
use vidfit_media::{Picture, Resize, VideoSource, read_picture};

use crate::samples::{
    fixture, frame, max_distance, mean_distance, png_chunk, png_head, write_clip,
};

fn colour_at(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
    let at = 3 * (y * picture.width + x) as usize;
    picture.rgb[at..at + 3].try_into().unwrap()
}

#[test]
fn a_gif_that_we_wrote_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    write_clip(&path, 48, 40, 9, 8.0);
    let source = VideoSource::open(&path).unwrap();
    assert_eq!((source.frames(), source.size()), (9, (48, 40)));
    assert!((source.fps().unwrap() - 8.0).abs() < 1e-9, "{:?}", source.fps());
    assert_eq!(source.pick(8.0, 49), (0..9).collect::<Vec<_>>());
    assert_eq!(source.pick(4.0, 49), [0, 2, 4, 6, 8]);
    let read = source.read(&[0, 3, 8], 48, 40, Resize::Stretch).unwrap();
    for (picture, number) in read.iter().zip([0, 3, 8]) {
        let distance = mean_distance(&picture.rgb, &frame(48, 40, number));
        assert!(distance < 6.0, "frame {number}: {distance}");
    }
}

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLACK: [u8; 3] = [0, 0, 0];

/// Red all over; then a green square at (4, 4) that is disposed of as given; then one at (10, 10).
fn write_squares(path: &Path, dispose: DisposalMethod, delays: [u16; 3]) {
    let palette = [RED, GREEN, BLACK].concat();
    let mut gif = Encoder::new(File::create(path).unwrap(), 20, 20, &palette).unwrap();
    let whole = Frame { width: 20, height: 20, buffer: vec![0; 400].into(), ..Frame::default() };
    let square = |at: u16| Frame {
        left: at,
        top: at,
        width: 4,
        height: 4,
        // Its first pixel lets through what is beneath.
        buffer: [vec![2], vec![1; 15]].concat().into(),
        transparent: Some(2),
        dispose,
        ..Frame::default()
    };
    for (frame, delay) in [whole, square(4), square(10)].into_iter().zip(delays) {
        gif.write_frame(&Frame { delay, ..frame }).unwrap();
    }
}

#[test]
fn disposal_and_transparency_are_those_of_browsers() {
    let folder = tempfile::tempdir().unwrap();
    for (dispose, left_behind) in [
        (DisposalMethod::Keep, GREEN),
        (DisposalMethod::Background, BLACK),
        (DisposalMethod::Previous, RED),
    ] {
        let path = folder.path().join("a.gif");
        write_squares(&path, dispose, [10, 10, 10]);
        let source = VideoSource::open(&path).unwrap();
        let frames = source.read(&[0, 1, 2], 20, 20, Resize::Stretch).unwrap();
        assert_eq!(colour_at(&frames[0], 5, 5), RED);
        assert_eq!(colour_at(&frames[1], 5, 5), GREEN);
        assert_eq!(colour_at(&frames[1], 4, 4), RED, "transparent");
        assert_eq!(colour_at(&frames[2], 5, 5), left_behind, "{dispose:?}");
        assert_eq!(colour_at(&frames[2], 11, 11), GREEN);
    }
}

#[test]
fn delays_say_when_frames_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    write_squares(&path, DisposalMethod::Keep, [25, 0, 50]);
    let source = VideoSource::open(&path).unwrap();
    let times = source.times().unwrap();
    // No delay at all is shown as 0.1 s.
    for (time, expected) in times.iter().zip([0.0, 0.25, 0.35]) {
        assert!((time - expected).abs() < 1e-9, "{times:?}");
    }
}

/// An animated PNG of two frames: all black, then a grey square on it.
fn animated_png() -> Vec<u8> {
    let control = |number: u32, [width, height, left, top]: [u32; 4], per_second: u16| {
        let mut content = Vec::new();
        for value in [number, width, height, left, top] {
            content.extend(value.to_be_bytes());
        }
        content.extend([0, 1]);
        content.extend(per_second.to_be_bytes());
        content.extend([0, 0]);
        png_chunk(b"fcTL", &content)
    };
    // Rows with a filter byte, in one stored block of zlib.
    let pixels = |width: usize, height: usize, level: u8| {
        let row = [vec![0], vec![level; 3 * width]].concat();
        let rows = row.repeat(height);
        let (mut low, mut high) = (1u32, 0u32);
        for &byte in &rows {
            low = (low + u32::from(byte)) % 65521;
            high = (high + low) % 65521;
        }
        let length = rows.len() as u16;
        let mut stored = vec![0x78, 0x01, 1];
        stored.extend(length.to_le_bytes());
        stored.extend((!length).to_le_bytes());
        stored.extend(rows);
        stored.extend((high << 16 | low).to_be_bytes());
        stored
    };
    [
        png_head(16, 16),
        png_chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]),
        control(0, [16, 16, 0, 0], 4),
        png_chunk(b"IDAT", &pixels(16, 16, 0)),
        control(1, [4, 4, 8, 8], 4),
        png_chunk(b"fdAT", &[vec![0, 0, 0, 2], pixels(4, 4, 99)].concat()),
        png_chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn an_animated_png_is_a_video() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    fs::write(&path, animated_png()).unwrap();
    let source = VideoSource::open(&path).unwrap();
    assert_eq!((source.frames(), source.size(), source.fps()), (2, (16, 16), Some(4.0)));
    let frames = source.read(&[0, 1], 16, 16, Resize::Stretch).unwrap();
    assert_eq!(colour_at(&frames[0], 9, 9), BLACK);
    assert_eq!(colour_at(&frames[1], 9, 9), [99; 3]);
    assert_eq!(colour_at(&frames[1], 7, 7), BLACK);
}

#[test]
fn an_animated_png_is_one_behind_a_long_profile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let moving = animated_png();
    let (head, rest) = moving.split_at(png_head(16, 16).len());
    let note = png_chunk(b"eXIf", &[b"MM\0\x2a\0\0\0\x08".to_vec(), vec![0; 9000]].concat());
    fs::write(&path, [head, &note, rest].concat()).unwrap();
    assert_eq!(VideoSource::open(&path).unwrap().frames(), 2);
}

#[test]
fn animations_of_pillow_come_back() {
    for name in ["moving.webp", "moving.png"] {
        let source = VideoSource::open(&fixture(&format!("moving/{name}"))).unwrap();
        assert_eq!((source.frames(), source.size()), (3, (18, 16)), "{name}");
        for (time, expected) in source.times().unwrap().iter().zip([0.0, 0.1, 0.35]) {
            assert!((time - expected).abs() < 1e-9, "{name}: {:?}", source.times());
        }
        let frames = source.read(&[0, 1, 2], 18, 16, Resize::Stretch).unwrap();
        for (number, frame) in frames.iter().enumerate() {
            let expected = read_picture(&fixture(&format!("moving/frame{number}.png"))).unwrap();
            // WebP's frames are blended with a rounding of the decoder's own.
            let most = if name.ends_with("webp") { 1 } else { 0 };
            assert!(max_distance(&frame.rgb, &expected.rgb) <= most, "{name}, frame {number}");
        }
    }
}
