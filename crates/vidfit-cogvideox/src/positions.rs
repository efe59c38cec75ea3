//! Positions as tables on the host: rotary tables, the additive sine-cosine table of 2b, the
//! timestep's sinusoid.
//!
//! Tokens are counted frame by frame, row by row, column by column, in units of patches; text
//! tokens come before them and have no position. The tables repeat the roundings of diffusers'
//! `models/embeddings.py`: f32 for rotary positions and the sinusoid, f64 for the sine-cosine
//! table.

/// The size of a video in patches: `frames · rows · cols` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Latent frames (1.5: divided by its temporal patch size, rounded up).
    pub frames: usize,
    /// Rows: pixels / 8 / patch size.
    pub rows: usize,
    /// Columns, likewise.
    pub cols: usize,
}

impl Grid {
    /// How many video tokens the grid has, `S_v`.
    pub fn tokens(&self) -> usize {
        self.frames * self.rows * self.cols
    }
}

/// A table that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// The dimension cannot be split into the parts for time, row and column.
    #[error(
        "{what} of {dim} is not a multiple of 16, so it cannot be split into time, row and column"
    )]
    Dimension {
        /// Which dimension.
        what: &'static str,
        /// Its value.
        dim: usize,
    },
    /// The video is larger than the model has positions for.
    #[error(
        "{rows} x {cols} patches are more than the model's {max_rows} x {max_cols}; make the video smaller"
    )]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// Rows the model has.
        max_rows: usize,
        /// Columns the model has.
        max_cols: usize,
    },
    /// The model's positions are a table that was learned for one size.
    #[error(
        "{} x {} patches are not the {rows} x {cols} that the model's learned positions are for",
        grid.rows, grid.cols
    )]
    OtherThanLearned {
        /// What was asked for.
        grid: Grid,
        /// Rows the model has.
        rows: usize,
        /// Columns the model has.
        cols: usize,
    },
    /// A side of the grid, or of the model's own grid, is zero.
    #[error("a grid of {0:?} patches has no tokens")]
    Empty(Grid),
}

/// Rotary tables: cosine and sine per token and rotated pair.
///
/// Pair j of a head is elements 2j and 2j+1; it becomes (a·cos − b·sin, b·cos + a·sin). The first
/// head_dim/8 pairs turn with the frame, the next 3·head_dim/16 with the row, the last
/// 3·head_dim/16 with the column. (The reference stores each value twice.)
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `[S_v, head_dim / 2]`.
    pub cos: Vec<f32>,
    /// `[S_v, head_dim / 2]`.
    pub sin: Vec<f32>,
    /// head_dim / 2.
    pub pairs: usize,
}

impl Rope {
    /// The table of CogVideoX 1.0 (no temporal patch size): the grid is fitted into the `base` grid
    /// (rows, cols) the model was trained on (`sample_height / patch_size`,
    /// `sample_width / patch_size`), see [`CropRegion::fit`].
    ///
    /// # Errors
    /// [`PositionError::Dimension`] and [`PositionError::Empty`].
    pub fn linspace(
        grid: Grid,
        head_dim: usize,
        base: (usize, usize),
    ) -> Result<Self, PositionError> {
        check(grid, "attention_head_dim", head_dim)?;
        check(Grid { frames: 1, rows: base.0, cols: base.1 }, "attention_head_dim", head_dim)?;
        let crop = CropRegion::fit((grid.rows, grid.cols), base);
        // The stop is scaled, not the span: top + rows would be it only without a crop.
        let along = |start: i64, stop: i64, count: usize| {
            linspace(start as f32, (stop as f64 * (count - 1) as f64 / count as f64) as f32, count)
        };
        let positions = [
            along(0, grid.frames as i64, grid.frames),
            along(crop.top, crop.bottom, grid.rows),
            along(crop.left, crop.right, grid.cols),
        ];
        Ok(Self::from_positions(&positions, head_dim))
    }

    /// The table of CogVideoX 1.5: plain integers. `max` (rows, cols) is
    /// `sample_height / patch_size`, `sample_width / patch_size`.
    ///
    /// # Errors
    /// [`PositionError::TooLarge`] if the grid is larger than `max`, [`PositionError::Dimension`]
    /// and [`PositionError::Empty`].
    pub fn slice(grid: Grid, head_dim: usize, max: (usize, usize)) -> Result<Self, PositionError> {
        check(grid, "attention_head_dim", head_dim)?;
        Self::check_slice(grid, max)?;
        let positions =
            [grid.frames, grid.rows, grid.cols].map(|count| (0..count).map(|i| i as f32).collect());
        Ok(Self::from_positions(&positions, head_dim))
    }

    /// Whether [`Rope::slice`] has positions for `grid`, without making the table.
    ///
    /// # Errors
    /// [`PositionError::TooLarge`] if the grid is larger than `max`.
    pub fn check_slice(grid: Grid, max: (usize, usize)) -> Result<(), PositionError> {
        if grid.rows <= max.0 && grid.cols <= max.1 {
            return Ok(());
        }
        Err(PositionError::TooLarge {
            rows: grid.rows,
            cols: grid.cols,
            max_rows: max.0,
            max_cols: max.1,
        })
    }

    /// `positions` of frames, rows and columns.
    fn from_positions(positions: &[Vec<f32>; 3], head_dim: usize) -> Self {
        let dims = [head_dim / 4, head_dim / 8 * 3, head_dim / 8 * 3];
        let angles: [Vec<Vec<f32>>; 3] = std::array::from_fn(|axis| {
            let frequencies = rope_frequencies(dims[axis]);
            positions[axis].iter().map(|&p| frequencies.iter().map(|&f| p * f).collect()).collect()
        });
        let table = |of: fn(f64) -> f64| {
            let parts = angles.each_ref().map(|axis| {
                let of_row =
                    |row: &Vec<f32>| row.iter().map(|&angle| of(f64::from(angle)) as f32).collect();
                axis.iter().map(of_row).collect::<Vec<Vec<f32>>>()
            });
            per_token([&parts[0], &parts[1], &parts[2]])
        };
        Self { cos: table(f64::cos), sin: table(f64::sin), pairs: head_dim / 2 }
    }
}

/// Where a grid lies in the grid a 1.0 model was trained on, in patches of the latter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropRegion {
    /// First row.
    pub top: i64,
    /// First column.
    pub left: i64,
    /// Row past the last.
    pub bottom: i64,
    /// Column past the last.
    pub right: i64,
}

impl CropRegion {
    /// Scales `grid` (rows, cols) to fit into `base` (rows, cols), keeping its aspect, and centres
    /// it: `get_resize_crop_region_for_grid`, whose rounding sends halves to the even neighbour.
    pub fn fit(grid: (usize, usize), base: (usize, usize)) -> Self {
        let (rows, cols) = (grid.0 as f64, grid.1 as f64);
        let (base_rows, base_cols) = (base.0 as f64, base.1 as f64);
        let (fitted_rows, fitted_cols) = if rows / cols > base_rows / base_cols {
            (base_rows, (base_rows / rows * cols).round_ties_even())
        } else {
            ((base_cols / cols * rows).round_ties_even(), base_cols)
        };
        let top = ((base_rows - fitted_rows) / 2.0).round_ties_even();
        let left = ((base_cols - fitted_cols) / 2.0).round_ties_even();
        Self {
            top: top as i64,
            left: left as i64,
            bottom: (top + fitted_rows) as i64,
            right: (left + fitted_cols) as i64,
        }
    }
}

/// The additive sine-cosine positions of 2b, kept as one small table per axis.
///
/// The row that is added to a token is `[frame part, column part, row part]`, of D/4, 3D/8 and 3D/8
/// values; each part is its sines, then its cosines. Text tokens get nothing added.
#[derive(Debug, Clone, PartialEq)]
pub struct Sincos {
    grid: Grid,
    frames: Vec<Vec<f32>>,
    rows: Vec<Vec<f32>>,
    cols: Vec<Vec<f32>>,
}

impl Sincos {
    /// For an inner dimension `dim`; positions are divided by the scales (1.875 and 1.0 in 2b).
    ///
    /// # Errors
    /// [`PositionError::Dimension`] and [`PositionError::Empty`].
    pub fn new(
        grid: Grid,
        dim: usize,
        spatial_scale: f64,
        temporal_scale: f64,
    ) -> Result<Self, PositionError> {
        check(grid, "inner dimension", dim)?;
        let axis = |count, dim, scale: f64| {
            (0..count).map(|i| sines_then_cosines(i as f32 / scale as f32, dim)).collect()
        };
        Ok(Self {
            grid,
            frames: axis(grid.frames, dim / 4, temporal_scale),
            rows: axis(grid.rows, dim / 8 * 3, spatial_scale),
            cols: axis(grid.cols, dim / 8 * 3, spatial_scale),
        })
    }

    /// The whole table, `[S_v, D]` f32 (135 MB at 49x480x720).
    pub fn table(&self) -> Vec<f32> {
        let mut table = Vec::with_capacity(self.grid.tokens() * self.dim());
        for frame in &self.frames {
            for row in &self.rows {
                for col in &self.cols {
                    table.extend([frame, col, row].into_iter().flatten());
                }
            }
        }
        table
    }

    /// The inner dimension D.
    pub fn dim(&self) -> usize {
        [&self.frames, &self.rows, &self.cols]
            .into_iter()
            .filter_map(|part| part.first())
            .map(Vec::len)
            .sum()
    }
}

/// The sinusoid of a timestep (or of `ofs`), `[dim]`: cosines, then sines, of t · exp(−ln(10000) ·
/// i / (dim/2)).
///
/// The frequencies are the correctly rounded f32. PyTorch takes them from MKL, which is one unit in
/// the last place off for about one in a hundred; at t = 999 such a one moves its cosine or sine by
/// up to 6e-5.
pub fn timestep_embedding(t: f64, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let minus_ln_period = -(10000_f64.ln()) as f32;
    let angles = (0..half).map(|i| {
        let exponent = minus_ln_period * i as f32 / half as f32;
        f64::from(t as f32 * f64::from(exponent).exp() as f32)
    });
    let mut embedding: Vec<f32> = angles.clone().map(|angle| angle.cos() as f32).collect();
    embedding.extend(angles.map(|angle| angle.sin() as f32));
    embedding.resize(dim, 0.0);
    embedding
}

fn check(grid: Grid, what: &'static str, dim: usize) -> Result<(), PositionError> {
    if dim == 0 || !dim.is_multiple_of(16) {
        return Err(PositionError::Dimension { what, dim });
    }
    match grid.tokens() {
        0 => Err(PositionError::Empty(grid)),
        _ => Ok(()),
    }
}

/// 1 / 10000^(2j/dim), `[dim / 2]`, in f32 with the roundings of `get_1d_rotary_pos_embed`.
fn rope_frequencies(dim: usize) -> Vec<f32> {
    let power = |j| 10000_f64.powf(f64::from((2 * j) as f32 / dim as f32)) as f32;
    (0..dim / 2).map(|j| 1.0 / power(j)).collect()
}

/// `[sin(p·ω), cos(p·ω)]` with ω_i = 10000^(−i/(dim/2)), in f64, rounded at the end.
fn sines_then_cosines(position: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let angles = (0..half)
        .map(|i| f64::from(position) * (1.0 / 10000_f64.powf(i as f64 / (dim as f64 / 2.0))));
    let mut values: Vec<f32> = angles.clone().map(|angle| angle.sin() as f32).collect();
    values.extend(angles.map(|angle| angle.cos() as f32));
    values
}

/// `torch.linspace` in f32: the second half counts down from the end, product and sum fused.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = if count > 1 { (end - start) / (count - 1) as f32 } else { 0.0 };
    let fused =
        |i: usize, step: f32, from: f32| (i as f64 * f64::from(step) + f64::from(from)) as f32;
    let value = |i| match i < count / 2 {
        true => fused(i, step, start),
        false => fused(count - 1 - i, -step, end),
    };
    match count {
        1 => vec![start],
        _ => (0..count).map(value).collect(),
    }
}

/// Joins one row per frame, grid row and grid column into one row per token.
fn per_token(axes: [&Vec<Vec<f32>>; 3]) -> Vec<f32> {
    let tokens: usize = axes.iter().map(|axis| axis.len()).product();
    let width: usize = axes.iter().filter_map(|axis| axis.first()).map(Vec::len).sum();
    let mut table = Vec::with_capacity(tokens * width);
    for frame in axes[0] {
        for row in axes[1] {
            for col in axes[2] {
                table.extend([frame, row, col].into_iter().flatten());
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(grid: (usize, usize)) -> [i64; 4] {
        let CropRegion { top, left, bottom, right } = CropRegion::fit(grid, (30, 45));
        [top, left, bottom, right]
    }

    #[test]
    fn crop_regions_of_the_reference() {
        assert_eq!(region((45, 30)), [0, 12, 30, 32]);
        assert_eq!(region((48, 85)), [2, 0, 27, 45]);
        assert_eq!(region((24, 40)), [2, 0, 29, 45]);
        assert_eq!(region((20, 30)), [0, 0, 30, 45]);
        assert_eq!(region((30, 45)), [0, 0, 30, 45]);
    }

    #[test]
    fn the_default_grid_has_integer_positions_in_both_versions() {
        let grid = Grid { frames: 3, rows: 30, cols: 45 };
        let linspace = Rope::linspace(grid, 64, (30, 45)).unwrap();
        let slice = Rope::slice(grid, 64, (150, 150)).unwrap();
        assert_eq!(linspace.pairs, 32);
        assert_eq!(linspace.cos.len(), grid.tokens() * 32);
        let distance =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            distance(&linspace.cos, &slice.cos) < 1e-5
                && distance(&linspace.sin, &slice.sin) < 1e-5
        );
    }

    #[test]
    fn columns_of_the_rope_table_are_time_row_column() {
        let grid = Grid { frames: 2, rows: 3, cols: 4 };
        let rope = Rope::slice(grid, 64, (3, 4)).unwrap();
        let token = (3 + 2) * 4 + 3; // frame 1, row 2, column 3
        let angle = |pair: usize| {
            let at = token * 32 + pair;
            rope.sin[at].atan2(rope.cos[at])
        };
        // The first frequency of each part is 1, the second 10000^(-2/16) or 10000^(-2/24).
        for (pair, expected) in [
            (0, 1.0),
            (1, 10000_f32.powf(-2.0 / 16.0)),
            (8, 2.0),
            (9, 2.0 * 10000_f32.powf(-2.0 / 24.0)),
            (20, 3.0),
            (31, 3.0 * 10000_f32.powf(-22.0 / 24.0)),
        ] {
            assert!(
                (angle(pair) - expected).abs() < 1e-6,
                "pair {pair}: {} {expected}",
                angle(pair)
            );
        }
    }

    #[test]
    fn a_grid_that_does_not_fit_is_an_error() {
        let grid = Grid { frames: 1, rows: 48, cols: 85 };
        assert!(Rope::slice(grid, 64, (48, 85)).is_ok());
        let error = Rope::slice(grid, 64, (48, 84)).unwrap_err().to_string();
        assert!(error.contains("48 x 85") && error.contains("48 x 84"), "{error}");
        assert!(matches!(
            Rope::slice(grid, 24, (48, 85)),
            Err(PositionError::Dimension { dim: 24, .. })
        ));
        let empty = Grid { frames: 0, ..grid };
        assert_eq!(Rope::linspace(empty, 64, (30, 45)), Err(PositionError::Empty(empty)));
        assert!(Rope::linspace(grid, 64, (0, 45)).is_err());
    }

    #[test]
    fn sincos_puts_time_first_then_column_then_row() {
        let grid = Grid { frames: 2, rows: 3, cols: 4 };
        let sincos = Sincos::new(grid, 32, 1.875, 1.0).unwrap();
        let table = sincos.table();
        assert_eq!((sincos.dim(), table.len()), (32, 24 * 32));
        let row = &table[((3 + 2) * 4 + 3) * 32..][..32]; // frame 1, row 2, column 3
        let near = |at: usize, expected: f64| {
            assert!((f64::from(row[at]) - expected).abs() < 1e-7, "{at}")
        };
        near(0, 1_f64.sin());
        near(4, 1_f64.cos());
        near(8, (3.0 / 1.875_f64).sin());
        near(14, (3.0 / 1.875_f64).cos());
        near(20, (f64::from(2.0_f32 / 1.875)).sin());
        near(26, (f64::from(2.0_f32 / 1.875)).cos());
        near(27, (f64::from(2.0_f32 / 1.875) * 10000_f64.powf(-1.0 / 6.0)).cos());
    }

    #[test]
    fn the_sinusoid_starts_with_cosines() {
        let embedding = timestep_embedding(999.0, 512);
        assert_eq!(embedding[0], 999_f64.cos() as f32);
        assert_eq!(embedding[256], 999_f64.sin() as f32);
        assert_eq!(timestep_embedding(0.0, 6), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(timestep_embedding(2.0, 3).len(), 3);
    }
}
