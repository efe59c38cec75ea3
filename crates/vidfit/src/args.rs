//! What the command line accepts. The underscored spellings are those of the reference's demo.

mod calibrate;

pub use calibrate::CalibrateArgs;

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use vidfit_cogvideox::scheduler::SchedulerKind;
use vidfit_engine::request::TilingChoice;

/// Generate CogVideoX videos on the machine you have, within the memory it has.
///
/// Every job is planned to the byte before anything is loaded, reserves its memory once, and
/// cannot run out of it later.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 done, 2 bad input, 3 does not fit into memory, 130 interrupted, 1 anything else."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a video from a text.
    Generate(Box<GenerateArgs>),
    /// Say what a checkpoint is: model, components, types, sizes, and what is missing.
    Inspect(InspectArgs),
    /// Download models, or list those that are here.
    Models(ModelsArgs),
    /// Say how much memory the cards and the machine have, and what is used.
    Status(crate::status::StatusArgs),
    /// Watch cards, memory and running jobs.
    Monitor(crate::monitor::MonitorArgs),
    /// List the graphics cards that are known by name.
    Gpus(crate::gpus::GpusArgs),
    /// Measure what this machine's operations cost, for predictions of time.
    Calibrate(CalibrateArgs),
    /// Measure this program against the reference.
    Bench(BenchArgs),
}

/// `vidfit generate`.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "\
Example:
  vidfit generate \"A panda plays the guitar in a bamboo forest\" \\
      --model zai-org/CogVideoX-2b --frames 49 --steps 50 -o panda.mp4

Sizes, frames and rates that are not given are the model's own: 49 frames of 720×480 at 8 per
second, or 81 frames of 1360×768 at 16 per second for CogVideoX1.5."
)]
pub struct GenerateArgs {
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
    /// `vidfit models pull` has downloaded.
    #[arg(short, long, alias = "model_path", value_name = "DIR_OR_ID")]
    pub model: Option<String>,

    /// Frames of the video, 8·N + 1 [default: the model's].
    #[arg(
        long,
        alias = "num_frames",
        alias = "num-frames",
        value_name = "N",
        help_heading = "Video"
    )]
    pub frames: Option<usize>,
    /// Height in pixels, a multiple of 16 [default: the model's].
    #[arg(long, value_name = "PIXELS", help_heading = "Video")]
    pub height: Option<usize>,
    /// Width in pixels, a multiple of 16 [default: the model's].
    #[arg(long, value_name = "PIXELS", help_heading = "Video")]
    pub width: Option<usize>,
    /// Frames per second [default: the model's].
    #[arg(long, value_name = "RATE", help_heading = "Video")]
    pub fps: Option<f64>,
    /// Quality of an MP4, 0 to 51: smaller is better and larger.
    #[arg(long, value_name = "N", default_value_t = 18, help_heading = "Video")]
    pub crf: u32,
    /// Where to: NAME.mp4, NAME.gif, or a folder for PNGs [default: output.mp4, or the next free
    /// name like it].
    #[arg(short, long, alias = "output_path", value_name = "FILE", help_heading = "Video")]
    pub output: Option<PathBuf>,

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
    /// How strongly the prompt is followed; 1 or less switches guidance off and halves the time.
    #[arg(
        long,
        alias = "guidance_scale",
        alias = "guidance-scale",
        value_name = "SCALE",
        default_value_t = 6.0,
        help_heading = "Sampling"
    )]
    pub guidance: f64,
    /// Vary guidance from step to step, as the reference does it.
    #[arg(long, alias = "dynamic_cfg", help_heading = "Sampling")]
    pub dynamic_cfg: bool,
    /// Seed of the noise: the same seed makes the same video.
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Sampling")]
    pub seed: u64,
    /// The scheduler; auto is the checkpoint's own.
    #[arg(long, value_enum, default_value_t = Scheduler::Auto, help_heading = "Sampling")]
    pub scheduler: Scheduler,

    /// Type of the arithmetic; auto is f32 on the CPU.
    #[arg(long, value_enum, default_value_t = Dtype::Auto, help_heading = "Machine")]
    pub dtype: Dtype,
    /// The device that computes.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto, help_heading = "Machine")]
    pub device: DeviceChoice,
    /// Threads of the CPU; 0 is one for each core.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Machine")]
    pub threads: usize,
    /// Decode in tiles: takes less memory, changes the picture slightly. Auto does it only if
    /// nothing else fits, and says so.
    #[arg(long, alias = "vae_tiling", value_enum, default_value_t = Tiling::Auto,
          help_heading = "Machine")]
    pub vae_tiling: Tiling,
    /// Height of a tile in pixels [default: half of what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Machine")]
    pub tile_height: Option<usize>,
    /// Width of a tile in pixels [default: half of what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Machine")]
    pub tile_width: Option<usize>,

    /// Also write token ids, embeddings, latents and unrounded frames to a safetensors file.
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub save_tensors: Option<PathBuf>,
    /// How to show progress: bars, one JSON object a line on standard output, or nothing
    /// but warnings. Auto shows bars on a terminal and a line per phase elsewhere.
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto, help_heading = "Reports")]
    pub progress: ProgressStyle,
}

/// `--scheduler`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scheduler {
    /// The checkpoint's.
    Auto,
    /// DDIM.
    Ddim,
    /// SDE DPM-Solver++.
    Dpm,
}

impl Scheduler {
    /// The choice, if it is not the checkpoint's.
    pub fn kind(self) -> Option<SchedulerKind> {
        match self {
            Scheduler::Auto => None,
            Scheduler::Ddim => Some(SchedulerKind::Ddim),
            Scheduler::Dpm => Some(SchedulerKind::Dpm),
        }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// f32 on the CPU.
    Auto,
    /// Single precision.
    #[value(alias = "float32")]
    F32,
    /// Half precision.
    #[value(alias = "float16")]
    F16,
    /// Brain floating point.
    #[value(alias = "bfloat16")]
    Bf16,
}

/// `--device`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The best there is.
    Auto,
    /// The cores of this machine.
    Cpu,
}

/// `--vae-tiling`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tiling {
    /// Only if the whole does not fit.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl From<Tiling> for TilingChoice {
    fn from(choice: Tiling) -> Self {
        match choice {
            Tiling::Auto => TilingChoice::Auto,
            Tiling::On => TilingChoice::On,
            Tiling::Off => TilingChoice::Off,
        }
    }
}

/// `--progress`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// Bars.
    Bar,
    /// One JSON object a line, on standard output.
    Json,
    /// Nothing.
    None,
}

/// `vidfit inspect`.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// The checkpoint: a folder, or an id that has been downloaded.
    #[arg(value_name = "DIR_OR_ID")]
    pub model: String,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `vidfit models`.
#[derive(clap::Args)]
pub struct ModelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// The commands of `vidfit models`.
#[derive(Subcommand)]
pub enum ModelsCommand {
    /// Download a model into the local cache, going on where an earlier download stopped.
    ///
    /// The cache is the one that other tools of the hub use. Environment: HF_TOKEN (for models
    /// behind a licence), HF_ENDPOINT (a mirror), HF_HUB_OFFLINE=1 (stay off the network),
    /// HF_HOME (where the cache is).
    Pull {
        /// The model, such as zai-org/CogVideoX-2b, with @REVISION if it is not the newest.
        id: String,
        /// How to show progress.
        #[arg(long, value_enum, default_value_t = ProgressStyle::Auto)]
        progress: ProgressStyle,
    },
    /// List the models in the local cache.
    List {
        /// As one JSON array.
        #[arg(long)]
        json: bool,
    },
}

/// `vidfit bench`.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The commands of `vidfit bench`.
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Time this program and the Python reference side by side, in f32, on the same threads.
    ///
    /// Needs a virtual environment with the packages of tests/reference/requirements.txt, and
    /// the repository's bench/reference.py.
    Reference {
        /// The virtual environment's folder.
        #[arg(long, value_name = "VENV")]
        python: PathBuf,
        /// The script that times the reference.
        #[arg(long, value_name = "FILE", default_value = "bench/reference.py")]
        script: PathBuf,
        /// Threads of both.
        #[arg(long, value_name = "N", default_value_t = 2)]
        threads: usize,
        /// Runs of each, of which the median counts.
        #[arg(long, value_name = "N", default_value_t = 3)]
        repeat: usize,
        /// Just this case.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Predict the time of some jobs, run them, and print both.
    ///
    /// Run `vidfit calibrate` with as many threads before.
    #[command(hide = true)]
    Predict {
        /// Threads.
        #[arg(long, value_name = "N", default_value_t = 2)]
        threads: usize,
        /// Runs of each job, of which the median counts.
        #[arg(long, value_name = "N", default_value_t = 3)]
        repeat: usize,
        /// Just the jobs whose names have this in them.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Where the small checkpoints and their cases are.
        #[arg(long, value_name = "DIR", default_value = "tests/reference/fixtures")]
        fixtures: PathBuf,
    },
    /// Make the tables of docs/memory.md: what the published models take, by their plans.
    Memory(crate::bench::memory::MemoryArgs),
    /// Execute phases of the published models, at their real widths with random weights, on
    /// simulated cards of just the planned size. Takes about half an hour.
    Execute(crate::bench::execute::ExecuteArgs),
    /// Time one case of this program and print one JSON object.
    #[command(hide = true)]
    Case {
        /// The case.
        name: String,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Runs.
        #[arg(long, default_value_t = 3)]
        repeat: usize,
    },
}
