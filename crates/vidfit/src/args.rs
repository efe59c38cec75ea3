//! What the command line accepts. The underscored spellings are those of the reference's demo.

mod calibrate;
mod choices;
mod generate;
mod input;
mod job;
mod lora;
mod machine;
mod runs;
mod serve;
mod work;

pub use calibrate::CalibrateArgs;
pub use choices::{Dtype, DynamicCfg, Frames, ProgressStyle};
pub use generate::GenerateArgs;
pub use input::{GenerateType, InputArgs};
pub use job::{JobArgs, OutputArgs};
pub use machine::{FitArgs, MachineArgs};
pub use runs::{DecodeArgs, GcArgs, ResumeArgs, RunsArgs, RunsCommand, RunsFolder};
pub use serve::{LogStyle, ServeArgs};
pub use work::WorkArgs;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Generate CogVideoX videos on the machine you have, within the memory it has.
///
/// Every job is planned to the byte before anything is loaded, reserves its memory once, and
/// cannot run out of it later.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Start with:
  vidfit generate \"a red ball moving right\"       the demo model, which is built in
  vidfit plan --model 5b --gpu \"RTX 3060 12GB\"    what would it take on that card?
  vidfit recommend                               which model for which card?
  vidfit models pull zai-org/CogVideoX-2b        download one
  vidfit generate \"A panda\" --model zai-org/CogVideoX-2b
  vidfit serve                                   a web page and an HTTP API for all of it

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
    /// Make a video from a text, and from an image or a video with it.
    Generate(Box<GenerateArgs>),
    /// Go on with a run that was stopped, from its last step.
    Resume(Box<ResumeArgs>),
    /// Make the video of a run again: at another rate or quality, in another form, in other tiles.
    Decode(Box<DecodeArgs>),
    /// Serve a web page and an HTTP API that make videos, one after another.
    Serve(Box<ServeArgs>),
    /// List the runs that are kept, show one, or take some away.
    Runs(RunsArgs),
    /// Say what a job will take, phase by phase, before anything is loaded.
    Plan(Box<crate::plan::PlanArgs>),
    /// Say in one sentence whether there is enough memory for a job.
    Check(Box<crate::check::CheckArgs>),
    /// Say the most frames that fit.
    Frames(Box<crate::frames::FramesArgs>),
    /// Say which model suits which card, from a plan of each.
    Recommend(crate::recommend::RecommendArgs),
    /// Say how much memory each model takes, with nothing on and with everything on.
    Requirements(crate::requirements::RequirementsArgs),
    /// Say what a checkpoint or a LoRA is: model, components, types, sizes, and what is missing.
    Inspect(InspectArgs),
    /// Download models, or list those that are here.
    Models(ModelsArgs),
    /// Say what there is to compute on: driver, cards, libraries, and what is missing.
    Doctor(crate::doctor::DoctorArgs),
    /// Say how much memory the cards and the machine have, and what is used.
    Status(crate::status::StatusArgs),
    /// Watch cards, memory and running jobs.
    Monitor(crate::monitor::MonitorArgs),
    /// List the graphics cards that are known by name.
    Gpus(crate::gpus::GpusArgs),
    /// Say what every default is, and where it comes from: settings, environment, or built in.
    Config(crate::config::ConfigArgs),
    /// Explain the presets: named sets of steps and guidance.
    Presets(crate::config::ConfigArgs),
    /// Measure what this machine's operations cost, for predictions of time.
    Calibrate(CalibrateArgs),
    /// Do the jobs that standard input asks for, one after another: what a server has its videos made
    /// by.
    #[command(hide = true)]
    Work(Box<WorkArgs>),
    /// Measure this program against the reference.
    Bench(BenchArgs),
}

/// `vidfit inspect`.
#[derive(clap::Args)]
pub struct InspectArgs {
    /// The checkpoint: a folder, an id that has been downloaded, or `demo`, which is built in. Or the
    /// file of a LoRA.
    #[arg(value_name = "DIR_OR_ID", required_unless_present = "model_flag")]
    model: Option<String>,
    /// The checkpoint, as other commands name it.
    #[arg(long = "model", value_name = "DIR_OR_ID", conflicts_with = "model", hide = true)]
    model_flag: Option<String>,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl InspectArgs {
    /// What to look at, whichever way it was named.
    pub fn model(&self) -> &str {
        self.model.as_deref().or(self.model_flag.as_deref()).unwrap_or_default()
    }
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
    /// List the model that is built in, and those in the local cache.
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
    /// Measure a card: single operations, and whole videos with the weights in all kinds of places, beside
    /// what was planned, what the driver sees, and the reference.
    ///
    /// A published model is taken with random weights, so nothing need be downloaded.
    Card(crate::bench::card::CardArgs),
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
