//! A worker: `vidfit work`, its input and its events.

use super::command;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// No event is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Worker {
    pub child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Value>,
}

impl Worker {
    /// Starts one on one thread, with the queue's folder `queue`. It is not said that it is ready.
    pub fn start(folder: &Path, more: &[&str]) -> Worker {
        let words = ["work", "--queue-dir", "queue", "--threads", "1"];
        let own = if more.contains(&"--device") { &[][..] } else { &["--device", "cpu"] };
        Worker::of(command(folder, &[&words[..], own, more].concat()))
    }

    /// Starts the one of a command.
    pub fn of(mut command: Command) -> Worker {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let (send, events) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("every line is JSON");
                if send.send(event).is_err() {
                    break;
                }
            }
        });
        // What it says to people is of no interest, but must not block it.
        let mut errors = child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Worker { input: child.stdin.take(), child, events }
    }

    /// Starts one, and waits until it is ready.
    pub fn ready(folder: &Path, more: &[&str]) -> Worker {
        let worker = Worker::start(folder, more);
        assert_eq!(worker.next(), json!({ "event": "ready" }));
        worker
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn order(&mut self, job: &str, words: &[impl AsRef<str>]) {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        self.say(&json!({ "job": job, "words": words }).to_string());
    }

    pub fn cancel(&mut self, job: &str) {
        self.say(&json!({ "cancel": job }).to_string());
    }

    /// The end of its input.
    pub fn close(&mut self) {
        self.input = None;
    }

    pub fn next(&self) -> Value {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// Whether it says nothing for this long.
    pub fn is_silent_for(&self, time: Duration) -> bool {
        matches!(self.events.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    /// The events up to the one that `is_it`.
    pub fn until(&self, mut is_it: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if events.last().is_some_and(&mut is_it) {
                return events;
            }
        }
    }

    /// Waits until so many steps of a job are done.
    pub fn until_step(&self, job: &str, steps: u64) {
        self.until(|event| {
            assert!(event["event"] != "ended", "it ended before step {steps}: {event}");
            event["job"] == job && event["phase"] == "denoise" && event["steps_done"] == steps
        });
    }

    /// The end of a job.
    pub fn end_of(&self, job: &str) -> Value {
        let mut events = self.until(|event| event["job"] == job && event["event"] == "ended");
        events.pop().unwrap()
    }

    /// Waits for a job that is to succeed.
    pub fn succeeds(&self, job: &str) {
        let expected =
            json!({ "job": job, "event": "ended", "code": 0, "message": null, "fault": null });
        assert_eq!(self.end_of(job), expected);
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words that make `NAME.mp4` of the demo model, with the run in the folder `NAME`; `more` is added,
/// and takes the place of what it names.
pub fn ball<'a>(name: &str, more: &[&'a str]) -> Vec<String> {
    let output = format!("{name}.mp4");
    let flags = [
        ("--prompt", "a red ball moving right"),
        ("--model", "demo"),
        ("--steps", STEPS),
        ("--runs", name),
        ("--output", &*output),
    ];
    let option = |word: &'a str| word.split('=').next().unwrap_or_default();
    let is_named = |flag: &str| more.iter().any(|word| option(word) == flag);
    let own = flags.iter().filter(|(flag, _)| !is_named(flag));
    let words = std::iter::once("generate".to_owned())
        .chain(own.map(|(flag, value)| format!("{flag}={value}")));
    words.chain(more.iter().map(|word| (*word).to_owned())).collect()
}

/// Steps that take a second or two.
pub const STEPS: &str = "60";

/// The words that go on with the run of [`ball`].
pub fn on_with(name: &str) -> Vec<String> {
    let words = ["resume", "last", &format!("--runs={name}"), &format!("--output={name}.mp4")];
    words.map(str::to_owned).to_vec()
}
