//! Runs: where they are kept, and what is done with them afterwards.

use super::choices::{Dtype, ProgressStyle, Tiling};
use super::machine::{MachineArgs, least};
use crate::device::DeviceChoice;
use clap::Subcommand;
use std::path::PathBuf;
use vidfit_engine::bytes::ByteSize;
use vidfit_engine::planner::Offload;
use vidfit_engine::runs::{MachineRecord, RunId, Runs};
use vidfit_engine::settings::{Settings, SettingsError};

/// Where runs are kept.
#[derive(clap::Args, Clone)]
pub struct RunsFolder {
    /// Where runs are kept [default: vidfit/runs in the user's data folder].
    #[arg(long, value_name = "DIR", global = true, help_heading = "Runs")]
    pub runs: Option<PathBuf>,
}

impl RunsFolder {
    /// The runs there.
    pub fn runs(&self) -> Runs {
        self.runs.as_ref().map_or_else(Runs::of_user, Runs::in_folder)
    }

    /// The command that goes on with a run there.
    pub fn resume_command(&self, id: &RunId) -> String {
        let folder = self
            .runs
            .as_ref()
            .map(|folder| format!(" --runs {}", quoted(&folder.to_string_lossy())));
        format!("vidfit resume {id}{}", folder.unwrap_or_default())
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Whether a run's directory stays.
#[derive(clap::Args, Clone)]
pub struct KeepArgs {
    /// Where it is.
    #[command(flatten)]
    pub folder: RunsFolder,
    /// Drop the run's directory once the video is written. A run that does not come to its end stays.
    #[arg(long, overrides_with = "keep", help_heading = "Runs")]
    pub no_keep: bool,
    /// Keep it, even where the settings say otherwise.
    #[arg(long, help_heading = "Runs")]
    pub keep: bool,
}

impl KeepArgs {
    /// Whether it is kept.
    ///
    /// # Errors
    /// If the settings are wrong.
    pub fn keeps(&self) -> Result<bool, SettingsError> {
        match self.keep || self.no_keep {
            true => Ok(self.keep),
            false => Ok(Settings::load()?.read("keep")?.unwrap_or(true)),
        }
    }
}

/// Another device than the run had, or another part of it. What is not given stays as it was.
#[derive(clap::Args, Clone)]
pub struct OtherMachineArgs {
    /// The device that computes: auto, cpu, cuda:0, or a simulated card, such as sim:8GB. Limits that
    /// were given for another device are then dropped.
    #[arg(long, value_name = "DEVICE", help_heading = "Machine")]
    pub device: Option<DeviceChoice>,
    /// Threads of the CPU; 0 is one for each core.
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub threads: Option<usize>,
    /// Device memory that may be taken, such as 8GB.
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub vram_budget: Option<ByteSize>,
    /// Device memory to leave to others.
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub buffer: Option<ByteSize>,
    /// RAM that may be taken.
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub ram: Option<ByteSize>,
    /// Where weights wait: auto, none, model, sequential, or a share such as 40%.
    #[arg(long, value_name = "HOW", help_heading = "Memory")]
    pub offload: Option<Offload>,
}

impl OtherMachineArgs {
    /// The device of `machine`, and no more of it than may be used there.
    pub fn on(&self, machine: &MachineArgs) -> OtherMachineArgs {
        OtherMachineArgs {
            device: Some(machine.device.clone()),
            threads: Some(machine.threads),
            vram_budget: least(self.vram_budget, machine.vram_budget),
            buffer: self.buffer.max(machine.buffer),
            ram: least(self.ram, machine.ram),
            offload: self.offload,
        }
    }

    /// The machine of a run, with what is given here in its place.
    ///
    /// # Errors
    /// What is wrong, if the run's device is none that this program knows.
    pub fn instead_of(&self, record: &MachineRecord) -> Result<MachineArgs, String> {
        let own: DeviceChoice = record.device.parse()?;
        let device = self.device.clone().unwrap_or_else(|| own.clone());
        let limit = |given: Option<ByteSize>, recorded: Option<u64>| {
            given.or(recorded.filter(|_| device == own).map(ByteSize))
        };
        Ok(MachineArgs {
            dtype: Dtype::Auto,
            threads: self.threads.unwrap_or(record.threads),
            vram_budget: limit(self.vram_budget, record.vram_budget_bytes),
            buffer: limit(self.buffer, record.buffer_bytes),
            ram: limit(self.ram, record.ram_bytes),
            offload: self.offload.unwrap_or(record.offload),
            device,
        })
    }
}

/// `vidfit resume`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidfit resume last
  vidfit resume 20261123-18                 the run whose name begins like this
  vidfit resume last --device sim:4GB       on another device, with the same picture

Only what was not done is done. The plan of the run is kept if there is room for it; if not, the rest
is planned again, and makes the same picture: tiles stay tiles, and a run without tiles gets none.")]
pub struct ResumeArgs {
    /// The run: its name, the beginning of it, or `last`.
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Where it is.
    #[command(flatten)]
    pub folder: RunsFolder,
    /// On what.
    #[command(flatten)]
    pub machine: OtherMachineArgs,
    /// Where to, if not where the run was to write.
    #[arg(short, long, value_name = "FILE", help_heading = "Video")]
    pub output: Option<PathBuf>,
    /// Write what was planned and what was measured to a JSON file.
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    pub report: Option<PathBuf>,
    /// How to show progress, as in `vidfit generate`.
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto, help_heading = "Reports")]
    pub progress: ProgressStyle,
}

/// `vidfit decode`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidfit decode last --crf 12 --fps 16      from the frames that are kept: no model is needed
  vidfit decode last --vae-tiling on --tile-height 128 --tile-width 192
  vidfit decode last -o frames/             as PNGs

The run itself stays as it is. Without -o the video gets the first free name like the run's.")]
pub struct DecodeArgs {
    /// The run: its name, the beginning of it, or `last`.
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Where it is.
    #[command(flatten)]
    pub folder: RunsFolder,
    /// On what.
    #[command(flatten)]
    pub machine: OtherMachineArgs,
    /// Frames per second [default: the run's].
    #[arg(long, value_name = "RATE", help_heading = "Video")]
    pub fps: Option<f64>,
    /// Quality of an MP4, 0 to 51: smaller is better and larger [default: the run's].
    #[arg(long, value_name = "N", help_heading = "Video")]
    pub crf: Option<u32>,
    /// Where to: NAME.mp4, NAME.gif, or a folder for PNGs.
    #[arg(short, long, alias = "output_path", value_name = "FILE", help_heading = "Video")]
    pub output: Option<PathBuf>,
    /// Decode in tiles, or not [default: as the run did].
    #[arg(long, alias = "vae_tiling", value_enum, help_heading = "Memory")]
    pub vae_tiling: Option<Tiling>,
    /// Height of a tile in pixels [default: half of what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Memory")]
    pub tile_height: Option<usize>,
    /// Width of a tile in pixels [default: half of what the VAE was made for].
    #[arg(long, value_name = "PIXELS", help_heading = "Memory")]
    pub tile_width: Option<usize>,
    /// How to show progress, as in `vidfit generate`.
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto, help_heading = "Reports")]
    pub progress: ProgressStyle,
}

/// `vidfit runs`.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vidfit runs
  vidfit runs show last
  vidfit runs rm 20261123-181530-k3f
  vidfit runs gc --older-than 90 --keep-last 10 --dry-run"
)]
pub struct RunsArgs {
    /// What to do with them, if not just to list them.
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    /// Where they are.
    #[command(flatten)]
    pub folder: RunsFolder,
    /// As one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// The commands of `vidfit runs`.
#[derive(Subcommand)]
pub enum RunsCommand {
    /// Say what a run was asked for, and how it stands.
    Show {
        /// The run: its name, the beginning of it, or `last`.
        #[arg(value_name = "RUN")]
        run: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Take runs away. Their videos stay where they were written.
    Rm {
        /// The runs: names, beginnings of names, or `last`.
        #[arg(value_name = "RUN", required = true)]
        names: Vec<String>,
    },
    /// Take away what is not needed any more: frames and states of old runs that are done, what killed
    /// processes left behind, and whole runs if that is asked for.
    Gc(GcArgs),
}

/// `vidfit runs gc`.
#[derive(clap::Args)]
pub struct GcArgs {
    /// Drop frames and states of runs that have been done for so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub frames_after: u32,
    /// Drop whole runs, done or not, that nothing was written to for so many days. Their videos stay
    /// where they were written.
    #[arg(long, value_name = "DAYS")]
    pub older_than: Option<u32>,
    /// Leave so many of the newest runs alone.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: usize,
    /// Only say what would be dropped.
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_goes_on_names_the_folder() {
        let id = RunId::parse("20261123-181530-k3f").unwrap();
        let command = |folder: Option<&str>| {
            RunsFolder { runs: folder.map(PathBuf::from) }.resume_command(&id)
        };
        assert_eq!(command(None), "vidfit resume 20261123-181530-k3f");
        assert_eq!(command(Some("a/b")), "vidfit resume 20261123-181530-k3f --runs a/b");
        let odd = "vidfit resume 20261123-181530-k3f --runs 'it'\\''s mine'";
        assert_eq!(command(Some("it's mine")), odd);
    }

    #[test]
    fn limits_are_those_of_the_device_that_they_were_given_for() {
        let record = MachineRecord {
            device: "sim:8GB".into(),
            threads: 2,
            vram_budget_bytes: Some(1 << 30),
            buffer_bytes: None,
            ram_bytes: Some(2 << 30),
            offload: Offload::Model,
        };
        let none = OtherMachineArgs {
            device: None,
            threads: None,
            vram_budget: None,
            buffer: None,
            ram: None,
            offload: None,
        };
        let same = none.instead_of(&record).unwrap();
        assert_eq!(same.device.to_string(), "sim:8GB");
        assert_eq!((same.threads, same.offload), (2, Offload::Model));
        assert_eq!(same.vram_budget, Some(ByteSize(1 << 30)));
        let device = Some("cpu".parse().unwrap());
        let other = OtherMachineArgs { device, buffer: Some(ByteSize(5)), ..none };
        let other = other.instead_of(&record).unwrap();
        assert_eq!((other.vram_budget, other.ram), (None, None));
        assert_eq!(other.buffer, Some(ByteSize(5)));
        let unknown = MachineRecord { device: "tpu".into(), ..record };
        let none = OtherMachineArgs { device: None, ..no_limits() };
        assert!(none.instead_of(&unknown).is_err_and(|error| error.contains("tpu")));
    }

    fn no_limits() -> OtherMachineArgs {
        OtherMachineArgs {
            device: None,
            threads: None,
            vram_budget: None,
            buffer: None,
            ram: None,
            offload: None,
        }
    }
}
