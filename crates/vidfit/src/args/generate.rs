//! `vidfit generate`.

use super::choices::ProgressStyle;
use super::job::{JobArgs, OutputArgs};
use super::machine::{FitArgs, MachineArgs};
use super::runs::KeepArgs;
use std::path::PathBuf;

/// `vidfit generate`.
#[derive(clap::Args)]
#[command(
    allow_negative_numbers = true,
    args_override_self = true,
    after_help = "\
Examples:
  vidfit generate \"a red ball moving right\" -o ball.mp4      with the demo model, in seconds
  vidfit generate \"A panda plays the guitar in a bamboo forest\" \\
      --model zai-org/CogVideoX-2b --frames 49 --steps 50 -o panda.mp4
  vidfit generate \"A panda\" --model zai-org/CogVideoX-5b --vram-budget 8GB --fit \\
      --fallback-model zai-org/CogVideoX-2b      changes the job until it fits, and says how
  vidfit generate \"A panda\" --plan plan.json     runs exactly what vidfit plan --save has written

Sizes, frames and rates that are not given are the model's own: 49 frames of 720×480 at 8 per
second, or 81 frames of 1360×768 at 16 per second for CogVideoX1.5, or 17 frames of 64×64 at 8 per
second for the demo model, which is taken where none is named. A job that does not fit is
refused before anything is loaded, with exit code 3 and the nearest that would fit.

Every run has a name, which is printed first, and a directory where its state is kept after every
step: a run that was stopped, however, goes on with `vidfit resume NAME`."
)]
pub struct GenerateArgs {
    /// What to make.
    #[command(flatten)]
    pub job: JobArgs,
    /// Where it goes.
    #[command(flatten)]
    pub output: OutputArgs,
    /// On what.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// What may change.
    #[command(flatten)]
    pub fit: FitArgs,

    /// Make a video for each line of this file: a prompt, or a JSON object such as
    /// {"prompt": "A panda", "seed": 7, "image": "panda.png"} with options of this command. The text
    /// encoder is brought once for all of them; a line that fails does not keep the others from being
    /// made. With -o panda.mp4 they are called panda-1.mp4 and so on.
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Video",
        conflicts_with_all = ["prompt", "prompt_flag", "plan", "report", "save_tensors"]
    )]
    pub prompts: Option<PathBuf>,
    /// Run exactly the plan of this file, which `vidfit plan --save` has written, or refuse. It
    /// says model, size and sampling; a prompt that is given takes the place of its own.
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Memory",
        conflicts_with_all = [
            "negative_prompt", "model", "frames", "height", "width", "steps", "guidance",
            "dynamic_cfg", "timestep_rule", "preset", "seed", "scheduler", "vae_tiling", "tile_height", "tile_width",
            "strength", "encode_tile_height", "encode_tile_width",
            "lora", "lora_lenient", "dtype", "vram_budget", "buffer", "offload", "fit", "fit_order", "fallback_model",
        ]
    )]
    pub plan: Option<PathBuf>,
    /// What is kept of the run.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Write what was planned and what was measured, side by side, to a JSON file; also where the
    /// job is refused or fails.
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub report: Option<PathBuf>,
    /// How to show progress: bars, one JSON object a line on standard output, or nothing
    /// but warnings. Auto shows bars on a terminal and a line per phase elsewhere.
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto, help_heading = "Reports")]
    pub progress: ProgressStyle,
}
