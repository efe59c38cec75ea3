//! The log of a run: what happened, and when, one JSON object a line.

use crate::progress::Progress;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends to a run's log. A line that cannot be written is left out: a log is no reason to end a run.
#[derive(Clone, Debug)]
pub struct RunLog {
    file: Arc<File>,
    steps_done: Arc<AtomicUsize>,
}

impl RunLog {
    /// The log at `path`, or a new one.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn open(path: &Path) -> io::Result<RunLog> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        // A pipe that nobody reads would be waited for once it is full.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        // A process that was killed may have left half a line.
        let bytes = file.metadata()?.len();
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(bytes - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(RunLog { file: Arc::new(file), steps_done: Arc::default() })
    }

    /// Adds an event, an object, with its time in seconds since 1970.
    pub fn note(&self, mut event: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        event["time"] = json!((now.as_secs_f64() * 1000.0).round() / 1000.0);
        // In one piece, so that lines of two threads do not mix.
        let _ = (&*self.file).write_all(format!("{event}\n").as_bytes());
    }

    /// Adds news of the run: phases, and steps that are done.
    pub fn hear(&self, news: &Progress) {
        match news {
            Progress::PlannedAgain { planned_bytes, device_bytes } => self.note(json!({
                "event": "planned_again",
                "planned_bytes": planned_bytes,
                "device_bytes": device_bytes,
            })),
            Progress::PhaseBegan { phase, steps } => {
                self.steps_done.store(0, Ordering::Relaxed);
                self.note(json!({ "event": "phase_began", "phase": phase, "steps": steps }));
            }
            Progress::Advanced { steps_done, .. } => {
                if self.steps_done.swap(*steps_done, Ordering::Relaxed) < *steps_done {
                    self.note(json!({ "event": "step", "steps_done": steps_done }));
                }
            }
            Progress::PhaseEnded { phase, took } => self.note(json!({
                "event": "phase_ended",
                "phase": phase,
                "seconds": took.as_secs_f64(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        RunLog::open(&path).unwrap().note(json!({ "event": "one" }));
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += "{\"event\":\"tw";
        std::fs::write(&path, &text).unwrap();
        let log = RunLog::open(&path).unwrap();
        for steps_done in [1, 1, 2] {
            let news =
                Progress::Advanced { phase: "denoise", steps_done, fraction: 0.0, time_left: None };
            log.hear(&news);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Option<String>> = text
            .lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                assert!(event["time"].as_f64().unwrap() > 1e9);
                Some(event["event"].as_str()?.to_owned())
            })
            .collect();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(events, [some("one"), None, some("step"), some("step")]);
    }
}
