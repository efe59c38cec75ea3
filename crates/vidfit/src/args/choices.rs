//! Choices among a few words.

use clap::ValueEnum;
use std::str::FromStr;
use vidfit_cogvideox::guidance::GuidanceCurve;
use vidfit_cogvideox::scheduler::{SchedulerKind, TimestepRule};
use vidfit_engine::request::TilingChoice;

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

/// `--dynamic-cfg`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DynamicCfg {
    /// The same scale at every step.
    Off,
    /// As the reference does it: the scale jumps from step to step.
    Reference,
    /// As it was meant: the scale rises evenly from 1 to 1 more than the guidance.
    Smooth,
}

impl From<DynamicCfg> for GuidanceCurve {
    fn from(choice: DynamicCfg) -> Self {
        match choice {
            DynamicCfg::Off => GuidanceCurve::Constant,
            DynamicCfg::Reference => GuidanceCurve::Reference,
            DynamicCfg::Smooth => GuidanceCurve::Smooth,
        }
    }
}

/// `--timestep-rule`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// As the reference does it: leaves noise in the picture if the number of steps does not divide
    /// 1000.
    Reference,
    /// From step to step, the last of which ends without noise.
    Clean,
}

impl From<Rule> for TimestepRule {
    fn from(choice: Rule) -> Self {
        match choice {
            Rule::Reference => TimestepRule::Reference,
            Rule::Clean => TimestepRule::Clean,
        }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// f32 on the CPU, the type that the model was published for on cards.
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

/// `--frames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// So many.
    Count(usize),
    /// The most that fit, up to what the model was made for.
    Fit,
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Frames, String> {
        if text.eq_ignore_ascii_case("fit") {
            return Ok(Frames::Fit);
        }
        text.parse().map(Frames::Count).map_err(|_| {
            "write a number, such as 49, or the word fit, for the most that fit".to_owned()
        })
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
