//! Pictures to the size a model wants, with the very numbers of Pillow.

mod lanczos;

use crate::Picture;
use lanczos::{Source, resample};

/// What becomes of a picture whose sides are in another proportion than the video's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Resize {
    /// Stretched to fit, as the reference does.
    #[default]
    Stretch,
    /// The middle, as large as it can be; what juts out is lost.
    Crop,
    /// The whole, as large as it can be, with black on both sides.
    Pad,
}

/// Where in the source the result is taken from, in pixels: left, top, right, bottom.
type Window = [f32; 4];

pub(crate) fn resized(picture: Picture, width: u32, height: u32, resize: Resize) -> Picture {
    let (width, height) = (width.max(1), height.max(1));
    match resize {
        Resize::Stretch => {
            let whole = whole(&picture);
            scaled(picture, width, height, whole)
        }
        Resize::Crop => {
            let middle = middle(&picture, width, height);
            scaled(picture, width, height, middle)
        }
        Resize::Pad => padded(picture, width, height),
    }
}

fn whole(picture: &Picture) -> Window {
    [0.0, 0.0, picture.width as f32, picture.height as f32]
}

/// The window of `ImageOps.fit`: the largest of the result's proportion, centred. Pillow counts in
/// f64 and hands the window over in f32.
fn middle(picture: &Picture, width: u32, height: u32) -> Window {
    let (from_width, from_height) = (f64::from(picture.width), f64::from(picture.height));
    let from_ratio = from_width / from_height;
    let ratio = f64::from(width) / f64::from(height);
    let (crop_width, crop_height) = if from_ratio == ratio {
        (from_width, from_height)
    } else if from_ratio >= ratio {
        (ratio * from_height, from_height)
    } else {
        (from_width, from_width / ratio)
    };
    let left = (from_width - crop_width) * 0.5;
    let top = (from_height - crop_height) * 0.5;
    [left as f32, top as f32, (left + crop_width) as f32, (top + crop_height) as f32]
}

/// `ImageOps.pad`: the largest picture of the source's proportion that fits inside, on black.
fn padded(picture: Picture, width: u32, height: u32) -> Picture {
    let (from_width, from_height) = (f64::from(picture.width), f64::from(picture.height));
    let ratio = f64::from(width) / f64::from(height);
    let (mut fit_width, mut fit_height) = (width, height);
    // Python rounds halves to even.
    if from_width / from_height > ratio {
        let exact = (from_height / from_width * f64::from(width)).round_ties_even();
        fit_height = (exact as u32).clamp(1, height);
    } else if from_width / from_height < ratio {
        let exact = (from_width / from_height * f64::from(height)).round_ties_even();
        fit_width = (exact as u32).clamp(1, width);
    }
    let window = whole(&picture);
    let inner = scaled(picture, fit_width, fit_height, window);
    if (fit_width, fit_height) == (width, height) {
        return inner;
    }
    let left = (f64::from(width - fit_width) * 0.5).round_ties_even() as usize;
    let top = (f64::from(height - fit_height) * 0.5).round_ties_even() as usize;
    let (row_bytes, inner_bytes) = (3 * width as usize, 3 * fit_width as usize);
    let mut rgb = vec![0; row_bytes * height as usize];
    for (row, line) in inner.rgb.chunks_exact(inner_bytes).enumerate() {
        let at = (top + row) * row_bytes + 3 * left;
        rgb[at..at + inner_bytes].copy_from_slice(line);
    }
    Picture { width, height, rgb }
}

fn scaled(picture: Picture, width: u32, height: u32, window: Window) -> Picture {
    if (picture.width, picture.height) == (width, height) && window == whole(&picture) {
        return picture;
    }
    let source = Source {
        width: picture.width as usize,
        height: picture.height as usize,
        rgb: &picture.rgb,
    };
    let rgb = resample(&source, width as usize, height as usize, window);
    Picture { width, height, rgb }
}
