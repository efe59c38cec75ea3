//! The worker process: what it is told, and what it tells.

use crate::runner::Message;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

/// Most bytes of a line that the worker may say: more is not of its protocol.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// A worker process. Dropped, it is killed.
pub(crate) struct Worker {
    child: Child,
    /// Gone once the worker has been asked to end.
    input: Option<ChildStdin>,
    /// Which of all workers it is, as what the last one said may still be on its way.
    pub(crate) number: u64,
    /// When it was done with its last job.
    pub(crate) idle_since: Instant,
    /// When it is killed, if it has not ended by itself.
    pub(crate) kill_at: Option<Instant>,
}

impl Worker {
    /// Starts a worker whose news go to `inbox`.
    pub(crate) fn start(
        mut command: Command,
        number: u64,
        inbox: &Sender<Message>,
    ) -> std::io::Result<Worker> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at a terminal is the server's to hear: it asks the worker to end.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        if let Some(output) = child.stdout.take() {
            let inbox = inbox.clone();
            thread::Builder::new().name("worker-output".into()).spawn(move || {
                listen(output, number, &inbox);
                // Nobody is left to be told if the runner has ended.
                let _ = inbox.send(Message::Closed { worker: number });
            })?;
        }
        if let Some(errors) = child.stderr.take() {
            thread::Builder::new().name("worker-log".into()).spawn(move || {
                for line in BufReader::new(errors).lines().map_while(Result::ok) {
                    tracing::info!(target: "vidfit::worker", "{line}");
                }
            })?;
        }
        tracing::info!(pid = child.id(), "worker started");
        Ok(Worker { child, input, number, idle_since: Instant::now(), kill_at: None })
    }

    /// Gives it a job: a command line of the program, without its name.
    pub(crate) fn give(&mut self, job: &str, words: &[String]) -> std::io::Result<()> {
        self.say(&json!({ "job": job, "words": words }))
    }

    /// Asks it to stop a job.
    pub(crate) fn cancel(&mut self, job: &str) -> std::io::Result<()> {
        self.say(&json!({ "cancel": job }))
    }

    fn say(&mut self, line: &Value) -> std::io::Result<()> {
        match &mut self.input {
            Some(input) => {
                input.write_all(format!("{line}\n").as_bytes())?;
                input.flush()
            }
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Asks it to save what it does and end.
    pub(crate) fn close(&mut self, kill_at: Instant) {
        self.input = None;
        self.kill_at.get_or_insert(kill_at);
    }

    /// Whether it has been asked to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.input.is_none()
    }

    /// Ends it now.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }

    /// Waits for it, once its output has ended; a worker that closed its output but lives is killed.
    pub(crate) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.input = None;
        let patience = Instant::now() + std::time::Duration::from_secs(5);
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(std::time::Duration::from_millis(2));
        }
        self.kill();
        self.child.wait()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Reads what a worker says, line by line. What is no JSON object is for people.
fn listen(output: impl Read, worker: u64, inbox: &Sender<Message>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match output.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match serde_json::from_slice::<Map<String, Value>>(&line) {
            Ok(event) => {
                if inbox.send(Message::Line { worker, event }).is_err() {
                    return;
                }
            }
            Err(_) => {
                let line = String::from_utf8_lossy(&line);
                tracing::debug!(target: "vidfit::worker", "{}", line.trim_end());
            }
        }
    }
}
