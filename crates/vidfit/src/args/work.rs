//! `vidfit work`.

use super::machine::MachineArgs;
use std::path::PathBuf;
use std::time::Duration;
use vidfit_engine::pipelines::WarmSettings;

/// `vidfit work`.
#[derive(clap::Args)]
#[command(after_help = "\
Standard input, one JSON object a line:
  {\"job\": \"NAME\", \"words\": [\"generate\", \"--prompt=A panda\", \"--output=panda.mp4\"]}
  {\"job\": \"NAME\", \"words\": [\"resume\", \"last\", \"--runs=DIR\"]}
  {\"cancel\": \"NAME\"}
Standard output, one JSON object a line: {\"event\": \"ready\"}, then what `--progress json` says of each
job, with its name, and at its end {\"job\": \"NAME\", \"event\": \"ended\", \"code\": 0, \"message\": null},
with the exit code that the command would have had. Jobs are done one after another. At the end of the
input the job under way is stopped, as by Ctrl-C: it can go on.")]
pub struct WorkArgs {
    /// Where the lock is that one worker at a time holds; others wait for it.
    #[arg(long, value_name = "DIR")]
    pub queue_dir: PathBuf,
    /// On what all jobs are done, and what of it may be used.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// What stays there.
    #[command(flatten)]
    pub warm: WarmArgs,
}

/// What stays on the device between jobs.
#[derive(clap::Args, Clone)]
pub struct WarmArgs {
    /// Pipelines whose weights stay on the device between jobs, as far as there is room
    /// [default: warm_pipelines of the settings, or none].
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub warm: Option<usize>,
    /// After how many seconds without a job they go [default: idle_unload_seconds of the settings, or
    /// never].
    #[arg(long, value_name = "SECONDS", help_heading = "Memory")]
    pub idle_unload: Option<u64>,
}

impl WarmArgs {
    /// The settings, with what is said here in their place.
    pub fn instead_of(&self, settings: WarmSettings) -> WarmSettings {
        WarmSettings {
            pipelines: self.warm.unwrap_or(settings.pipelines),
            idle_unload: self.idle_unload.map(Duration::from_secs).or(settings.idle_unload),
        }
    }
}
