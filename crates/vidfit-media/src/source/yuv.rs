//! YUV 4:2:0 to RGB, as ffmpeg's scaler does unless told otherwise, because that is how the
//! reference reads videos: each chroma sample stands for its four pixels, and a video that does
//! not say how its colours are coded is taken for BT.601, whatever its size.

use super::sps::Colour;

/// A decoded picture.
pub(super) struct Planes<'a> {
    /// Size in pixels.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Bytes from row to row, of Y, U and V.
    pub(super) strides: (usize, usize, usize),
    pub(super) y: &'a [u8],
    pub(super) u: &'a [u8],
    pub(super) v: &'a [u8],
}

/// The weights of red and blue in luma, after `matrix_coefficients` of ITU-T H.273.
fn red_and_blue(matrix: Option<u8>) -> (f64, f64) {
    match matrix {
        Some(1) => (0.2126, 0.0722),
        Some(4) => (0.30, 0.11),
        Some(7) => (0.212, 0.087),
        Some(9 | 10) => (0.2627, 0.0593),
        _ => (0.299, 0.114),
    }
}

const BITS: u32 = 16;

/// Weights times 2^16.
struct Weights {
    luma: i32,
    luma_offset: i32,
    red_of_v: i32,
    green_of_u: i32,
    green_of_v: i32,
    blue_of_u: i32,
}

impl Weights {
    fn of(colour: Colour) -> Self {
        let (red, blue) = red_and_blue(colour.matrix);
        let green = 1.0 - red - blue;
        let (luma_range, chroma_range) =
            if colour.is_full_range { (255.0, 255.0) } else { (219.0, 224.0) };
        let fixed = |weight: f64| (weight * f64::from(1 << BITS)).round() as i32;
        let chroma = 255.0 / chroma_range;
        Self {
            luma: fixed(255.0 / luma_range),
            luma_offset: if colour.is_full_range { 0 } else { 16 },
            red_of_v: fixed(2.0 * (1.0 - red) * chroma),
            green_of_u: fixed(2.0 * (1.0 - blue) * blue / green * chroma),
            green_of_v: fixed(2.0 * (1.0 - red) * red / green * chroma),
            blue_of_u: fixed(2.0 * (1.0 - blue) * chroma),
        }
    }
}

/// Rows of R, G, B.
pub(super) fn to_rgb(planes: &Planes<'_>, colour: Colour) -> Vec<u8> {
    let weights = Weights::of(colour);
    let mut rgb = Vec::with_capacity(planes.width * planes.height * 3);
    for row in 0..planes.height {
        let y = &planes.y[row * planes.strides.0..][..planes.width];
        let chroma_width = planes.width.div_ceil(2);
        let u = &planes.u[row / 2 * planes.strides.1..][..chroma_width];
        let v = &planes.v[row / 2 * planes.strides.2..][..chroma_width];
        for (pair, (&u, &v)) in y.chunks(2).zip(u.iter().zip(v)) {
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            let red = weights.red_of_v * v;
            let green = -weights.green_of_u * u - weights.green_of_v * v;
            let blue = weights.blue_of_u * u;
            for &y in pair {
                let luma = weights.luma * (i32::from(y) - weights.luma_offset) + (1 << (BITS - 1));
                rgb.extend([red, green, blue].map(|c| ((luma + c) >> BITS).clamp(0, 255) as u8));
            }
        }
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_white_and_primaries_come_out_as_such() {
        let cases = [
            (None, false, [16, 128, 128], [0, 0, 0]),
            (None, false, [235, 128, 128], [255, 255, 255]),
            (None, false, [81, 90, 240], [255, 0, 0]),
            (Some(1), false, [63, 102, 240], [255, 0, 0]),
            (Some(1), false, [32, 240, 118], [0, 0, 255]),
            (None, true, [255, 128, 128], [255, 255, 255]),
            (None, true, [76, 85, 255], [255, 0, 0]),
        ];
        for (matrix, is_full_range, [y, u, v], expected) in cases {
            let planes =
                Planes { width: 1, height: 1, strides: (1, 1, 1), y: &[y], u: &[u], v: &[v] };
            let rgb = to_rgb(&planes, Colour { matrix, is_full_range });
            for (got, wanted) in rgb.iter().zip(expected) {
                assert!(got.abs_diff(wanted) <= 2, "{matrix:?}: {rgb:?}, not {expected:?}");
            }
        }
    }
}
