//! RGB to YUV 4:2:0, BT.601, limited range: the numbers that the H.264 stream and the MP4 declare.

/// A 4:2:0 picture with tight rows. Width and height are even.
#[derive(Debug)]
pub(crate) struct Yuv420 {
    width: usize,
    height: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
}

// BT.601 (Kr = 0.299, Kb = 0.114) scaled to luma 16..=235 and chroma 16..=240, times 2^16 / 255.
// The rows of chroma sum to 0 and luma to 219/255 exactly, so greys stay grey.
const Y: [i32; 3] = [16829, 33039, 6416];
const U: [i32; 3] = [-9714, -19070, 28784];
const V: [i32; 3] = [28784, -24103, -4681];
const SHIFT: u32 = 16;

impl Yuv420 {
    /// A picture of `width` x `height` pixels, both even.
    pub(crate) fn new(width: usize, height: usize) -> Self {
        let chroma = width / 2 * (height / 2);
        Self { width, height, y: vec![0; width * height], u: vec![0; chroma], v: vec![0; chroma] }
    }

    /// Converts `rgb`, rows of 8-bit R, G, B from the top left.
    ///
    /// Chroma samples lie where H.264 expects them unless told otherwise (Annex E, type 0): on the
    /// even columns, half-way between two rows. So each is weighted 1 2 1 along its two rows.
    pub(crate) fn fill_from_rgb(&mut self, rgb: &[u8]) {
        let row_bytes = self.width * 3;
        for (y, pixel) in self.y.iter_mut().zip(rgb.chunks_exact(3)) {
            *y = weigh(Y, sum_of(pixel, 1), 16, SHIFT);
        }
        let half = self.width / 2;
        for (row, rows) in rgb.chunks_exact(2 * row_bytes).take(self.height / 2).enumerate() {
            let (upper, lower) = rows.split_at(row_bytes);
            for column in 0..half {
                let centre = 6 * column;
                let left = centre.saturating_sub(3);
                let mut sum = [0i32; 3];
                for line in [upper, lower] {
                    for (at, weight) in [(left, 1), (centre, 2), (centre + 3, 1)] {
                        let pixel = sum_of(&line[at..at + 3], weight);
                        sum = [sum[0] + pixel[0], sum[1] + pixel[1], sum[2] + pixel[2]];
                    }
                }
                // The weights sum to 8 = 2^3.
                self.u[row * half + column] = weigh(U, sum, 128, SHIFT + 3);
                self.v[row * half + column] = weigh(V, sum, 128, SHIFT + 3);
            }
        }
    }
}

fn sum_of(pixel: &[u8], weight: i32) -> [i32; 3] {
    [weight * i32::from(pixel[0]), weight * i32::from(pixel[1]), weight * i32::from(pixel[2])]
}

fn weigh(weights: [i32; 3], rgb: [i32; 3], offset: i32, shift: u32) -> u8 {
    let sum = weights[0] * rgb[0] + weights[1] * rgb[1] + weights[2] * rgb[2];
    ((sum + (offset << shift) + (1 << (shift - 1))) >> shift) as u8
}

impl openh264::formats::YUVSource for Yuv420 {
    fn dimensions(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.width, self.width / 2, self.width / 2)
    }

    fn y(&self) -> &[u8] {
        &self.y
    }

    fn u(&self) -> &[u8] {
        &self.u
    }

    fn v(&self) -> &[u8] {
        &self.v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(colour: [u8; 3]) -> (u8, u8, u8) {
        let mut picture = Yuv420::new(4, 2);
        picture.fill_from_rgb(&colour.repeat(8));
        assert!(picture.y.iter().all(|&y| y == picture.y[0]));
        assert!(picture.u.iter().all(|&u| u == picture.u[0]));
        (picture.y[0], picture.u[0], picture.v[0])
    }

    #[test]
    fn primaries_match_bt601() {
        // The 100 % colour bars of BT.601 in limited range.
        assert_eq!(flat([255, 255, 255]), (235, 128, 128));
        assert_eq!(flat([0, 0, 0]), (16, 128, 128));
        assert_eq!(flat([255, 0, 0]), (81, 90, 240));
        assert_eq!(flat([0, 255, 0]), (145, 54, 34));
        assert_eq!(flat([0, 0, 255]), (41, 240, 110));
    }

    #[test]
    fn every_colour_is_within_half_a_level_of_the_formula() {
        for r in (0..=255u8).step_by(15) {
            for g in (0..=255u8).step_by(15) {
                for b in (0..=255u8).step_by(15) {
                    let [rf, gf, bf] = [r, g, b].map(|c| f64::from(c) / 255.0);
                    let luma = 0.299 * rf + 0.587 * gf + 0.114 * bf;
                    let exact = [
                        16.0 + 219.0 * luma,
                        128.0 + 224.0 * (bf - luma) / 1.772,
                        128.0 + 224.0 * (rf - luma) / 1.402,
                    ];
                    let (y, u, v) = flat([r, g, b]);
                    for (got, exact) in [y, u, v].into_iter().zip(exact) {
                        assert!((f64::from(got) - exact).abs() < 0.51, "{r} {g} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn chroma_lies_on_the_even_columns() {
        // Red to the right of column 2: the chroma sample on column 2 sees a quarter of it.
        let mut row = [0u8; 24];
        for column in 3..8 {
            row[3 * column] = 255;
        }
        let mut picture = Yuv420::new(8, 2);
        picture.fill_from_rgb(&row.repeat(2));
        assert_eq!(picture.v, [128, 128 + 28, 240, 240]);
    }
}
