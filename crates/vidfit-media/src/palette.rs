//! Frames in at most 256 colours: exactly where they have no more, dithered where they do.

use std::collections::HashMap;

use color_quant::NeuQuant;

/// A frame as indices into its own palette.
pub(crate) struct IndexedFrame {
    /// R, G, B of each colour, at most 256 of them.
    pub(crate) palette: Vec<u8>,
    /// One index a pixel.
    pub(crate) pixels: Vec<u8>,
}

const COLOURS: usize = 256;

/// NeuQuant trains on every third pixel: 1 is best, 30 fastest.
const SAMPLE_STEP: i32 = 3;

/// Reduces `rgb`, rows of `width` pixels.
pub(crate) fn index_frame(rgb: &[u8], width: usize) -> IndexedFrame {
    exact(rgb).unwrap_or_else(|| dithered(rgb, width))
}

/// The frame with its own colours, if there are few enough.
fn exact(rgb: &[u8]) -> Option<IndexedFrame> {
    let mut indices: HashMap<[u8; 3], u8> = HashMap::new();
    let mut palette = Vec::new();
    let mut pixels = Vec::with_capacity(rgb.len() / 3);
    for pixel in rgb.chunks_exact(3) {
        let colour = [pixel[0], pixel[1], pixel[2]];
        let index = match indices.get(&colour) {
            Some(&index) => index,
            None => {
                let index = u8::try_from(indices.len()).ok()?;
                indices.insert(colour, index);
                palette.extend(colour);
                index
            }
        };
        pixels.push(index);
    }
    Some(IndexedFrame { palette, pixels })
}

/// A palette learnt from the frame, and Floyd-Steinberg error diffusion in alternating directions
/// (one direction only would draw worms).
fn dithered(rgb: &[u8], width: usize) -> IndexedFrame {
    let rgba: Vec<u8> =
        rgb.chunks_exact(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect();
    let quantiser = NeuQuant::new(SAMPLE_STEP, COLOURS, &rgba);
    let palette = quantiser.color_map_rgb();

    let mut pixels = vec![0u8; rgb.len() / 3];
    // Errors handed on to this row and the next, in sixteenths, with a margin pixel at each end.
    let mut here = vec![[0i32; 3]; width + 2];
    let mut below = here.clone();
    for (row, (line, indices)) in
        rgb.chunks_exact(3 * width).zip(pixels.chunks_exact_mut(width)).enumerate()
    {
        below.fill([0; 3]);
        let rightwards = row % 2 == 0;
        for step in 0..width {
            let column = if rightwards { step } else { width - 1 - step };
            let at = column + 1;
            let (ahead, behind) = if rightwards { (at + 1, at - 1) } else { (at - 1, at + 1) };
            let mut wanted = [0, 0, 0, 255u8];
            for channel in 0..3 {
                let value = i32::from(line[3 * column + channel]) + (here[at][channel] + 8) / 16;
                wanted[channel] = value.clamp(0, 255) as u8;
            }
            let index = quantiser.index_of(&wanted);
            indices[column] = index as u8;
            for channel in 0..3 {
                let error = i32::from(wanted[channel]) - i32::from(palette[3 * index + channel]);
                here[ahead][channel] += 7 * error;
                below[behind][channel] += 3 * error;
                below[at][channel] += 5 * error;
                below[ahead][channel] += error;
            }
        }
        std::mem::swap(&mut here, &mut below);
    }
    IndexedFrame { palette, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(frame: &IndexedFrame) -> Vec<u8> {
        let colour = |&index: &u8| frame.palette[3 * usize::from(index)..][..3].to_vec();
        frame.pixels.iter().flat_map(colour).collect()
    }

    #[test]
    fn few_colours_are_kept() {
        let rgb: Vec<u8> = (0..=255u8).flat_map(|level| [level, 255 - level, 7]).collect();
        let frame = index_frame(&rgb, 16);
        assert_eq!(frame.palette.len(), 3 * COLOURS);
        assert_eq!(shown(&frame), rgb);
    }

    #[test]
    fn many_colours_keep_the_average_of_every_patch() {
        let side = 128usize;
        let rgb: Vec<u8> = (0..side * side)
            .flat_map(|at| [(at % side * 2) as u8, (at / side * 2) as u8, 128])
            .collect();
        let frame = index_frame(&rgb, side);
        assert_eq!(frame.pixels.len(), side * side);
        let shown = shown(&frame);
        for patch_y in (0..side).step_by(16) {
            for patch_x in (0..side).step_by(16) {
                for channel in 0..3 {
                    let mean = |pixels: &[u8]| {
                        let mut sum = 0u32;
                        for y in patch_y..patch_y + 16 {
                            for x in patch_x..patch_x + 16 {
                                sum += u32::from(pixels[3 * (y * side + x) + channel]);
                            }
                        }
                        f64::from(sum) / 256.0
                    };
                    let distance = (mean(&rgb) - mean(&shown)).abs();
                    // At the edge the outermost palette colours are not quite the frame's.
                    let edge = [patch_x, patch_y].iter().any(|&at| at == 0 || at == side - 16);
                    let most = if edge { 12.0 } else { 2.5 };
                    assert!(distance < most, "{patch_x} {patch_y} {channel}: {distance}");
                }
            }
        }
    }

    #[test]
    fn the_same_frame_gives_the_same_indices() {
        let rgb: Vec<u8> = (0..64 * 64 * 3).map(|i| (i * 7919 % 251) as u8).collect();
        assert_eq!(index_frame(&rgb, 64).pixels, index_frame(&rgb, 64).pixels);
    }
}
