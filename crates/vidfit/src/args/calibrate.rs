//! `vidfit calibrate`.

use crate::device::DeviceChoice;

/// `vidfit calibrate`.
#[derive(clap::Args)]
pub struct CalibrateArgs {
    /// The device to measure: auto or cpu.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of the CPU; 0 is one for each core. A calibration holds for as many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// As one JSON object: the machine, its rates, and every operation's measured seconds beside
    /// those of the formula.
    #[arg(long)]
    pub json: bool,
}
