//! Progress as bars, lines or JSON.

mod job;

pub use job::JobName;

use crate::args::ProgressStyle;
use crate::exit::Failure;
use crate::human::{duration, size};
use crate::say::{line, note};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::json;
use std::io::IsTerminal;
use vidfit_engine::progress::{Listener, Progress};

/// How progress is shown, with `auto` decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A bar per phase.
    Bars,
    /// A line per phase.
    Lines,
    /// One JSON object a line.
    Json,
    /// One JSON object a line, with the name of the job among others of one worker.
    Job(JobName),
    /// Nothing.
    Nothing,
}

impl Shown {
    /// Decides what `auto` is.
    pub fn from(style: ProgressStyle) -> Shown {
        match style {
            ProgressStyle::Auto if std::io::stderr().is_terminal() => Shown::Bars,
            ProgressStyle::Auto => Shown::Lines,
            ProgressStyle::Bar => Shown::Bars,
            ProgressStyle::Json => Shown::Json,
            ProgressStyle::None => Shown::Nothing,
        }
    }

    /// Says something to the user, unless a script listens.
    pub fn say(self, text: &str) {
        match self {
            Shown::Bars | Shown::Lines => note!("{text}"),
            Shown::Json | Shown::Job(_) | Shown::Nothing => {}
        }
    }

    /// Says something that the user should not miss.
    pub fn warn(self, text: &str) {
        match self {
            Shown::Json | Shown::Job(_) => {
                self.event(json!({ "event": "warning", "message": text }));
            }
            _ => note!("warning: {text}"),
        }
    }

    /// Whether a script listens, and nobody else.
    pub fn is_for_scripts(self) -> bool {
        matches!(self, Shown::Json | Shown::Job(_))
    }

    /// Tells a script why the command fails; people are told when it ends.
    pub fn failed(self, failure: &Failure) {
        let Failure { code, message, .. } = failure;
        self.event(json!({ "event": "error", "code": code, "message": message }));
    }

    /// A line of JSON, if that is what is shown.
    pub fn event(self, mut event: serde_json::Value) {
        match self {
            Shown::Json => line!("{event}"),
            Shown::Job(job) => {
                event["job"] = json!(job.as_str());
                line!("{event}");
            }
            Shown::Bars | Shown::Lines | Shown::Nothing => {}
        }
    }
}

/// Shows the progress of a run.
pub fn listener(shown: Shown) -> Listener {
    match shown {
        Shown::Nothing => Box::new(|_| {}),
        Shown::Lines => Box::new(|news| match news {
            Progress::PhaseEnded { phase, took } => {
                note!("{:18} {}", title(phase), duration(took));
            }
            Progress::PlannedAgain { .. } => note!("{}", planned_again(&news)),
            _ => {}
        }),
        Shown::Json | Shown::Job(_) => Box::new(move |news| shown.event(as_json(&news))),
        Shown::Bars => {
            let mut bar: Option<(ProgressBar, Option<usize>)> = None;
            Box::new(move |news| draw(&mut bar, news))
        }
    }
}

/// Positions of a bar: phases count in fractions.
const BAR_LENGTH: u64 = 1000;

/// What a second plan is for.
fn planned_again(news: &Progress) -> String {
    match news {
        Progress::PlannedAgain { planned_bytes, device_bytes } => format!(
            "warning: {} were planned, but the device has less by now; planned again for {}, with \
             the same picture",
            size(*planned_bytes),
            size(*device_bytes)
        ),
        _ => String::new(),
    }
}

fn draw(bar: &mut Option<(ProgressBar, Option<usize>)>, news: Progress) {
    match news {
        Progress::PlannedAgain { .. } => note!("{}", planned_again(&news)),
        Progress::PhaseBegan { phase, steps } => {
            let new = ProgressBar::with_draw_target(Some(BAR_LENGTH), ProgressDrawTarget::stderr());
            if let Ok(style) = BarStyle::with_template("{prefix:18} {bar:32} {msg}") {
                new.set_style(style);
            }
            new.set_prefix(title(phase));
            new.tick();
            *bar = Some((new, steps));
        }
        Progress::Advanced { steps_done, fraction, time_left, .. } => {
            let Some((bar, steps)) = bar else { return };
            bar.set_position((fraction * BAR_LENGTH as f64) as u64);
            let mut message = match steps {
                Some(steps) => format!("step {steps_done}/{steps}"),
                None => format!("{:3.0} %", fraction * 100.0),
            };
            if let Some(left) = time_left {
                message += &format!(", {} left", duration(left));
            }
            bar.set_message(message);
        }
        Progress::PhaseEnded { phase, took } => {
            if let Some((bar, _)) = bar.take() {
                bar.finish_and_clear();
            }
            note!("{:18} {}", title(phase), duration(took));
        }
    }
}

fn as_json(news: &Progress) -> serde_json::Value {
    match news {
        Progress::PlannedAgain { planned_bytes, device_bytes } => json!({
            "event": "planned_again",
            "planned_bytes": planned_bytes,
            "device_bytes": device_bytes,
        }),
        Progress::PhaseBegan { phase, steps } => {
            json!({ "event": "phase_began", "phase": phase, "steps": steps })
        }
        Progress::Advanced { phase, steps_done, fraction, time_left } => json!({
            "event": "progress",
            "phase": phase,
            "steps_done": steps_done,
            "fraction": fraction,
            "seconds_left": time_left.map(|left| left.as_secs_f64()),
        }),
        Progress::PhaseEnded { phase, took } => {
            json!({ "event": "phase_ended", "phase": phase, "seconds": took.as_secs_f64() })
        }
    }
}

fn title(phase: &str) -> &'static str {
    match phase {
        "text" => "reading the prompt",
        "encode" => "encoding",
        "denoise" => "denoising",
        "decode" => "decoding",
        _ => "working",
    }
}
