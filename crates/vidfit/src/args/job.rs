//! What to make: the arguments that every command about a job shares.

use super::choices::{DynamicCfg, Frames, Rule, Scheduler, Tiling};
use super::input::InputArgs;
use super::lora::LoraArgs;
use std::path::PathBuf;
use vidfit_engine::request::Request;
use vidfit_tensor::DType;

/// What to make.
#[derive(clap::Args, Clone)]
pub struct JobArgs {
    /// What the video shows.
    #[arg(value_name = "PROMPT", conflicts_with = "prompt_flag")]
    pub prompt: Option<String>,
    /// The prompt, as a flag.
    #[arg(long = "prompt", value_name = "PROMPT", hide = true)]
    pub prompt_flag: Option<String>,
    /// What the video does not show.
    #[arg(long, alias = "negative_prompt", value_name = "TEXT", default_value = "")]
    pub negative_prompt: String,
    /// The model: a folder in the diffusers layout, or an id such as zai-org/CogVideoX-2b that
    /// `vidfit models pull` has downloaded. Plans can be made of the published models without
    /// downloading them, and know them by short names, such as 5b [default: demo, which is built in;
    /// a folder of that name is ./demo].
    #[arg(short, long, alias = "model_path", value_name = "DIR_OR_ID")]
    pub model: Option<String>,

    /// What it starts from.
    #[command(flatten)]
    pub input: InputArgs,

    /// Frames of the video, 8·N + 1, or `fit`: the most that fit [default: the model's].
    #[arg(
        long,
        alias = "num_frames",
        alias = "num-frames",
        value_name = "N",
        help_heading = "Video"
    )]
    pub frames: Option<Frames>,
    /// Height in pixels, a multiple of 16 [default: the model's].
    #[arg(long, value_name = "PIXELS", help_heading = "Video")]
    pub height: Option<usize>,
    /// Width in pixels, a multiple of 16 [default: the model's].
    #[arg(long, value_name = "PIXELS", help_heading = "Video")]
    pub width: Option<usize>,

    /// Steps and guidance by name: fast, balanced, quality, high_motion, subtle, or one of your
    /// settings. `vidfit presets` explains them; what is said beside it goes before it.
    #[arg(
        long,
        aliases = ["motion_preset", "motion-preset"],
        value_name = "NAME",
        help_heading = "Sampling"
    )]
    pub preset: Option<String>,
    /// Denoising steps.
    #[arg(
        long,
        alias = "num_inference_steps",
        alias = "num-inference-steps",
        value_name = "N",
        default_value_t = 50,
        help_heading = "Sampling"
    )]
    pub steps: usize,
    /// How strongly the prompt is followed; 1 or less switches guidance off and halves the time. The
    /// built-in demo model takes 2.5 where nothing is said.
    #[arg(
        long,
        alias = "guidance_scale",
        alias = "guidance-scale",
        value_name = "SCALE",
        default_value_t = 6.0,
        help_heading = "Sampling"
    )]
    pub guidance: f64,
    /// Vary guidance from step to step: `reference` jumps as the reference's does, `smooth` rises
    /// from 1 to SCALE + 1. The bare flag is `reference`.
    #[arg(
        long,
        alias = "dynamic_cfg",
        value_enum,
        value_name = "HOW",
        num_args = 0..=1,
        default_value_t = DynamicCfg::Off,
        default_missing_value = "reference",
        help_heading = "Sampling"
    )]
    pub dynamic_cfg: DynamicCfg,
    /// Where each step leads: `reference` is the reference's rule, which leaves a little noise in
    /// the picture where the number of steps does not divide 1000; `clean` leaves none.
    #[arg(
        long,
        alias = "timestep_rule",
        value_enum,
        value_name = "RULE",
        default_value_t = Rule::Reference,
        help_heading = "Sampling"
    )]
    pub timestep_rule: Rule,
    /// Seed of the noise: the same seed makes the same video.
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Sampling")]
    pub seed: u64,
    /// The scheduler; auto is the checkpoint's own.
    #[arg(long, value_enum, default_value_t = Scheduler::Auto, help_heading = "Sampling")]
    pub scheduler: Scheduler,

    /// What is added to the model.
    #[command(flatten)]
    pub loras: LoraArgs,

    /// Encode and decode in tiles: takes less memory, changes the picture slightly. Auto does
    /// either only if it does not fit otherwise, and says so.
    #[arg(long, alias = "vae_tiling", value_enum, default_value_t = Tiling::Auto,
          help_heading = "Memory")]
    pub vae_tiling: Tiling,
    /// Height of a tile in pixels, in decoding [default: half of what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Memory")]
    pub tile_height: Option<usize>,
    /// Width of a tile in pixels, in decoding [default: half of what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Memory")]
    pub tile_width: Option<usize>,
}

impl JobArgs {
    /// The prompt, whichever way it was given.
    pub fn prompt(&self) -> Option<&str> {
        self.prompt.as_deref().or(self.prompt_flag.as_deref())
    }

    /// Whether the number of frames is left to what fits.
    pub fn fits_frames(&self) -> bool {
        self.frames == Some(Frames::Fit)
    }

    /// What is asked of the engine. Frames that are left to what fits are the model's own here.
    pub fn request(&self, dtype: DType) -> Request {
        Request {
            negative_prompt: self.negative_prompt.clone(),
            start: self.input.start(),
            frames: match self.frames {
                Some(Frames::Count(frames)) => Some(frames),
                Some(Frames::Fit) | None => None,
            },
            height: self.height,
            width: self.width,
            steps: self.steps,
            guidance: self.guidance,
            dynamic_cfg: self.dynamic_cfg.into(),
            timestep_rule: self.timestep_rule.into(),
            seed: self.seed,
            scheduler: self.scheduler.kind(),
            dtype,
            loras: self.loras.choices(),
            tiling: self.vae_tiling.into(),
            tile_height: self.tile_height,
            tile_width: self.tile_width,
            encode_tile_height: self.input.encode_tile_height,
            encode_tile_width: self.input.encode_tile_width,
            ..Request::new(self.prompt().unwrap_or_default())
        }
    }
}

/// Where the video goes. A plan takes these as well, so that what is planned can be spelled as it
/// will be made.
#[derive(clap::Args, Clone)]
pub struct OutputArgs {
    /// Frames per second [default: the model's, 8, or 16 for CogVideoX1.5]. Another rate makes things
    /// move faster or slower than the model means them to.
    #[arg(long, value_name = "RATE", help_heading = "Video")]
    pub fps: Option<f64>,
    /// Quality of an MP4, 0 to 51: smaller is better and larger.
    #[arg(long, value_name = "N", default_value_t = 18, help_heading = "Video")]
    pub crf: u32,
    /// Where to: NAME.mp4, NAME.gif, or a folder for PNGs [default: output.mp4, or the next free
    /// name like it].
    #[arg(short, long, alias = "output_path", value_name = "FILE", help_heading = "Video")]
    pub output: Option<PathBuf>,
    /// Also write token ids, embeddings, latents and unrounded frames to a safetensors file.
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub save_tensors: Option<PathBuf>,
}
