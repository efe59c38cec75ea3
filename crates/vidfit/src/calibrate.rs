//! `vidfit calibrate`: measure what this machine's operations cost, and keep it for predictions.

use crate::args::{CalibrateArgs, ProgressStyle};
use crate::device::DeviceChoice;
use crate::exit::Failure;
use crate::human::duration;
use crate::progress::Shown;
use crate::say::{answer, note};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::json;
use std::time::Instant;
use vidfit_cpu::CpuDevice;
use vidfit_engine::calibration::{self, Calibration, ClassFit, Machine};
use vidfit_engine::folders::Folders;
use vidfit_tensor::DType;
use vidfit_tensor::rates::{Class, Cost};

/// Measures, keeps, and says what was found.
pub fn run(args: &CalibrateArgs) -> Result<(), Failure> {
    if !matches!(args.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
        return Err(Failure::input(
            "only the CPU is measured yet; plans for cards use what their makers publish",
        ));
    }
    let dir = Folders::from_env().state;
    let device = CpuDevice::new(args.threads)?;
    let machine = Machine::this(args.threads);
    let style = if args.json { ProgressStyle::None } else { ProgressStyle::Auto };
    let shown = Shown::from(style);
    shown.say(&format!(
        "measuring {} on {} threads, which should have nothing else to do",
        machine.processor, machine.threads
    ));

    let began = Instant::now();
    let bar = (shown == Shown::Bars).then(progress_bar);
    let measured =
        calibration::measure(&device, machine.threads, calibration::ROUNDS, &mut |share| {
            if let Some(bar) = &bar {
                bar.set_position((share * 100.0) as u64);
            }
        })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let calibration = Calibration { machine, rates: measured.rates };
    let path = calibration::store(&dir, &calibration).map_err(Failure::other)?;
    if args.json {
        let report = json!({
            "machine": calibration.machine,
            "rates": calibration.rates,
            "fits": measured.fits,
            "path": path,
        });
        return answer(&report.to_string());
    }
    note!("took {}; kept in {}", duration(began.elapsed()), path.display());
    answer(&table(&calibration, &measured.fits))
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
    if let Ok(style) = BarStyle::with_template("{bar:32} {pos:>3} %") {
        bar.set_style(style);
    }
    bar
}

/// A line for each class: its pace in each type, and how far the formula is from what was measured.
fn table(calibration: &Calibration, fits: &[ClassFit]) -> String {
    let mut text =
        format!("{:18} {:>16} {:>16} {:>16} {:>12}", "", "f32", "bf16", "f16", "worst fit");
    for class in Class::ALL {
        let costs = calibration.rates.class(class);
        let pace = |dtype| pace(costs.of(dtype));
        let worst = fits.iter().filter(|fit| fit.class == class).flat_map(|fit| &fit.cases);
        let worst = worst.map(|(_, measured, fitted)| fitted / measured - 1.0);
        let worst = worst.max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
        text += &format!(
            "\n{:18} {:>16} {:>16} {:>16} {:>10.0} %",
            name(class),
            pace(DType::F32),
            pace(DType::BF16),
            pace(DType::F16),
            worst * 100.0
        );
    }
    text
}

fn name(class: Class) -> &'static str {
    match class {
        Class::Linear => "products",
        Class::Attention => "attention",
        Class::Convolution => "convolutions",
        Class::ThinConvolution => "thin convolutions",
        Class::Norm => "norms",
        Class::Statistics => "statistics",
        Class::GroupNorm => "group norms",
        Class::Elementwise => "elementwise",
        Class::Upload => "from the host",
        Class::Download => "to the host",
    }
}

/// What the class does in a second, by the term that most of its time goes to.
fn pace(cost: &Cost) -> String {
    let per_second = |seconds: f64, unit: &str| format!("{:.1} {unit}", 1e-9 / seconds);
    match cost {
        cost if cost.seconds_per_flop > 0.0 => per_second(cost.seconds_per_flop, "GFLOP/s"),
        cost if cost.seconds_per_byte > 0.0 => per_second(cost.seconds_per_byte, "GB/s"),
        cost => per_second(cost.seconds_per_function, "G/s"),
    }
}
