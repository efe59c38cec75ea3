//! Pictures as Pillow opens and resizes them.

use std::fs;

use vidfit_media::{InputError, Picture, Resize, picture_size, read_picture};

use crate::samples::{fixture, max_distance, mean_distance};

/// The picture of `pixels` in tests/reference/pictures.py.
fn pixels(width: u32, height: u32) -> Picture {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3u32 {
                let place = x * 7919 + y * 104_729 + channel * 1_299_709 + 1;
                let noise = (place.wrapping_mul(2_654_435_761) >> 24) as u8;
                let edge = if (x / 5 + y / 3) % 2 == 0 { 0 } else { 255 };
                rgb.push(if x * 2 < width { noise } else { edge });
            }
        }
    }
    Picture { width, height, rgb }
}

fn sides(size: &str) -> (u32, u32) {
    let (width, height) = size.split_once('x').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}

#[test]
fn resized_pictures_are_those_of_pillow_to_the_bit() {
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(fixture("resized")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let parts: Vec<&str> = name.split('_').collect();
        let resize = match parts[0] {
            "stretch" => Resize::Stretch,
            "crop" => Resize::Crop,
            "pad" => Resize::Pad,
            other => panic!("{other}"),
        };
        let (from, to) = (sides(parts[1]), sides(parts[2]));
        let resized = pixels(from.0, from.1).resized(to.0, to.1, resize);
        let expected = read_picture(&path).unwrap();
        assert_eq!((resized.width, resized.height), (expected.width, expected.height), "{name}");
        let distance = max_distance(&resized.rgb, &expected.rgb);
        if distance > 0 {
            wrong.push(format!("{name} is off by up to {distance}"));
        }
        cases += 1;
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(cases, 16);
}

#[test]
fn a_picture_of_the_right_size_stays_as_it_is() {
    for resize in [Resize::Stretch, Resize::Crop, Resize::Pad] {
        assert_eq!(pixels(33, 21).resized(33, 21, resize), pixels(33, 21));
    }
}

#[test]
fn pictures_open_as_in_the_reference() {
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(fixture("samples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if name.ends_with(".rgb.png") {
            continue;
        }
        let picture = read_picture(&path).unwrap();
        let expected = read_picture(&fixture(&format!("samples/{name}.rgb.png"))).unwrap();
        assert_eq!(picture_size(&path).unwrap(), (picture.width, picture.height), "{name}");
        assert_eq!((picture.width, picture.height), (expected.width, expected.height), "{name}");
        let max = max_distance(&picture.rgb, &expected.rgb);
        let mean = mean_distance(&picture.rgb, &expected.rgb);
        println!("{name}: at most {max}, {mean:.3} on average");
        // Decoders of JPEG differ in the rounding of their cosine transform, and where chroma is
        // at half size in how they spread it.
        let (most, most_mean) = match name.as_str() {
            "grey.jpg" | "photo444.jpg" => (2, 0.05),
            "cmyk.jpg" => (3, 0.6),
            name if name.ends_with(".jpg") => (6, 0.6),
            _ => (0, 0.0),
        };
        if max > most || mean > most_mean {
            wrong.push(format!("{name}: at most {max}, {mean} on average"));
        }
        cases += 1;
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(cases, 21);
}

#[test]
fn the_content_counts_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let misnamed = folder.path().join("photo.png");
    fs::copy(fixture("samples/photo.jpg"), &misnamed).unwrap();
    let picture = read_picture(&misnamed).unwrap();
    assert_eq!(picture, read_picture(&fixture("samples/photo.jpg")).unwrap());
}

#[test]
fn a_size_is_read_from_the_header_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["photo.jpg", "turned6.jpg", "rgb.png"] {
        let sample = fixture(&format!("samples/{name}"));
        let whole = fs::read(&sample).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, &whole[..whole.len() - 20]).unwrap();
        assert_eq!(picture_size(&path).unwrap(), picture_size(&sample).unwrap(), "{name}");
        assert!(read_picture(&path).unwrap_err().to_string().contains("damaged"), "{name}");
    }
}

#[test]
fn what_a_decoder_would_keep_is_reckoned_from_the_header() {
    // A progressive frame of 16000 x 6000 pixels in three components, and its first scan.
    let header = [
        &[0xff, 0xd8, 0xff, 0xc2, 0, 17, 8, 0x17, 0x70, 0x3e, 0x80, 3][..],
        &[1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0],
        &[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 0, 0],
    ]
    .concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    fs::write(&path, header).unwrap();
    assert_eq!(picture_size(&path).unwrap(), (16_000, 6_000));
    // 576 MB of coefficients leave less than this of the limit. It is a hole, and takes no room.
    fs::File::options().write(true).open(&path).unwrap().set_len(600_000_000).unwrap();
    let error = picture_size(&path).unwrap_err();
    assert!(matches!(error, InputError::FileTooLarge { .. }), "{error}");
}
