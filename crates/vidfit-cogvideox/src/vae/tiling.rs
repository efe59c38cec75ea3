//! Tiles: their sizes and places (`AutoencoderKLCogVideoX.tiled_decode`, `tiled_encode`).

use super::VaeConfig;
use serde::{Deserialize, Serialize};

/// Decoding or encoding in overlapping tiles. Tiles are normalised one by one, so they change the
/// picture.
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

/// What becomes of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// Latents become pictures this many times as large.
    Decoding(usize),
    /// Pictures become latents this many times as small.
    Encoding(usize),
}

impl Scale {
    fn of(self, length: usize) -> usize {
        match self {
            Scale::Decoding(ratio) => length * ratio,
            Scale::Encoding(ratio) => length / ratio,
        }
    }
}

/// Tiles along one axis, in pixels of what goes in, and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strip {
    /// Length of a tile.
    tile: usize,
    /// From one tile to the next.
    stride: usize,
    /// What comes out and is blended with the tile before.
    blend: usize,
    /// What comes out and is a tile's contribution.
    keep: usize,
}

impl Strip {
    /// Tiles of `pixels` of a picture.
    fn new(scale: Scale, pixels: usize, overlap: f64) -> Strip {
        let (tile, out) = match scale {
            Scale::Decoding(ratio) => (pixels / ratio, pixels),
            Scale::Encoding(ratio) => (pixels, pixels / ratio),
        };
        let blend = (out as f64 * overlap) as usize;
        let stride = (tile as f64 * (1.0 - overlap)) as usize;
        Strip { tile, stride, blend, keep: out - blend }
    }

    /// One tile that holds everything.
    fn whole(scale: Scale, length: usize) -> Strip {
        Strip { tile: length, stride: length, blend: 0, keep: scale.of(length) }
    }

    /// Where tiles begin along `length`, and how long each is.
    fn tiles(self, length: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        (0..length).step_by(self.stride).map(move |start| (start, self.tile.min(length - start)))
    }

    /// Whether no tile follows the one that begins at `start`.
    fn ends(self, start: usize, length: usize) -> bool {
        start + self.stride >= length
    }
}

/// A tile, in pixels of what goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Row and column of its first pixel.
    pub corner: (usize, usize),
    /// Height and width.
    pub size: (usize, usize),
    /// How many tiles lie to the left of it.
    pub column: usize,
    /// Whether none lies below.
    pub is_last_row: bool,
    /// Whether none lies to the right.
    pub is_last_column: bool,
}

/// All tiles of a frame, and how what becomes of them is joined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    scale: Scale,
    rows: Strip,
    columns: Strip,
    size: (usize, usize),
}

impl Grid {
    /// The tiles of latents of this size.
    pub fn decoding(config: &VaeConfig, tiling: Option<Tiling>, size: (usize, usize)) -> Grid {
        Grid::new(Scale::Decoding(config.spatial_ratio()), tiling, size)
    }

    /// The tiles of pictures of this size.
    pub fn encoding(config: &VaeConfig, tiling: Option<Tiling>, size: (usize, usize)) -> Grid {
        Grid::new(Scale::Encoding(config.spatial_ratio()), tiling, size)
    }

    /// Where one tile would hold everything, there is just that, as in the reference.
    fn new(scale: Scale, tiling: Option<Tiling>, (height, width): (usize, usize)) -> Grid {
        let size = (height, width);
        if let Some(tiling) = tiling {
            let rows = Strip::new(scale, tiling.height, OVERLAP_HEIGHT);
            let columns = Strip::new(scale, tiling.width, OVERLAP_WIDTH);
            if height > rows.tile || width > columns.tile {
                return Grid { scale, rows, columns, size };
            }
        }
        let (rows, columns) = (Strip::whole(scale, height), Strip::whole(scale, width));
        Grid { scale, rows, columns, size }
    }

    /// The tiles, row by row.
    pub fn tiles(self) -> impl Iterator<Item = Tile> {
        let Grid { rows, columns, size: (height, width), .. } = self;
        rows.tiles(height).flat_map(move |(top, tile_height)| {
            columns.tiles(width).enumerate().map(move |(column, (left, tile_width))| Tile {
                corner: (top, left),
                size: (tile_height, tile_width),
                column,
                is_last_row: rows.ends(top, height),
                is_last_column: columns.ends(left, width),
            })
        })
    }

    /// How many tiles there are.
    pub fn count(self) -> usize {
        self.tiles().count()
    }

    /// Tiles of a row.
    pub fn columns(self) -> usize {
        self.columns.tiles(self.size.1).count()
    }

    /// Pixels of all tiles, overlaps counted as often as they occur.
    pub fn pixels(self) -> usize {
        self.tiles().map(|tile| tile.size.0 * tile.size.1).sum()
    }

    /// Height and width of what becomes of a tile.
    pub fn result(self, tile: Tile) -> (usize, usize) {
        (self.scale.of(tile.size.0), self.scale.of(tile.size.1))
    }

    /// Row and column where the contribution of a tile begins.
    pub fn place(self, tile: Tile) -> (usize, usize) {
        (self.scale.of(tile.corner.0), self.scale.of(tile.corner.1))
    }

    /// Height and width of a tile's contribution.
    pub fn kept(self, tile: Tile) -> (usize, usize) {
        let (height, width) = self.result(tile);
        (self.rows.keep.min(height), self.columns.keep.min(width))
    }

    /// Rows and columns of what becomes of tiles that are blended with the tile before.
    pub fn blend(self) -> (usize, usize) {
        (self.rows.blend, self.columns.blend)
    }

    /// Pixels of the edges that are kept of tiles that are done, for the seams to those that
    /// follow: the last rows of a row of tiles, and the last columns of the tile before.
    pub fn edges(self) -> usize {
        let (height, width) = self.size;
        let above: usize = match self.rows.ends(0, height) {
            true => 0,
            false => self.columns.tiles(width).map(|(_, length)| self.scale.of(length)).sum(),
        };
        let before = match self.columns.ends(0, width) {
            true => 0,
            false => self.scale.of(self.rows.tile.min(height)),
        };
        self.rows.blend * above + self.columns.blend * before
    }
}

impl Tiling {
    /// The reference's tiles: half of the size the VAE was made for.
    pub fn reference(config: &VaeConfig) -> Tiling {
        Tiling { height: config.sample_height / 2, width: config.sample_width / 2 }
    }

    /// Why one cannot decode with `config` in these tiles, if one can't: the pieces that tiles
    /// contribute must meet without gap or overlap.
    pub fn problem(self, config: &VaeConfig) -> Option<String> {
        self.problem_of(Scale::Decoding(config.spatial_ratio()))
    }

    /// As [`Tiling::problem`], of encoding.
    pub fn encoding_problem(self, config: &VaeConfig) -> Option<String> {
        self.problem_of(Scale::Encoding(config.spatial_ratio()))
    }

    fn problem_of(self, scale: Scale) -> Option<String> {
        let (Scale::Decoding(ratio) | Scale::Encoding(ratio)) = scale;
        let axes = [("height", self.height, OVERLAP_HEIGHT), ("width", self.width, OVERLAP_WIDTH)];
        for (name, pixels, overlap) in axes {
            let fits = |pixels: usize| {
                let Strip { stride, keep, .. } = Strip::new(scale, pixels, overlap);
                let meets = match scale {
                    Scale::Decoding(_) => stride * ratio == keep,
                    Scale::Encoding(_) => stride == keep * ratio,
                };
                pixels.is_multiple_of(ratio) && stride > 0 && meets
            };
            if !fits(pixels) {
                // Beyond any picture, whatever was asked for.
                let near = pixels.min(1 << 16);
                let below = (1..near).rev().find(|&p| fits(p));
                let above = (near + 1..=near + 1024).find(|&p| fits(p));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_tiles_are_as_published() {
        let config = VaeConfig::default();
        let tiling = Tiling::reference(&config);
        assert_eq!(tiling.problem(&config), None);
        for height in [0, usize::MAX, usize::MAX / 8 * 8] {
            assert!(Tiling { height, ..tiling }.problem(&config).is_some(), "{height}");
        }
        let Grid { rows, columns, .. } = Grid::decoding(&config, Some(tiling), (60, 90));
        assert_eq!(rows, Strip { tile: 30, stride: 25, blend: 40, keep: 200 });
        assert_eq!(columns, Strip { tile: 45, stride: 36, blend: 72, keep: 288 });
        assert_eq!(rows.tiles(60).collect::<Vec<_>>(), [(0, 30), (25, 30), (50, 10)]);
        assert_eq!(columns.tiles(170).count(), 5);
        let whole = Grid::decoding(&config, Some(tiling), (30, 45));
        assert_eq!(whole.rows, Strip { tile: 30, stride: 30, blend: 0, keep: 240 });
        assert_eq!((whole.count(), whole.edges()), (1, 0));

        assert_eq!(tiling.encoding_problem(&config), None);
        let Grid { rows, columns, .. } = Grid::encoding(&config, Some(tiling), (480, 720));
        assert_eq!(rows, Strip { tile: 240, stride: 200, blend: 5, keep: 25 });
        assert_eq!(columns, Strip { tile: 360, stride: 288, blend: 9, keep: 36 });
        let whole = Grid::encoding(&config, Some(tiling), (240, 360));
        assert_eq!(whole.rows, Strip { tile: 240, stride: 240, blend: 0, keep: 30 });
    }

    #[test]
    fn contributions_of_tiles_cover_everything_once() {
        let config = VaeConfig::default();
        let reference = Tiling::reference(&config);
        let small = Tiling { height: 48, width: 40 };
        for (tiling, height, width) in [
            (reference, 30, 45),
            (reference, 31, 45),
            (reference, 60, 90),
            (reference, 96, 170),
            (reference, 8, 100),
            (small, 61, 90),
            (Tiling { height: 144, width: 200 }, 60, 90),
        ] {
            for grid in [
                Grid::decoding(&config, Some(tiling), (height, width)),
                Grid::encoding(&config, Some(tiling), (8 * height, 8 * width)),
            ] {
                let (out_height, out_width) =
                    (grid.scale.of(grid.size.0), grid.scale.of(grid.size.1));
                let mut covered = vec![0; out_height * out_width];
                for tile in grid.tiles() {
                    let ((top, left), (rows, columns)) = (grid.place(tile), grid.kept(tile));
                    for y in top..top + rows {
                        covered[y * out_width + left..][..columns].iter_mut().for_each(|n| *n += 1);
                    }
                }
                assert!(covered.iter().all(|&times| times == 1), "{grid:?}");
                assert_eq!(grid.count() % grid.columns(), 0);
            }
        }
    }

    #[test]
    fn tiles_that_would_leave_gaps_are_named() {
        let config = VaeConfig::default();
        let odd = Tiling { height: 256, width: 256 };
        let problem = odd.problem(&config).unwrap();
        assert!(problem.contains("height of 256") && problem.contains("240"), "{problem}");
        assert!(Tiling { height: 8, width: 8 }.problem(&config).is_some());
        assert!(Tiling { height: 0, width: 0 }.problem(&config).is_some());
        assert!(odd.encoding_problem(&config).unwrap().contains("240"));
        // Those that join when they are decoded do when they are encoded.
        for pixels in (0..1200).step_by(8) {
            let tiling = Tiling { height: pixels, width: pixels };
            let (decoding, encoding) = (tiling.problem(&config), tiling.encoding_problem(&config));
            assert_eq!(decoding, encoding, "{pixels} pixels");
        }
        assert!(Tiling { height: 8, width: 8 }.encoding_problem(&config).is_some());
    }
}
