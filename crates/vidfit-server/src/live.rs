//! How far the job is that the worker has.

use crate::backend::Report;
use crate::job::Job;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What phases take of a job of which there is no plan, in percent.
const USUAL_SHARES: [(&str, f64); 4] =
    [("text", 4.0), ("encode", 4.0), ("denoise", 80.0), ("decode", 12.0)];

/// The running job, as its events tell.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) id: String,
    pub(crate) phase: Option<String>,
    pub(crate) step: Option<u64>,
    pub(crate) steps: Option<u64>,
    /// What of the phase is done, 0 to 1.
    fraction: f64,
    phase_seconds_left: Option<f64>,
    /// Each phase, in order, with its seconds or its share.
    shares: Vec<(String, f64)>,
    /// Whether the shares are seconds.
    timed: bool,
    most_percent: u8,
    /// What it took so far.
    pub(crate) report: Report,
    /// What of the device is held for it, by its plan.
    pub(crate) held_bytes: u64,
    pub(crate) warnings: Vec<String>,
}

/// What an event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing that anyone sees.
    Nothing,
    /// A little, as many others will.
    Advanced,
    /// Something that everyone should see.
    Turned,
}

impl Live {
    /// A job that the worker has just been given.
    pub(crate) fn new(job: &Job) -> Live {
        let planned = job.settled.plan.as_ref().map(planned_shares).unwrap_or_default();
        let timed = !planned.is_empty();
        let usual = || USUAL_SHARES.map(|(name, share)| (name.to_owned(), share)).to_vec();
        Live {
            id: job.id.clone(),
            phase: None,
            step: None,
            steps: None,
            fraction: 0.0,
            phase_seconds_left: None,
            shares: if timed { planned } else { usual() },
            timed,
            most_percent: 0,
            report: Report::default(),
            held_bytes: 0,
            warnings: Vec::new(),
        }
    }

    /// Takes in an event of `--progress json`.
    pub(crate) fn hear(&mut self, event: &Map<String, Value>) -> Heard {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let whole = |name: &str| event.get(name).and_then(Value::as_u64);
        let float = |name: &str| event.get(name).and_then(Value::as_f64);
        match text("event").unwrap_or_default() {
            "planned" => {
                let planned =
                    whole("peak_bytes").unwrap_or(0) + whole("scratch_bytes").unwrap_or(0);
                self.report.planned_peak_bytes = Some(planned);
                self.held_bytes = planned + whole("overhead_bytes").unwrap_or(0);
                Heard::Turned
            }
            "phase_began" => {
                self.phase = text("phase").map(str::to_owned);
                self.steps = whole("steps");
                self.step = self.steps.map(|_| 0);
                self.fraction = 0.0;
                self.phase_seconds_left = None;
                Heard::Turned
            }
            "progress" if text("phase").is_some() => {
                self.phase = text("phase").map(str::to_owned);
                if self.steps.is_some() {
                    self.step = whole("steps_done");
                }
                self.fraction = float("fraction").unwrap_or(0.0).clamp(0.0, 1.0);
                self.phase_seconds_left = float("seconds_left").filter(|left| left.is_finite());
                Heard::Advanced
            }
            "phase_ended" => {
                self.fraction = 1.0;
                self.phase_seconds_left = Some(0.0);
                if let (Some(phase), Some(seconds)) = (text("phase"), float("seconds")) {
                    *self.report.seconds.entry(phase.to_owned()).or_default() += seconds;
                }
                Heard::Turned
            }
            "warning" => match text("message") {
                Some(message) if self.warnings.len() < 100 => {
                    self.warnings.push(message.to_owned());
                    Heard::Turned
                }
                _ => Heard::Nothing,
            },
            "done" => {
                self.report.planned_peak_bytes =
                    whole("planned_peak_bytes").or(self.report.planned_peak_bytes);
                self.report.measured_peak_bytes = whole("measured_peak_bytes");
                Heard::Nothing
            }
            _ => Heard::Nothing,
        }
    }

    /// How much is done, in percent. It never falls, and is 100 only once the video is there.
    pub(crate) fn percent(&mut self) -> u8 {
        let all: f64 = self.shares.iter().map(|(_, share)| share).sum();
        let done = match self.place() {
            Some(at) => {
                let before: f64 = self.shares[..at].iter().map(|(_, share)| share).sum();
                before + self.shares[at].1 * self.fraction
            }
            None => 0.0,
        };
        let percent = if all > 0.0 { (100.0 * done / all) as u8 } else { 0 };
        self.most_percent = self.most_percent.max(percent.min(99));
        self.most_percent
    }

    /// What is left, in seconds: the phase at its pace, and those behind it by the plan.
    pub(crate) fn seconds_left(&self) -> Option<f64> {
        let this = self.phase_seconds_left?;
        if !self.timed {
            return Some(this);
        }
        let behind = self.place().map_or(&[][..], |at| &self.shares[at + 1..]);
        Some(this + behind.iter().map(|(_, seconds)| seconds).sum::<f64>())
    }

    fn place(&self) -> Option<usize> {
        let phase = self.phase.as_deref()?;
        self.shares.iter().position(|(name, _)| name == phase)
    }
}

/// The seconds of each phase of a plan.
fn planned_shares(plan: &Value) -> Vec<(String, f64)> {
    let phases: BTreeMap<usize, (String, f64)> = plan
        .get("phases")
        .and_then(Value::as_array)
        .map(|phases| phases.iter().enumerate())
        .into_iter()
        .flatten()
        .filter_map(|(at, phase)| {
            let name = phase.get("name")?.as_str()?.to_owned();
            let seconds =
                phase.get("seconds")?.as_f64().filter(|it| it.is_finite() && *it >= 0.0)?;
            Some((at, (name, seconds)))
        })
        .collect();
    phases.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Settled;
    use crate::job::{Outcome, Status};
    use crate::order::{Order, Task};
    use serde_json::json;

    fn job(plan: Option<Value>) -> Job {
        Job {
            id: "video_1".into(),
            status: Status::InProgress,
            created_at: 0,
            started_at: None,
            completed_at: None,
            crashes: 0,
            cancel: false,
            deleted: false,
            order: Order::default(),
            settled: Settled {
                task: Task::T2v,
                model: "demo".into(),
                width: 64,
                height: 64,
                num_frames: 17,
                fps: 8.0,
                num_inference_steps: 4,
                guidance_scale: 6.0,
                seed: 1,
                warnings: vec![],
                plan,
            },
            reference: None,
            outcome: Outcome::default(),
        }
    }

    fn hear(live: &mut Live, event: Value) -> Heard {
        live.hear(event.as_object().unwrap())
    }

    #[test]
    fn progress_is_weighed_by_the_plan_and_never_falls() {
        let plan = json!({ "phases": [{ "name": "text", "seconds": 10.0 },
            { "name": "denoise", "seconds": 80.0 }, { "name": "decode", "seconds": 10.0 }] });
        let mut live = Live::new(&job(Some(plan)));
        assert_eq!(live.percent(), 0);
        hear(&mut live, json!({"event": "phase_began", "phase": "denoise", "steps": 4}));
        assert_eq!((live.percent(), live.step, live.steps), (10, Some(0), Some(4)));
        let half = json!({"event": "progress", "phase": "denoise", "steps_done": 2, "fraction": 0.5,
            "seconds_left": 40.0});
        assert_eq!(hear(&mut live, half), Heard::Advanced);
        assert_eq!((live.percent(), live.seconds_left()), (50, Some(50.0)));
        // A job that crashed begins its phase again.
        hear(&mut live, json!({"event": "phase_began", "phase": "denoise", "steps": 4}));
        assert_eq!(live.percent(), 50);
        hear(&mut live, json!({"event": "phase_ended", "phase": "decode", "seconds": 3.5}));
        hear(&mut live, json!({"event": "progress", "phase": "decode", "fraction": 1.0}));
        assert_eq!(live.percent(), 99);
        assert_eq!(live.report.seconds["decode"], 3.5);
    }

    #[test]
    fn what_is_not_known_does_no_harm() {
        let mut live = Live::new(&job(None));
        assert_eq!(hear(&mut live, json!({"event": 3})), Heard::Nothing);
        assert_eq!(hear(&mut live, json!({"event": "progress", "file": "x"})), Heard::Nothing);
        hear(&mut live, json!({"event": "progress", "phase": "new", "fraction": 7}));
        assert_eq!((live.percent(), live.seconds_left()), (0, None));
        assert!(planned_shares(&json!({"phases": [{"name": 1}, 7]})).is_empty());
    }
}
