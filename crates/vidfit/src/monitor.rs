//! `vidfit monitor`.

mod screen;

use crate::exit::Failure;
use crate::human::{duration, size};
use crate::interrupt;
use crate::say::{answer, note};
use crate::snapshot::Snapshot;
use screen::{Screen, Wake};
use serde_json::{Value, json};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vidfit_engine::gpus::{GpuStatus, Gpus, NoGpus};
use vidfit_engine::running::{self, RunningRecord};

/// `vidfit monitor`.
#[derive(clap::Args)]
#[command(
    after_help = "q or Ctrl-C ends it. Where standard output is not a terminal, one look is \
                        printed; with --json, one object a line until it is ended."
)]
pub struct MonitorArgs {
    /// Look once.
    #[arg(long)]
    pub once: bool,
    /// As JSON, one object for each look, in bytes and seconds.
    #[arg(long)]
    pub json: bool,
    /// Time between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds from 0.1 to 3600 are meant".to_owned()),
    }
}

/// Shows cards, RAM and running jobs, once or until the user has seen enough.
pub fn run(args: &MonitorArgs) -> Result<(), Failure> {
    let gpus = Gpus::open();
    match (args.json, args.once) {
        (true, true) => answer(&Look::take(&gpus).as_json().to_string()),
        (true, false) => stream(&gpus, args.interval),
        (false, true) => answer(&Look::take(&gpus).lines().join("\n")),
        (false, false) if std::io::stdout().is_terminal() => show(&gpus, args.interval),
        (false, false) => {
            note!("standard output is not a terminal: this is one look; --json goes on looking");
            answer(&Look::take(&gpus).lines().join("\n"))
        }
    }
}

/// Prints an object a line until nobody reads them any more.
fn stream(gpus: &Result<Gpus, NoGpus>, interval: Duration) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    loop {
        let look = Look::take(gpus).as_json();
        match writeln!(out, "{look}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::other(format!("cannot print: {error}"))),
            Ok(()) => std::thread::sleep(interval),
        }
    }
}

/// Draws on the terminal until a key or a signal ends it.
fn show(gpus: &Result<Gpus, NoGpus>, interval: Duration) -> Result<(), Failure> {
    let stop = interrupt::watch()?;
    let failed =
        |error| Failure::other(format!("cannot draw on this terminal: {error}; try --once"));
    let screen = Screen::enter().map_err(failed)?;
    let mut look = Look::take(gpus);
    while !stop.load(Ordering::Relaxed) {
        let mut lines = look.lines();
        lines.extend([String::new(), "q ends this".to_owned()]);
        screen.draw(&lines).map_err(failed)?;
        match screen.wait(interval, &stop).map_err(failed)? {
            Wake::Quit => break,
            Wake::Resized => {}
            Wake::Due => look = Look::take(gpus),
        }
    }
    Ok(())
}

/// What is to be seen at one moment.
struct Look {
    unix_seconds: f64,
    machine: Snapshot,
    jobs: Vec<RunningRecord>,
}

impl Look {
    fn take(gpus: &Result<Gpus, NoGpus>) -> Look {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Look {
            unix_seconds: since_1970.as_secs_f64(),
            machine: Snapshot::take(gpus),
            jobs: running::list(),
        }
    }

    fn as_json(&self) -> Value {
        let mut object = self.machine.as_json(true);
        object["time_unix_seconds"] = json!(self.unix_seconds);
        object["jobs"] = json!(self.jobs);
        object
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.machine.lines(|gpu| vec![activity(gpu)]);
        lines.push(String::new());
        match &self.jobs[..] {
            [] => lines.push("no vidfit job is running".to_owned()),
            jobs => lines.extend(jobs.iter().flat_map(|job| job_lines(job, self.unix_seconds))),
        }
        lines
    }
}

/// `[#######-------------]  97 % busy, 64 °C, 231 W`: the bar is of memory.
fn activity(gpu: &GpuStatus) -> String {
    let share = gpu.used_bytes as f64 / gpu.total_bytes.max(1) as f64;
    let facts = [
        gpu.utilisation_percent.map(|percent| format!("{percent} % busy")),
        gpu.temperature_celsius.map(|celsius| format!("{celsius} °C")),
        gpu.power_watts.map(|watts| format!("{watts:.0} W")),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    format!("{}  {}", bar(share), facts.join(", ")).trim_end().to_owned()
}

/// A bar of twenty places, of which a share is filled.
fn bar(share: f64) -> String {
    const PLACES: usize = 20;
    let filled = ((share * PLACES as f64).round() as usize).min(PLACES);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(PLACES - filled))
}

/// What a job is, and how far it has come.
fn job_lines(record: &RunningRecord, now_unix_seconds: f64) -> [String; 2] {
    let RunningRecord { pid, started_unix_seconds, job, state } = record;
    let runs = (now_unix_seconds - *started_unix_seconds as f64).max(0.0);
    let name = job.output.as_deref().and_then(Path::file_name);
    let output = name.map(|name| format!(", into {}", name.display())).unwrap_or_default();
    let what = format!(
        "{pid} {} on {}, arena {}, for {}{output}",
        job.model,
        job.device,
        size(job.arena_bytes),
        duration(Duration::from_secs_f64(runs)),
    );
    let phase = if state.phase.is_empty() { "begins" } else { &state.phase };
    let steps = match (state.step, state.steps) {
        (Some(step), Some(steps)) => format!(" {step}/{steps}"),
        _ => String::new(),
    };
    let left = state.seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let left = left.map(|left| format!(", {} left", duration(left))).unwrap_or_default();
    let percent = state.fraction.clamp(0.0, 1.0) * 100.0;
    [what, format!("  {}  {phase}{steps}, {percent:.0} %{left}", bar(state.fraction))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::{gpu, snapshot};
    use vidfit_engine::running::{RunningJob, RunningState};

    fn look(jobs: Vec<RunningRecord>) -> Look {
        Look { unix_seconds: 1000.5, machine: snapshot(vec![gpu(0)], &[]), jobs }
    }

    fn record(state: RunningState) -> RunningRecord {
        let job = RunningJob {
            model: "CogVideoX-5b".into(),
            device: "cuda:0".into(),
            arena_bytes: 3 << 30,
            output: Some("videos/panda.mp4".into()),
        };
        RunningRecord { pid: 4711, started_unix_seconds: 750, job, state }
    }

    #[test]
    fn a_job_shows_arena_phase_step_and_time_left() {
        let state = RunningState {
            phase: "denoise".into(),
            step: Some(12),
            steps: Some(50),
            fraction: 0.25,
            seconds_left: Some(600.0),
        };
        let look = look(vec![record(state)]);
        let lines = look.lines();
        let expected = [
            "  [#######-------------]  97 % busy, 64 °C",
            "4711 CogVideoX-5b on cuda:0, arena 3.00 GB, for 4 min 11 s, into panda.mp4",
            "  [#####---------------]  denoise 12/50, 25 %, 10 min 0 s left",
        ];
        for line in expected {
            assert!(lines.contains(&line.to_owned()), "{line} in {lines:#?}");
        }
        let json = look.as_json();
        assert_eq!(json["jobs"][0]["step"], 12);
        assert_eq!(json["jobs"][0]["arena_bytes"], 3u64 << 30);
        assert_eq!(json["time_unix_seconds"], 1000.5);
        assert_eq!(json["gpus"][0]["processes"][0]["pid"], 7);
    }

    #[test]
    fn a_job_that_has_just_begun_or_lies_breaks_nothing() {
        let begun = job_lines(&record(RunningState::default()), 0.0);
        assert_eq!(begun[1], "  [--------------------]  begins, 0 %");
        let state = RunningState {
            phase: "text".into(),
            fraction: 7.0,
            seconds_left: Some(-1.0),
            ..RunningState::default()
        };
        let lying = job_lines(&record(state), 1e9);
        assert_eq!(lying[1], "  [####################]  text, 100 %");
        assert!(look(vec![]).lines().contains(&"no vidfit job is running".to_owned()));
    }

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1s", "", "3601"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
