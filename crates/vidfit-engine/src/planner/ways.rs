//! The ways to encode and to decode a job: as a whole, or in tiles of some size.

use super::decide::Rejected;
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::request::{Job, Tiles, TilingChoice};
use vidfit_cogvideox::vae::{Tiling, VaeConfig};

/// The ways that a choice of tiles allows, of each direction the best picture first.
pub(super) struct Ways {
    job: Job,
    encode: Vec<Option<Tiling>>,
    decode: Vec<Option<Tiling>>,
}

/// One way of each direction.
#[derive(Clone, Copy, Default)]
pub(super) struct Way {
    pub encode: usize,
    pub decode: usize,
}

/// Which directions are too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub encode: bool,
    pub decode: bool,
}

impl TooLarge {
    /// Whether either is.
    pub fn any(self) -> bool {
        self.encode || self.decode
    }
}

/// What a way that was not taken is called: `verb` is `encode` or `decode`.
pub(super) fn without_tiles(verb: &str) -> String {
    format!("{verb} without tiles")
}

impl Ways {
    /// Those of a job.
    pub fn new(checkpoint: &Checkpoint, job: &Job, choice: TilingChoice, tiles: Tiles) -> Ways {
        let config = &checkpoint.vae.config;
        let of = |tiles: Tiling| match choice {
            TilingChoice::Off => vec![None],
            TilingChoice::On => vec![Some(tiles)],
            TilingChoice::Auto => {
                let smaller = smaller(config, tiles).map(Some);
                [None, Some(tiles)].into_iter().chain(smaller).collect()
            }
        };
        let encode = if job.given_frames > 0 { of(tiles.encode) } else { vec![None] };
        Ways { job: job.clone(), encode, decode: of(tiles.decode) }
    }

    /// The job, done in one of the ways.
    pub fn job(&self, way: Way) -> Job {
        let (encode_tiling, tiling) = (self.encode[way.encode], self.decode[way.decode]);
        Job { encode_tiling, tiling, ..self.job.clone() }
    }

    /// The way to try where `way` is too large, if there is one.
    pub fn next(&self, way: Way, too_large: TooLarge) -> Option<Way> {
        let next = Way {
            encode: way.encode + usize::from(too_large.encode),
            decode: way.decode + usize::from(too_large.decode),
        };
        let is_one = next.encode < self.encode.len() && next.decode < self.decode.len();
        (too_large.any() && is_one).then_some(next)
    }

    /// Ways that between them have every way to encode and every way to decode.
    pub fn each(&self) -> impl Iterator<Item = Way> {
        let (encode, decode) = (self.encode.len(), self.decode.len());
        (0..encode.max(decode))
            .map(move |n| Way { encode: n.min(encode - 1), decode: n.min(decode - 1) })
    }

    /// Of each direction the first way in tiles of which `fits` is true, or else the last.
    pub fn first_in_tiles(
        &self,
        fits_encode: impl Fn(usize) -> bool,
        fits_decode: impl Fn(usize) -> bool,
    ) -> Way {
        let first = |ways: &[Option<Tiling>], fits: &dyn Fn(usize) -> bool| {
            let mut in_tiles =
                (0..ways.len()).filter(|&way| ways[way].is_some() || ways.len() == 1);
            in_tiles.find(|&way| fits(way)).unwrap_or(ways.len() - 1)
        };
        Way { encode: first(&self.encode, &fits_encode), decode: first(&self.decode, &fits_decode) }
    }

    /// What was not taken, of the whole that `way` is too large for: `why` says so of a direction.
    pub fn rejected(
        &self,
        way: Way,
        too_large: TooLarge,
        why: impl Fn(&'static str) -> Result<Rejected, EngineError>,
    ) -> Result<Vec<Rejected>, EngineError> {
        let directions = [
            ("encode", &self.encode, way.encode, too_large.encode),
            ("decode", &self.decode, way.decode, too_large.decode),
        ];
        let whole = directions
            .into_iter()
            .filter(|(_, ways, way, is)| *is && ways[*way].is_none() && ways.len() > 1);
        whole.map(|(verb, ..)| why(verb)).collect()
    }
}

/// Tiles smaller than `tiles` of about the same proportions, whose pieces meet.
fn smaller(config: &VaeConfig, tiles: Tiling) -> impl Iterator<Item = Tiling> + '_ {
    [(2, 3), (1, 3)].into_iter().filter_map(move |(num, den)| {
        let unit = config.spatial_ratio();
        let below = |pixels: usize| (1..=pixels * num / den / unit).rev().map(move |n| n * unit);
        let fits = |height: &usize| {
            Tiling { height: *height, width: tiles.width }.problem(config).is_none()
        };
        let height = below(tiles.height).find(fits)?;
        let fits = |width: &usize| Tiling { height, width: *width }.problem(config).is_none();
        let width = below(tiles.width).find(fits)?;
        Some(Tiling { height, width })
    })
}
