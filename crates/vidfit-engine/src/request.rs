//! What a user asks for, and whether a checkpoint can do it.

mod prompt;
mod size;
mod start;

pub use size::{FrameCounts, MOST_FRAMES};
pub use start::Start;

use crate::checkpoint::Checkpoint;
use crate::error::EngineError;
use crate::lora::{LoraChoice, Loras};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vidfit_cogvideox::guidance::{Guidance, GuidanceCurve};
use vidfit_cogvideox::positions::{Grid, PositionError};
use vidfit_cogvideox::scheduler::{AddNoise, SchedulerConfig, SchedulerKind, Step, TimestepRule};
use vidfit_cogvideox::vae::Tiling;
use vidfit_tensor::DType;

/// When to encode and decode in tiles, which saves memory and changes the picture a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TilingChoice {
    /// Only if the whole does not fit: each of encoding and decoding by itself.
    Auto,
    /// Always; where a video fits into one tile, there is just one.
    On,
    /// Never.
    Off,
}

/// What to make. Whatever is `None` is the checkpoint's choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What the video shows.
    pub prompt: String,
    /// What it does not show.
    pub negative_prompt: String,
    /// What it starts from.
    #[serde(default)]
    pub start: Start,
    /// Video frames: one of [`FrameCounts`]. Of a video that it starts from, as many.
    pub frames: Option<usize>,
    /// Height in pixels, a multiple of 16.
    pub height: Option<usize>,
    /// Width in pixels, a multiple of 16.
    pub width: Option<usize>,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; at most 1 switches it off.
    pub guidance: f64,
    /// How the scale varies with the step.
    pub dynamic_cfg: GuidanceCurve,
    /// Where each step leads.
    pub timestep_rule: TimestepRule,
    /// Seed of the noise.
    pub seed: u64,
    /// The scheduler, or the checkpoint's.
    pub scheduler: Option<SchedulerKind>,
    /// The type of the arithmetic's operands.
    pub dtype: DType,
    /// Whether to encode and decode in tiles.
    pub tiling: TilingChoice,
    /// What is added to the transformer's weights.
    #[serde(default)]
    pub loras: Vec<LoraChoice>,
    /// Height of a tile in pixels, in decoding.
    pub tile_height: Option<usize>,
    /// Width of a tile in pixels, in decoding.
    pub tile_width: Option<usize>,
    /// Height of a tile in pixels, in encoding.
    #[serde(default)]
    pub encode_tile_height: Option<usize>,
    /// Width of a tile in pixels, in encoding.
    #[serde(default)]
    pub encode_tile_width: Option<usize>,
}

impl Request {
    /// A request with the reference's defaults.
    pub fn new(prompt: impl Into<String>) -> Request {
        Request {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            start: Start::Text,
            frames: None,
            height: None,
            width: None,
            steps: 50,
            guidance: 6.0,
            dynamic_cfg: GuidanceCurve::Constant,
            timestep_rule: TimestepRule::Reference,
            seed: 42,
            scheduler: None,
            dtype: DType::F32,
            tiling: TilingChoice::Auto,
            loras: Vec::new(),
            tile_height: None,
            tile_width: None,
            encode_tile_height: None,
            encode_tile_width: None,
        }
    }
}

/// A request that has been held against a checkpoint: everything that decides memory and
/// arithmetic, and nothing else.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it starts from.
    pub start: Start,
    /// Token ids of each half of guidance: negative, then positive; or positive alone.
    pub prompts: Vec<Vec<usize>>,
    /// Latent frames that are denoised.
    pub latent_frames: usize,
    /// Of those, how many at the front only fill up the last patch in time, and are dropped.
    pub padding_frames: usize,
    /// Latent channels.
    pub channels: usize,
    /// Latent height.
    pub latent_height: usize,
    /// Latent width.
    pub latent_width: usize,
    /// Patches of the transformer.
    pub grid: Grid,
    /// Video frames that come out.
    pub frames: usize,
    /// Video frames that it starts from.
    pub given_frames: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Steps of the scheduler, without those that a strength leaves out.
    pub steps: Vec<Step>,
    /// How a video that it starts from is noised, to where the first step begins.
    pub noising: Option<AddNoise>,
    /// Guidance.
    pub guidance: Guidance,
    /// Seed of the noise.
    pub seed: u64,
    /// Type of the run.
    pub dtype: DType,
    /// Tiles of the decoder.
    pub tiling: Option<Tiling>,
    /// Tiles of the encoder.
    pub encode_tiling: Option<Tiling>,
    /// Latent channels of the image that the video starts from; 0 without one.
    pub image_channels: usize,
    /// What is added to the transformer's weights.
    pub loras: Arc<Loras>,
    /// [`Checkpoint::identity`], and [`Loras::identity`] if there are any.
    pub model: String,
}

/// What the user should know before the job runs, in whole sentences.
pub type Warnings = Vec<String>;

/// Beyond any scale that leaves a picture.
const STRONGEST_GUIDANCE: f64 = 1000.0;

impl Job {
    /// Holds `request` against `checkpoint`. Tiling is taken to be off where it is left to the
    /// plan; see [`Job::with_tiles`].
    ///
    /// # Errors
    /// [`EngineError::Request`] if the checkpoint cannot make that, saying what it could make.
    pub fn new(checkpoint: &Checkpoint, request: &Request) -> Result<(Job, Warnings), EngineError> {
        let mut warnings = Vec::new();
        request.start.check(checkpoint)?;
        let (frames, height, width) = size::size(checkpoint, request, &mut warnings)?;
        let config = &checkpoint.transformer.config;
        let vae = &checkpoint.vae.config;
        let ratio = vae.spatial_ratio();
        let (latent_height, latent_width) = (height / ratio, width / ratio);
        let needed = (frames - 1) / vae.temporal_compression_ratio + 1;
        let latent_frames = needed.next_multiple_of(config.patch().0);
        let Some(grid) = config.grid(latent_frames, latent_height, latent_width) else {
            return refuse(format!("{width}×{height} pixels are not whole patches"));
        };
        match config.check_grid(grid) {
            Err(PositionError::OtherThanLearned { rows, cols, .. }) => {
                let unit = checkpoint.size_unit();
                return refuse(format!(
                    "{} makes videos of {}×{} pixels alone, not of {width}×{height}: it has \
                     learned positions for no other size",
                    checkpoint.name(),
                    cols * unit,
                    rows * unit
                ));
            }
            other => other.map_err(refused)?,
        }
        if config.use_learned_positional_embeddings && !config.has_learned_positions(grid) {
            warnings.push(format!(
                "{} has learned positions for {} frames alone; for {frames}, computed ones take \
                 their place, as in the reference. Expect a worse video",
                checkpoint.name(),
                config.sample_frames
            ));
        }

        let manifest = &checkpoint.transformer.weights.manifest;
        let loras = Loras::open(&request.loras, manifest, &mut warnings)?;
        let guidance = Guidance { scale: request.guidance, curve: request.dynamic_cfg };
        if !(0.0..=STRONGEST_GUIDANCE).contains(&request.guidance) {
            return refuse(format!(
                "a guidance of {} makes no sense: it is 0 to {STRONGEST_GUIDANCE}, and 6 is usual",
                request.guidance
            ));
        }
        let mut halves = vec![("prompt", &request.prompt)];
        if guidance.is_on() {
            halves.insert(0, ("negative prompt", &request.negative_prompt));
        }
        let prompts = halves
            .into_iter()
            .map(|(name, text)| prompt::tokenize(checkpoint, name, text, &mut warnings))
            .collect::<Result<_, _>>()?;

        let (steps, noising) = steps(checkpoint, request)?;
        let given_frames = match request.start {
            Start::Text => 0,
            Start::Image => 1,
            Start::Video { .. } => frames,
        };

        let job = Job {
            start: request.start,
            prompts,
            latent_frames,
            padding_frames: latent_frames - needed,
            channels: config.out_channels,
            latent_height,
            latent_width,
            grid,
            frames: size::decoded_frames(needed, vae.temporal_compression_ratio),
            given_frames,
            height,
            width,
            steps,
            noising,
            guidance,
            seed: request.seed,
            dtype: request.dtype,
            tiling: None,
            encode_tiling: None,
            image_channels: config.in_channels - config.out_channels,
            model: checkpoint.identity() + loras.identity(),
            loras: Arc::new(loras),
        };
        if given_frames > 0 && job.frames != frames && request.start != Start::Image {
            warnings.push(format!(
                "{frames} frames become {}: an even number of latent frames makes four each",
                job.frames
            ));
        }
        let tiles = tiles(checkpoint, request)?;
        let named = [
            request.tile_height,
            request.tile_width,
            request.encode_tile_height,
            request.encode_tile_width,
        ];
        if request.tiling == TilingChoice::Off && named.iter().any(Option::is_some) {
            warnings.push("the size of tiles has no effect while tiling is off".into());
        }
        Ok((
            match request.tiling {
                TilingChoice::On => job.with_tiles(tiles),
                TilingChoice::Auto | TilingChoice::Off => job,
            },
            warnings,
        ))
    }

    /// Whether the job can be run, and not just planned.
    ///
    /// # Errors
    /// [`EngineError::Request`] if there are no weights, or LoRAs hold what are no numbers.
    pub fn check_runnable(&self, checkpoint: &Checkpoint) -> Result<(), EngineError> {
        let variant = checkpoint.variant;
        match checkpoint.has_weights() {
            true => self.loras.check_values(),
            false => refuse(format!(
                "there are no weights of {variant} here. Get them with `vidfit models pull {}`",
                variant.id()
            )),
        }
    }

    /// The frames that were asked for: not those that come out, where a video is started from whose
    /// length does not come out as it went in.
    pub fn asked_frames(&self) -> usize {
        match self.start {
            Start::Video { .. } => self.given_frames,
            Start::Text | Start::Image => self.frames,
        }
    }

    /// Values of the latents.
    pub fn latent_elements(&self) -> usize {
        self.latent_frames * self.channels * self.latent_height * self.latent_width
    }

    /// Fewer bytes than any schedule of this job takes: the hidden states of all halves of guidance,
    /// and the output of attention.
    pub fn least_bytes(&self, inner_dim: usize) -> u64 {
        let rows = self.grid.tokens() + self.prompts.last().map_or(0, Vec::len);
        let tensors = self.prompts.len() + 1;
        (tensors * inner_dim) as u64 * rows as u64 * self.dtype.bytes()
    }

    /// The same job, decoded in tiles, and encoded in tiles if there is anything to encode.
    pub fn with_tiles(self, tiles: Tiles) -> Job {
        let encode_tiling = (self.given_frames > 0).then_some(tiles.encode);
        Job { tiling: Some(tiles.decode), encode_tiling, ..self }
    }
}

/// The steps of the scheduler that are done, and how a video is noised to where they begin.
fn steps(
    checkpoint: &Checkpoint,
    request: &Request,
) -> Result<(Vec<Step>, Option<AddNoise>), EngineError> {
    let mut scheduler: SchedulerConfig = checkpoint.scheduler.clone();
    scheduler.kind = request.scheduler.unwrap_or(scheduler.kind);
    scheduler.timestep_rule = request.timestep_rule;
    let steps = scheduler.steps(request.steps).map_err(refused)?;
    let Start::Video { strength } = request.start else { return Ok((steps, None)) };
    let skipped = SchedulerConfig::skipped_steps(request.steps, strength).map_err(refused)?;
    let steps = scheduler.steps_without(request.steps, skipped).map_err(refused)?;
    let noising = steps.first().map(|first| scheduler.noise_table().add_noise(first.timestep));
    Ok((steps, noising))
}

/// The tiles of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// To encode in.
    pub encode: Tiling,
    /// To decode in.
    pub decode: Tiling,
}

impl Tiles {
    /// The same tiles both ways.
    pub fn both(tiling: Tiling) -> Tiles {
        Tiles { encode: tiling, decode: tiling }
    }
}

/// The tiles that a request asks for, or the reference's.
///
/// # Errors
/// [`EngineError::Request`] if their pieces would not meet.
pub fn tiles(checkpoint: &Checkpoint, request: &Request) -> Result<Tiles, EngineError> {
    let vae = &checkpoint.vae.config;
    let reference = Tiling::reference(vae);
    let asked = |height: Option<usize>, width: Option<usize>| Tiling {
        height: height.unwrap_or(reference.height),
        width: width.unwrap_or(reference.width),
    };
    let tiles = Tiles {
        encode: asked(request.encode_tile_height, request.encode_tile_width),
        decode: asked(request.tile_height, request.tile_width),
    };
    match tiles.decode.problem(vae).or(tiles.encode.encoding_problem(vae)) {
        Some(problem) => refuse(problem),
        None => Ok(tiles),
    }
}

fn refuse<T>(why: String) -> Result<T, EngineError> {
    Err(EngineError::Request(why))
}

fn refused(error: impl std::fmt::Display) -> EngineError {
    EngineError::Request(error.to_string())
}
