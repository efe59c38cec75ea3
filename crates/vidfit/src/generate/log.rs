//! What a run says of itself besides its progress: what it takes, and how much memory there is.

use super::output::Output;
use crate::human::{frames, memory_status, seconds, size};
use crate::plan::placement;
use crate::progress::{self, Shown};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use vidfit_engine::machine::ram;
use vidfit_engine::planner::{PlanReport, Planned};
use vidfit_engine::progress::{Listener, Progress};
use vidfit_engine::running::Running;
use vidfit_tensor::Device;

/// Says what is going to happen, and what it takes.
pub fn announce(shown: Shown, planned: &Planned, report: &PlanReport, output: &Output) {
    let Planned { job, plan, .. } = planned;
    shown.say(&format!(
        "{}: {} of {}×{} at {} per second, {} steps in {} on {}",
        report.model,
        frames(job.frames),
        job.width,
        job.height,
        output.settings.fps,
        job.steps.len(),
        job.dtype,
        report.device,
    ));
    let phases: Vec<String> = report
        .phases
        .iter()
        .map(|phase| format!("{} {}", phase.name, size(phase.live_bytes)))
        .collect();
    shown.say(&format!(
        "memory: {} of {}, reserved once ({})",
        size(plan.device_bytes()),
        size(report.budget_bytes),
        phases.join(", ")
    ));
    shown.say(&format!("weights: {}", placement(&report.placement)));
    shown.event(json!({
        "event": "planned",
        "model": report.model,
        "device": report.device,
        "frames": job.frames,
        "width": job.width,
        "height": job.height,
        "steps": job.steps.len(),
        "dtype": job.dtype,
        "tiled": job.tiling.is_some(),
        "peak_bytes": plan.layout.peak_bytes,
        "scratch_bytes": plan.scratch_bytes,
        "budget_bytes": report.budget_bytes,
        "overhead_bytes": report.overhead_bytes,
        "placement": report.placement,
        "seconds": report.seconds,
    }));
}

/// Tells how much of the device's memory is used, at three moments of a run.
#[derive(Clone)]
pub struct MemoryLog {
    /// To whom.
    pub shown: Shown,
    /// Of what.
    pub device: Arc<dyn Device>,
    /// Its memory, if it has any of its own.
    pub memory_bytes: Option<u64>,
    /// When loading began.
    pub began: Instant,
}

impl MemoryLog {
    /// Tells it, `when`: in words; with the time that loading took, where it has ended just now.
    pub fn tell(&self, when: &str, load_seconds: Option<f64>) {
        let Some((kind, used_bytes, total_bytes)) = self.status() else { return };
        let took =
            load_seconds.map_or(String::new(), |took| format!(", which took {}", seconds(took)));
        let status = memory_status(kind, used_bytes, total_bytes);
        self.shown.say(&format!("{status} ({when}{took})"));
        self.shown.event(json!({
            "event": "memory",
            "when": when,
            "kind": kind,
            "used_bytes": used_bytes,
            "total_bytes": total_bytes,
            "available_bytes": total_bytes.saturating_sub(used_bytes),
            "load_seconds": load_seconds,
        }));
    }

    /// The kind of memory, what of it is used, and all of it.
    fn status(&self) -> Option<(&'static str, u64, u64)> {
        match (self.memory_bytes, self.device.free_bytes()) {
            (Some(total), Some(free)) => Some(("VRAM", total.saturating_sub(free), total)),
            _ => ram().map(|ram| ("RAM", ram.used_bytes, ram.total_bytes)),
        }
    }
}

/// Shows the progress of a run, and tells others of it; and how much memory is used once the first
/// phase begins, for by then all of it is reserved.
pub fn listener(shown: Shown, memory: MemoryLog, mut running: Option<Running>) -> Listener {
    let mut show = progress::listener(shown);
    let mut loading = Some(memory);
    Box::new(move |news| {
        if let Some(running) = &mut running {
            running.hear(&news);
        }
        if matches!(news, Progress::PhaseBegan { .. })
            && let Some(memory) = loading.take()
        {
            memory.tell("after loading", Some(memory.began.elapsed().as_secs_f64()));
        }
        show(news);
    })
}
