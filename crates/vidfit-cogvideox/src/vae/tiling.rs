//! Tiles: their places, and the seams between them (`AutoencoderKLCogVideoX.tiled_decode`).

use super::VaeConfig;
use serde::{Deserialize, Serialize};

/// Decoding in overlapping tiles. Tiles are normalised one by one, so they change the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    /// Height of a tile in pixels.
    pub height: usize,
    /// Width of a tile in pixels.
    pub width: usize,
}

/// The share of a tile's height that overlaps with the next.
const OVERLAP_HEIGHT: f64 = 1.0 / 6.0;
/// The share of a tile's width that overlaps with the next.
const OVERLAP_WIDTH: f64 = 1.0 / 5.0;

/// Tiles along one axis, in latent pixels, and what becomes of them in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    /// Latent pixels of a tile.
    pub tile: usize,
    /// Latent pixels from one tile to the next.
    pub stride: usize,
    /// Pixels that are blended with the tile before.
    pub blend: usize,
    /// Pixels that a tile contributes.
    pub keep: usize,
}

impl Strip {
    fn new(pixels: usize, ratio: usize, overlap: f64) -> Strip {
        let tile = pixels / ratio;
        let blend = (pixels as f64 * overlap) as usize;
        Strip {
            tile,
            stride: (tile as f64 * (1.0 - overlap)) as usize,
            blend,
            keep: pixels - blend,
        }
    }

    /// One tile that holds everything.
    fn whole(length: usize, ratio: usize) -> Strip {
        Strip { tile: length, stride: length, blend: 0, keep: length * ratio }
    }

    /// Where tiles begin along `length` latent pixels.
    pub fn starts(self, length: usize) -> impl Iterator<Item = usize> {
        (0..length).step_by(self.stride)
    }
}

impl Tiling {
    /// The reference's tiles: half of the size the VAE was made for.
    pub fn reference(config: &VaeConfig) -> Tiling {
        Tiling { height: config.sample_height / 2, width: config.sample_width / 2 }
    }

    /// Why these tiles do not work with `config`, if they don't: the pieces that tiles
    /// contribute must meet without gap or overlap.
    pub fn problem(self, config: &VaeConfig) -> Option<String> {
        let ratio = config.spatial_ratio();
        let axes = [("height", self.height, OVERLAP_HEIGHT), ("width", self.width, OVERLAP_WIDTH)];
        for (name, pixels, overlap) in axes {
            let fits = |pixels: usize| {
                let strip = Strip::new(pixels, ratio, overlap);
                pixels.is_multiple_of(ratio)
                    && strip.stride > 0
                    && strip.stride * ratio == strip.keep
            };
            if !fits(pixels) {
                let below = (1..pixels.min(1 << 16)).rev().find(|&p| fits(p));
                let above = (pixels + 1..=pixels.min(1 << 16) + 1024).find(|&p| fits(p));
                let nearest: Vec<String> =
                    below.into_iter().chain(above).map(|p| p.to_string()).collect();
                return Some(format!(
                    "a tile {name} of {pixels} pixels does not join with its neighbours: what \
                     tiles contribute would leave gaps. The nearest that work: {}",
                    nearest.join(", ")
                ));
            }
        }
        None
    }

    /// The strips of rows and columns for latents of this size. Where one tile would hold
    /// everything, there is just that, as in the reference.
    pub(super) fn strips(
        tiling: Option<Tiling>,
        config: &VaeConfig,
        height: usize,
        width: usize,
    ) -> (Strip, Strip) {
        let ratio = config.spatial_ratio();
        if let Some(tiling) = tiling {
            let rows = Strip::new(tiling.height, ratio, OVERLAP_HEIGHT);
            let columns = Strip::new(tiling.width, ratio, OVERLAP_WIDTH);
            if height > rows.tile || width > columns.tile {
                return (rows, columns);
            }
        }
        (Strip::whole(height, ratio), Strip::whole(width, ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_tiles_are_as_published() {
        let config = VaeConfig::default();
        let tiling = Tiling::reference(&config);
        assert_eq!(tiling.problem(&config), None);
        let (rows, columns) = Tiling::strips(Some(tiling), &config, 60, 90);
        assert_eq!(rows, Strip { tile: 30, stride: 25, blend: 40, keep: 200 });
        assert_eq!(columns, Strip { tile: 45, stride: 36, blend: 72, keep: 288 });
        assert_eq!(rows.starts(60).collect::<Vec<_>>(), [0, 25, 50]);
        assert_eq!(columns.starts(170).count(), 5);
        let (whole, _) = Tiling::strips(Some(tiling), &config, 30, 45);
        assert_eq!(whole, Strip { tile: 30, stride: 30, blend: 0, keep: 240 });
    }

    #[test]
    fn tiles_that_would_leave_gaps_are_named() {
        let config = VaeConfig::default();
        let odd = Tiling { height: 256, width: 256 };
        let problem = odd.problem(&config).unwrap();
        assert!(problem.contains("height of 256") && problem.contains("240"), "{problem}");
        assert!(Tiling { height: 8, width: 8 }.problem(&config).is_some());
        assert!(Tiling { height: 0, width: 0 }.problem(&config).is_some());
    }
}
