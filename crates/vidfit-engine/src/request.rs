//! What a user asks for, and whether a checkpoint can do it.

use crate::checkpoint::{Checkpoint, Variant};
use crate::error::EngineError;
use serde::{Deserialize, Serialize};
use vidfit_cogvideox::guidance::{Guidance, GuidanceCurve};
use vidfit_cogvideox::positions::Grid;
use vidfit_cogvideox::scheduler::{SchedulerConfig, SchedulerKind, Step, TimestepRule};
use vidfit_cogvideox::tokenizer::MAX_TOKENS;
use vidfit_cogvideox::vae::Tiling;
use vidfit_tensor::DType;

/// When to decode in tiles, which saves memory and changes the picture a little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TilingChoice {
    /// Only if the whole does not fit.
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
    /// Video frames, 8N + 1.
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
    /// Whether to decode in tiles.
    pub tiling: TilingChoice,
    /// Height of a tile in pixels.
    pub tile_height: Option<usize>,
    /// Width of a tile in pixels.
    pub tile_width: Option<usize>,
}

impl Request {
    /// A request with the reference's defaults.
    pub fn new(prompt: impl Into<String>) -> Request {
        Request {
            prompt: prompt.into(),
            negative_prompt: String::new(),
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
            tile_height: None,
            tile_width: None,
        }
    }
}

/// A request that has been held against a checkpoint: everything that decides memory and
/// arithmetic, and nothing else.
#[derive(Clone, Debug)]
pub struct Job {
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
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Steps of the scheduler.
    pub steps: Vec<Step>,
    /// Guidance.
    pub guidance: Guidance,
    /// Seed of the noise.
    pub seed: u64,
    /// Type of the run.
    pub dtype: DType,
    /// Tiles of the decoder.
    pub tiling: Option<Tiling>,
    /// Latent channels of the image that the video starts from; 0 without one.
    pub image_channels: usize,
    /// [`Checkpoint::identity`].
    pub model: String,
}

/// What the user should know before the job runs, in whole sentences.
pub type Warnings = Vec<String>;

/// No published model goes beyond a tenth of this; it keeps arithmetic on sizes in bounds.
const LARGEST_SIDE: usize = 16_384;
/// Beyond any scale that leaves a picture.
const STRONGEST_GUIDANCE: f64 = 1000.0;
/// As [`LARGEST_SIDE`], for frames.
const MOST_FRAMES: usize = 4_097;

impl Job {
    /// Holds `request` against `checkpoint`. Tiling is taken to be off where it is left to the
    /// plan; see [`Job::with_tiles`].
    ///
    /// # Errors
    /// [`EngineError::Request`] if the checkpoint cannot make that, saying what it could make.
    pub fn new(checkpoint: &Checkpoint, request: &Request) -> Result<(Job, Warnings), EngineError> {
        let mut warnings = Vec::new();
        let (frames, height, width) = size(checkpoint, request, &mut warnings)?;
        let config = &checkpoint.transformer.config;
        let vae = &checkpoint.vae.config;
        let ratio = vae.spatial_ratio();
        let (latent_height, latent_width) = (height / ratio, width / ratio);
        let needed = (frames - 1) / vae.temporal_compression_ratio + 1;
        let latent_frames = needed.next_multiple_of(config.patch().0);
        let Some(grid) = config.grid(latent_frames, latent_height, latent_width) else {
            return refuse(format!("{width}×{height} pixels are not whole patches"));
        };
        config.check_grid(grid).map_err(|error| EngineError::Request(error.to_string()))?;

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
            .map(|(name, text)| tokenize(checkpoint, name, text, &mut warnings))
            .collect::<Result<_, _>>()?;

        let mut scheduler: SchedulerConfig = checkpoint.scheduler.clone();
        scheduler.kind = request.scheduler.unwrap_or(scheduler.kind);
        scheduler.timestep_rule = request.timestep_rule;
        let steps = scheduler
            .steps(request.steps)
            .map_err(|error| EngineError::Request(error.to_string()))?;

        let job = Job {
            prompts,
            latent_frames,
            padding_frames: latent_frames - needed,
            channels: config.out_channels,
            latent_height,
            latent_width,
            grid,
            frames: decoded_frames(needed, vae.temporal_compression_ratio),
            height,
            width,
            steps,
            guidance,
            seed: request.seed,
            dtype: request.dtype,
            tiling: None,
            image_channels: config.in_channels - config.out_channels,
            model: checkpoint.identity(),
        };
        let tiles = tiles(checkpoint, request)?;
        let names_tiles = request.tile_height.is_some() || request.tile_width.is_some();
        if request.tiling == TilingChoice::Off && names_tiles {
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
    /// [`EngineError::Request`] if it starts from an image, or there are no weights.
    pub fn check_runnable(&self, checkpoint: &Checkpoint) -> Result<(), EngineError> {
        let variant = checkpoint.variant;
        if self.image_channels > 0 {
            let other = if variant.is_one_five() { Variant::OneFive } else { Variant::FiveB };
            return refuse(format!(
                "{variant} starts from an image, which vidfit cannot read yet; text alone needs \
                 a model like {other}"
            ));
        }
        match checkpoint.has_weights() {
            true => Ok(()),
            false => refuse(format!(
                "there are no weights of {variant} here. Get them with `vidfit models pull {}`",
                variant.id()
            )),
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

    /// The same job, decoded in tiles.
    pub fn with_tiles(self, tiles: Tiling) -> Job {
        Job { tiling: Some(tiles), ..self }
    }
}

/// The tiles that a request asks for, or the reference's.
///
/// # Errors
/// [`EngineError::Request`] if their pieces would not meet.
pub fn tiles(checkpoint: &Checkpoint, request: &Request) -> Result<Tiling, EngineError> {
    let vae = &checkpoint.vae.config;
    let reference = Tiling::reference(vae);
    let tiling = Tiling {
        height: request.tile_height.unwrap_or(reference.height),
        width: request.tile_width.unwrap_or(reference.width),
    };
    match tiling.problem(vae) {
        Some(problem) => refuse(problem),
        None => Ok(tiling),
    }
}

fn refuse<T>(why: String) -> Result<T, EngineError> {
    Err(EngineError::Request(why))
}

/// How many frames latents become: an even number of them gives four each, as in the reference.
fn decoded_frames(latents: usize, ratio: usize) -> usize {
    if latents.is_multiple_of(2) { latents * ratio } else { (latents - 1) * ratio + 1 }
}

/// Frames, height and width: asked for or the model's own.
fn size(
    checkpoint: &Checkpoint,
    request: &Request,
    warnings: &mut Warnings,
) -> Result<(usize, usize, usize), EngineError> {
    let (variant, config) = (checkpoint.variant, &checkpoint.transformer.config);
    let ratio = checkpoint.vae.config.spatial_ratio();
    let own = (config.sample_width * ratio, config.sample_height * ratio);
    let own = match variant.published_size() {
        Some(published) if published.0 <= own.0 && published.1 <= own.1 => published,
        _ => own,
    };
    let frames = request.frames.unwrap_or(config.sample_frames);
    let (width, height) = (request.width.unwrap_or(own.0), request.height.unwrap_or(own.1));

    let step = checkpoint.frame_step();
    if frames > MOST_FRAMES {
        return refuse(format!(
            "{frames} frames are more than vidfit makes: at most {MOST_FRAMES}"
        ));
    }
    if frames == 0 || !(frames - 1).is_multiple_of(step) {
        let nearest = nearest(frames.saturating_sub(1), step, MOST_FRAMES - 1);
        let nearest: Vec<String> = nearest.iter().map(|n| (n + 1).to_string()).collect();
        return refuse(format!(
            "{frames} frames cannot be made: it takes {step}·N + 1. The nearest: {}",
            nearest.join(" or ")
        ));
    }
    let unit = checkpoint.size_unit();
    for (name, pixels) in [("height", height), ("width", width)] {
        if pixels > LARGEST_SIDE {
            return refuse(format!(
                "a {name} of {pixels} pixels is more than vidfit makes: at most {LARGEST_SIDE}"
            ));
        }
        if pixels == 0 || !pixels.is_multiple_of(unit) {
            let nearest = nearest(pixels.max(1), unit, LARGEST_SIDE);
            let nearest: Vec<String> =
                nearest.iter().filter(|&&n| n > 0).map(|n| n.to_string()).collect();
            return refuse(format!(
                "a {name} of {pixels} pixels cannot be made: it takes a multiple of {unit}. The \
                 nearest: {}",
                nearest.join(" or ")
            ));
        }
    }

    if frames > variant.most_frames().max(config.sample_frames) {
        warnings.push(format!(
            "{frames} frames are more than {variant} was made for ({}); expect a worse video",
            variant.most_frames()
        ));
    } else if variant.is_one_five() && !(frames - 1).is_multiple_of(16) {
        warnings.push(format!("{variant} was made for 16·N + 1 frames, not {frames}"));
    }
    if (width, height) != own {
        warnings.push(format!(
            "{variant} was made for {}×{} pixels, not {width}×{height}; expect a worse video",
            own.0, own.1
        ));
    }
    Ok((frames, height, width))
}

/// The multiples of `step` next to `value`, at most `most`.
fn nearest(value: usize, step: usize, most: usize) -> Vec<usize> {
    let below = (value / step * step).min(most / step * step);
    let above = below + step;
    if above > most || below == value { vec![below] } else { vec![below, above] }
}

fn tokenize(
    checkpoint: &Checkpoint,
    name: &str,
    text: &str,
    warnings: &mut Warnings,
) -> Result<Vec<usize>, EngineError> {
    let tokens = checkpoint.transformer.config.max_text_seq_length.min(MAX_TOKENS);
    // Without a tokenizer there is nothing to say, but the model reads as many tokens.
    let Some(tokenizer) = &checkpoint.tokenizer else { return Ok(vec![0; tokens]) };
    let encoded =
        tokenizer.encode(text, tokens).map_err(|error| EngineError::Request(error.to_string()))?;
    if let Some(cut) = encoded.truncated {
        let cut = elided(&cut);
        warnings.push(format!(
            "the {name} has {} tokens, and the model reads {tokens}. This was cut off: “{cut}”",
            encoded.prompt_tokens
        ));
    }
    let ids = encoded.ids.iter().map(|&id| usize::try_from(id).unwrap_or(0));
    Ok(ids.collect())
}

/// The beginning of a long text, and how much more there is.
fn elided(text: &str) -> String {
    const SHOWN: usize = 2000;
    match text.chars().count().saturating_sub(SHOWN) {
        0 => text.to_owned(),
        more => {
            let shown: String = text.chars().take(SHOWN).collect();
            format!("{shown}… (and {more} characters more)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_sizes_are_named() {
        assert_eq!(nearest(50, 8, 4096), [48, 56]);
        assert_eq!(nearest(7, 16, 16384), [0, 16]);
        assert_eq!(nearest(20_000, 16, 16384), [16384]);
    }

    #[test]
    fn even_latents_make_four_frames_each() {
        let frames = [1, 2, 3, 13, 12, 21].map(|latents| decoded_frames(latents, 4));
        assert_eq!(frames, [1, 8, 9, 49, 48, 81]);
    }
}
