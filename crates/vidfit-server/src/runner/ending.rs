//! The ways in which a job ends.

use super::Runner;
use crate::backend::{Next, Refusal, Report};
use crate::job::{Job, Outcome, Status};
use crate::live::Live;
use serde_json::{Map, Value};
use std::time::Instant;

/// Exit codes of the program's commands.
const DONE: i64 = 0;
const BAD_INPUT: i64 = 2;
const DOES_NOT_FIT: i64 = 3;
const INTERRUPTED: i64 = 130;

/// Whose fault the worker says a failure is, if the order has nothing to do with it.
const MACHINE: &str = "machine";

impl Runner {
    /// The worker says that the running job has ended.
    pub(super) fn ended(&mut self, event: &Map<String, Value>) {
        let code = event.get("code").and_then(Value::as_i64).unwrap_or(1);
        let fault = event.get("fault").and_then(Value::as_str);
        let message = event.get("message").and_then(Value::as_str);
        let message = message.filter(|text| !text.is_empty()).unwrap_or("the job failed");
        let cancelled = self.running.as_ref().is_some_and(|job| job.cancel);
        match code {
            DONE => self.completed(),
            _ if cancelled => self.finish(Status::Cancelled, None),
            INTERRUPTED if self.stopping => self.leave_for_the_next_server(),
            INTERRUPTED => self.crashed("it was interrupted"),
            _ if fault == Some(MACHINE) || code == DOES_NOT_FIT => self.give_back(message),
            BAD_INPUT => match self.missing() {
                Some(why) => self.give_back(&why),
                None => self.failed(Refusal::new("invalid_request", message)),
            },
            _ => self.failed(Refusal::new("failed", message)),
        }
    }

    /// The running job's video is there, if the worker is right.
    pub(super) fn completed(&mut self) {
        let Some(job) = &self.running else { return };
        let folder = self.shared.folders.job(&job.id);
        match std::fs::metadata(job.work(&folder).video()) {
            Ok(video) if video.len() > 0 => self.finish(Status::Completed, None),
            _ => self.failed(Refusal::new("no_video", "the job ended without a video")),
        }
    }

    /// There will be no video of the running job.
    pub(super) fn failed(&mut self, why: Refusal) {
        self.finish(Status::Failed, Some(why));
    }

    /// What the running job lacks by now, such as a model that was there when it began.
    fn missing(&self) -> Option<String> {
        let job = self.running.as_ref()?;
        match self.shared.backend.next(&job.work(&self.shared.folders.job(&job.id))) {
            Ok(Next::Wait(why)) => Some(why),
            _ => None,
        }
    }

    /// The machine cannot make the running job now: it fitted when it was accepted, so it goes back
    /// into the queue, and others may go before it until it is tried again.
    pub(super) fn give_back(&mut self, why: &str) {
        let Some(job) = self.running.take() else { return };
        self.shared.set_live(None);
        // First, for where the disk is full the queue itself cannot be written until it is not.
        self.put_off(&job, why);
        self.insist(|shared| shared.store.requeue(&job.id, false));
        self.rest();
        self.tell_end(&job.id);
    }

    /// A job that waits has to wait for the machine.
    pub(super) fn put_off(&mut self, job: &Job, why: &str) {
        let config = &self.shared.config;
        let (first, most) = (config.retry_pause, config.max_retry_pause);
        let shown = crate::scrub::without_paths(why);
        let pause = self.shared.waits.put_off(&job.id, shown, first, most);
        let seconds = pause.as_secs_f64();
        tracing::warn!(job = job.id, why, seconds, "the machine cannot make a job now; it waits");
        self.shared.changed(&job.id);
    }

    /// The worker's output has ended.
    pub(super) fn closed(&mut self) {
        let Some(mut worker) = self.worker.take() else { return };
        let how = match worker.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.shared.metrics.worker_lives(false);
        tracing::info!(how, "worker ended");
        match &self.running {
            None => {}
            Some(job) if job.cancel => self.finish(Status::Cancelled, None),
            Some(_) if self.stopping => self.leave_for_the_next_server(),
            Some(_) => self.crashed(&how),
        }
    }

    /// The worker is gone, and the running job is not done. It goes on, unless that happens too often.
    pub(super) fn crashed(&mut self, how: &str) {
        let Some(job) = self.running.take() else { return };
        let crashes = job.crashes + 1;
        self.shared.metrics.crashed();
        tracing::warn!(job = job.id, crashes, how, "the worker ended under a job");
        if crashes > self.shared.config.max_crashes {
            self.running = Some(job);
            return self.failed(Refusal::new(
                "worker_crashed",
                format!(
                    "the process that makes the video ended {crashes} times before it was done \
                     (last: {how}); the server's log says more"
                ),
            ));
        }
        self.shared.set_live(None);
        self.insist(|shared| shared.store.requeue(&job.id, true));
        self.pause_until = Some(Instant::now() + self.shared.config.crash_pause * crashes);
        self.rest();
        self.tell_end(&job.id);
    }

    /// The running job was saved, and goes on when the server is started again.
    fn leave_for_the_next_server(&mut self) {
        let Some(job) = self.running.take() else { return };
        self.shared.set_live(None);
        tracing::info!(job = job.id, "job saved; it goes on when the server is started again");
        // If this cannot be noted, the next server finds it in progress, which is as good.
        let _ = self.shared.store.requeue(&job.id, false);
    }

    /// What became of a job, with what the client may know of it.
    pub(super) fn outcome(
        &self,
        job: &Job,
        status: Status,
        error: Option<Refusal>,
        mut live: Option<Live>,
    ) -> Outcome {
        let told = live.as_ref().map(|live| live.report.clone()).unwrap_or_default();
        let folder = self.shared.folders.job(&job.id);
        let kept = match status {
            Status::Completed => self.shared.backend.report(&job.work(&folder)),
            _ => None,
        };
        let report = match kept {
            Some(kept) => kept,
            None => told,
        };
        if status == Status::Completed {
            self.shared.metrics.completed(&report);
        }
        let percent = live.as_mut().map_or(0, Live::percent);
        let warnings = live.map(|live| live.warnings).unwrap_or_default();
        let shown = |text: String| crate::scrub::without_paths(&text);
        Outcome {
            error: error.map(|it| Refusal { message: shown(it.message), ..it }),
            percent,
            report: Some(report).filter(|report| *report != Report::default()),
            warnings: warnings.into_iter().map(shown).collect(),
        }
    }
}
