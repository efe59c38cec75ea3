//! Runs as people and programs read them.

use crate::human::{duration, size};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vidfit_engine::runs::{Listed, RunRecord, Standing};

/// Characters of a prompt in the list.
const PROMPT: usize = 40;

/// A line for each run.
pub fn of(runs: &[Listed], now: SystemTime) -> String {
    let header = ["RUN", "AGE", "STATUS", "MODEL", "VIDEO", "DISK", "PROMPT"].map(str::to_owned);
    let rows: Vec<[String; 7]> =
        std::iter::once(header).chain(runs.iter().map(|run| row(run, now))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..7).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(run: &Listed, now: SystemTime) -> [String; 7] {
    let of_record = |words: fn(&RunRecord) -> String| run.record.as_ref().map_or("".into(), words);
    [
        run.id.to_string(),
        run.record.as_ref().map_or("".into(), |record| age(record, now)),
        status(run),
        of_record(|record| short(&record.model)),
        of_record(video),
        size(run.bytes),
        match &run.standing {
            Standing::Damaged(what) => what.clone(),
            _ => of_record(|record| elided(&record.request.prompt)),
        },
    ]
}

/// How a run stands, in words.
fn status(run: &Listed) -> String {
    let steps = run.record.as_ref().map_or(0, |record| record.steps);
    let step = format!("{}/{steps}", run.steps_done);
    match (&run.standing, run.is_denoised()) {
        (Standing::Running { .. }, false) => format!("running {step}"),
        (Standing::Running { .. }, true) => "decoding".into(),
        (Standing::Stopped, false) => format!("stopped {step}"),
        (Standing::Stopped, true) if run.has_frames => "stopped before writing".into(),
        (Standing::Stopped, true) => "stopped in decoding".into(),
        (Standing::Done, _) => "done".into(),
        (Standing::Failed(_), _) => format!("failed {step}"),
        (Standing::Damaged(_), _) => "damaged".into(),
    }
}

/// All that is known of a run.
pub fn of_one(run: &Listed) -> String {
    let mut lines = vec![("run", run.id.to_string()), ("status", status(run))];
    match &run.standing {
        Standing::Failed(what) | Standing::Damaged(what) => lines.push(("error", what.clone())),
        Standing::Running { pid: Some(pid) } => lines.push(("process", pid.to_string())),
        _ => {}
    }
    if let Some(record) = &run.record {
        let request = &record.request;
        lines.extend([
            ("prompt", request.prompt.clone()),
            ("negative prompt", request.negative_prompt.clone()),
            ("model", record.model.clone()),
            ("video", format!("{} at {} per second", video(record), record.fps)),
            (
                "sampling",
                format!(
                    "{} steps, guidance {}, seed {}, {}",
                    record.steps, request.guidance, request.seed, request.dtype
                ),
            ),
            ("device", record.machine.device.clone()),
            ("output", record.output.display().to_string()),
        ]);
    }
    lines.push(("directory", run.folder.display().to_string()));
    lines.push(("on the disk", size(run.bytes)));
    let told = lines.into_iter().filter(|(_, words)| !words.is_empty());
    let lines: Vec<String> = told.map(|(name, words)| format!("{name:16} {words}")).collect();
    lines.join("\n")
}

/// A run for programs.
pub fn as_json(run: &Listed) -> Value {
    let (standing, error) = match &run.standing {
        Standing::Running { .. } => ("running", None),
        Standing::Stopped => ("stopped", None),
        Standing::Done => ("done", None),
        Standing::Failed(error) => ("failed", Some(error)),
        Standing::Damaged(what) => ("damaged", Some(what)),
    };
    let pid = match run.standing {
        Standing::Running { pid } => pid,
        _ => None,
    };
    json!({
        "id": run.id.as_str(),
        "folder": run.folder,
        "status": standing,
        "error": error,
        "pid": pid,
        "steps_done": run.steps_done,
        "steps": run.record.as_ref().map(|record| record.steps),
        "has_frames": run.has_frames,
        "bytes": run.bytes,
        "request": run.record,
    })
}

fn age(record: &RunRecord, now: SystemTime) -> String {
    let began = UNIX_EPOCH + Duration::from_millis(record.began_unix_ms);
    let age = now.duration_since(began).unwrap_or_default();
    match age.as_secs() / 86_400 {
        0 => duration(age),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}

fn video(record: &RunRecord) -> String {
    format!("{} × {}×{}", record.frames, record.width, record.height)
}

/// The last part of a model's name.
fn short(model: &str) -> String {
    let name = model.trim_end_matches(['/', '\\']);
    name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned()
}

/// The beginning of a prompt, in one line.
fn elided(prompt: &str) -> String {
    let words = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    match words.chars().count() {
        ..=PROMPT => words,
        _ => words.chars().take(PROMPT - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_models_are_short() {
        assert_eq!(elided("a\n  \u{1b}panda"), "a panda");
        let long = elided(&"ä".repeat(100));
        assert_eq!((long.chars().count(), long.ends_with('…')), (PROMPT, true));
        assert_eq!(short("zai-org/CogVideoX-2b"), "CogVideoX-2b");
        assert_eq!(short("models/mine/"), "mine");
    }
}
