//! A program that runs for us: watched, listened to, and ended with all that it has started.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::InputError;

/// Most bytes of what it complains that are kept.
const MAX_COMPLAINT_BYTES: usize = 4096;
/// How long the last complaints of an ended program are waited for.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(2);

/// A child that is ended when it falls silent, and when it is no longer wanted.
pub(super) struct Running {
    path: PathBuf,
    patience: Duration,
    pub(super) output: BufReader<ChildStdout>,
    group: Arc<Mutex<Group>>,
    /// A word here, and the watch begins anew; `None` when it is dropped.
    pulse: Option<Sender<()>>,
    /// Says whether it had to end the child.
    watch: Option<JoinHandle<bool>>,
    complaints: Receiver<String>,
}

impl Running {
    pub(super) fn start(
        command: &mut Command,
        path: &Path,
        what: &str,
        patience: Duration,
    ) -> Result<Self, InputError> {
        let mut group = Group::spawn(command).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => InputError::NeedsFfmpeg {
                path: path.to_path_buf(),
                what: what.to_string(),
                convert_to: "an MP4 with H.264 (8-bit 4:2:0), a GIF or a folder of pictures",
            },
            _ => InputError::io("starting ffmpeg for", path, source),
        })?;
        let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            let source = io::Error::other("it has no output");
            return Err(InputError::io("starting ffmpeg for", path, source));
        };
        let group = Arc::new(Mutex::new(group));
        let (pulse, pulses) = channel();
        let watched = Arc::clone(&group);
        let watch = std::thread::spawn(move || {
            loop {
                match pulses.recv_timeout(patience) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return false,
                    Err(RecvTimeoutError::Timeout) => {
                        locked(&watched).end();
                        return true;
                    }
                }
            }
        });
        let (complain, complaints) = channel();
        // Nobody may be left to hear them.
        std::thread::spawn(move || drop(complain.send(last_words(stderr))));
        Ok(Self {
            path: path.to_path_buf(),
            patience,
            output: BufReader::new(stdout),
            group,
            pulse: Some(pulse),
            watch: Some(watch),
            complaints,
        })
    }

    pub(super) fn alive(&self) {
        if let Some(pulse) = &self.pulse {
            // A watch that is over has nothing more to know.
            let _ = pulse.send(());
        }
    }

    /// Waits for the end, and passes on what was wrong.
    pub(super) fn finish(mut self) -> Result<(), InputError> {
        let status = loop {
            // Not held while waiting, so that the watch can end a child that does not end.
            let status = locked(&self.group).try_wait();
            match status {
                Ok(Some(status)) => break status,
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(source) => return Err(InputError::io("waiting for", &self.path, source)),
            }
        };
        if status.success() { Ok(()) } else { Err(self.failure("it gave no reason")) }
    }

    /// Why there is no frame number `frame`.
    pub(super) fn failed_at(mut self, frame: usize) -> InputError {
        self.failure(&format!("it gave no frame {frame}, as if the video were cut off"))
    }

    fn failure(&mut self, otherwise: &str) -> InputError {
        let path = self.path.clone();
        if self.stop() {
            return InputError::FfmpegStalled { path, seconds: self.patience.as_secs() };
        }
        // What left the group may hold the pipe for ever.
        let complaints = self.complaints.recv_timeout(LAST_WORDS_PATIENCE).ok();
        let said = complaints.filter(|said| !said.is_empty()).unwrap_or(otherwise.into());
        InputError::Ffmpeg { path, said }
    }

    /// Ends the child and the watch; whether the watch had ended it before.
    fn stop(&mut self) -> bool {
        self.pulse = None;
        let stalled = self.watch.take().is_some_and(|watch| watch.join().unwrap_or(false));
        locked(&self.group).end();
        stalled
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A child and all that it starts. A Ctrl-C at the terminal is for us: it does not reach them.
struct Group {
    child: Child,
    /// Whether the child has been waited for: its number may be another's by now.
    is_over: bool,
}

impl Group {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        Ok(Self { child: command.spawn()?, is_over: false })
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() && !self.is_over {
            self.is_over = true;
            self.kill();
        }
        Ok(status)
    }

    fn end(&mut self) {
        if !self.is_over {
            self.is_over = true;
            self.kill();
            // Fails only if it is gone already.
            let _ = self.child.wait();
        }
    }

    /// Both fail only if they are gone already. A wrapper's own children would hold our pipes.
    fn kill(&mut self) {
        #[cfg(unix)]
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::KILL,
        );
        let _ = self.child.kill();
    }
}

fn locked(group: &Mutex<Group>) -> std::sync::MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last line of what a child complains, read to its end so that it is never kept waiting.
fn last_words(mut complaints: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = complaints.read(&mut piece) {
        kept.extend_from_slice(&piece[..count]);
        let surplus = kept.len().saturating_sub(MAX_COMPLAINT_BYTES);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // The path stands in our own sentence.
    let said = last.rsplit_once(": ").map_or(last, |(_, said)| said);
    said.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_string()
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Stdio;
    use std::time::Instant;

    use super::*;

    fn started(script: &str, patience: Duration) -> Result<Running, InputError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&mut command, Path::new("a.mkv"), "a test", patience)
    }

    #[test]
    fn a_silent_child_is_ended_and_named() {
        let begun = Instant::now();
        // A shell that stays, and waits for a program of its own that holds the pipes.
        let mut running = started("sleep 600; :", Duration::from_secs(1)).unwrap();
        assert_eq!(running.output.read(&mut [0]).unwrap(), 0);
        let error = running.failed_at(0);
        assert!(matches!(error, InputError::FfmpegStalled { seconds: 1, .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_child_that_is_no_longer_wanted_is_ended() {
        let running = started("sleep 600; :", Duration::from_secs(600)).unwrap();
        let group = Arc::clone(&running.group);
        drop(running);
        assert!(group.lock().unwrap().child.try_wait().unwrap().is_some());
    }

    #[test]
    fn the_last_complaint_is_passed_on() {
        let mut running =
            started("echo first >&2; echo 'a.mkv: it hurts' >&2; exit 1", Duration::from_secs(60))
                .unwrap();
        assert_eq!(running.output.read(&mut [0]).unwrap(), 0);
        let error = running.failed_at(3).to_string();
        assert!(error.contains("a.mkv") && error.ends_with("it hurts"), "{error}");
    }

    #[test]
    fn what_a_failed_child_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let running =
            started("sleep 600 & echo 'it hurts' >&2; exit 1", Duration::from_secs(30)).unwrap();
        let error = running.finish().unwrap_err().to_string();
        assert!(error.ends_with("it hurts"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_terminal_interrupts_us_and_not_the_child() {
        use rustix::process::{Pid, getpgid};
        let running = started("sleep 600; :", Duration::from_secs(600)).unwrap();
        let child = Pid::from_child(&running.group.lock().unwrap().child);
        assert_eq!(getpgid(Some(child)).unwrap(), child);
    }
}
