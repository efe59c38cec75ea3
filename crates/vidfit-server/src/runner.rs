//! Takes jobs from the queue, one at a time, and sees them through.
//!
//! The runner is a thread with an inbox. It alone starts, tells and ends the worker, and it alone
//! moves jobs out of the queue.

mod ending;

use crate::backend::Next;
use crate::job::{Job, Status};
use crate::live::{Heard, Live};
use crate::state::Shared;
use crate::worker::Worker;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How often the same job's progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How long the runner sleeps when nothing is due.
const LONG: Duration = Duration::from_secs(60);

/// What the runner is told.
pub(crate) enum Message {
    /// A worker said something.
    Line { worker: u64, event: Map<String, Value> },
    /// A worker has closed its output, for it has ended or will.
    Closed { worker: u64 },
    /// There is something new in the queue.
    Wake,
    /// This job is not wanted any more.
    Cancel(String),
    /// No more jobs: end the worker, then yourself.
    Stop,
}

/// The thread's state.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    outbox: Sender<Message>,
    worker: Option<Worker>,
    workers: u64,
    running: Option<Job>,
    /// After a crash, when the next job may begin.
    pause_until: Option<Instant>,
    /// When there is progress to tell.
    tell_at: Option<Instant>,
    told_at: Instant,
    stopping: bool,
}

impl Runner {
    /// A runner, which begins with [`Runner::run`].
    pub(crate) fn new(
        shared: Arc<Shared>,
        inbox: Receiver<Message>,
        outbox: Sender<Message>,
    ) -> Runner {
        Runner {
            shared,
            inbox,
            outbox,
            worker: None,
            workers: 0,
            running: None,
            pause_until: None,
            tell_at: None,
            told_at: Instant::now(),
            stopping: false,
        }
    }

    /// Works until it is told to stop and the worker has ended.
    pub(crate) fn run(mut self) {
        loop {
            if self.stopping && self.worker.is_none() {
                return;
            }
            if !self.stopping {
                self.begin();
            }
            match self.inbox.recv_timeout(self.patience()) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.do_what_is_due();
        }
    }

    /// Begins the next job, if it can.
    fn begin(&mut self) {
        let closing = self.worker.as_ref().is_some_and(Worker::is_closing);
        let pausing = self.pause_until.is_some_and(|until| Instant::now() < until);
        while self.running.is_none() && !closing && !pausing && !self.shared.is_stopping() {
            let Some(Some(job)) = self.insist(Shared::next_job) else { break };
            self.give(job);
        }
        if self.running.is_none() && !pausing {
            self.unload();
        }
    }

    /// Gives a job to the worker, or finds that nothing is left to do for it.
    fn give(&mut self, job: Job) {
        let folder = self.shared.folders.job(&job.id);
        if let Err(error) = std::fs::create_dir_all(&folder) {
            return self.put_off(&job, &format!("its folder cannot be made: {error}"));
        }
        let next = self.shared.backend.next(&job.work(&folder));
        if let Ok(Next::Wait(why)) = &next {
            return self.put_off(&job, why);
        }
        if self.insist(|shared| shared.store.start(&job.id)) != Some(true) {
            // Cancelled in between, or the server ends.
            return;
        }
        match next {
            Ok(Next::Words(words)) => {
                self.shared.set_live(Some(Live::new(&job)));
                let id = job.id.clone();
                self.running = Some(job);
                tracing::info!(job = id, command = words.first(), "job given to the worker");
                if let Err(error) = self.tell_worker(|worker| worker.give(&id, &words)) {
                    tracing::error!(%error, "the worker cannot be started or told");
                    match &mut self.worker {
                        None => self.give_back(&format!(
                            "the process that makes videos cannot be started: {error}"
                        )),
                        // It is of no use any more, and the end of its output will say so.
                        Some(worker) => worker.kill(),
                    }
                }
            }
            // Put off above.
            Ok(Next::Wait(_)) => {}
            Ok(Next::Done) => {
                self.running = Some(job);
                self.completed();
            }
            Err(refusal) => {
                self.running = Some(job);
                self.failed(refusal);
            }
        }
        self.shared.queue_changed();
    }

    fn tell_worker(
        &mut self,
        tell: impl FnOnce(&mut Worker) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => {
                self.workers += 1;
                let command = self.shared.backend.worker(&self.shared.folders.root);
                none.insert(Worker::start(command, self.workers, &self.outbox)?)
            }
        };
        self.shared.metrics.worker_lives(true);
        tell(worker)
    }

    /// Ends a worker that has had nothing to do for long enough.
    fn unload(&mut self) {
        let config = &self.shared.config;
        if let Some(worker) = &mut self.worker
            && !worker.is_closing()
            && worker.idle_since.elapsed() >= config.idle_unload
        {
            worker.close(Instant::now() + config.stop_timeout);
        }
    }

    fn handle(&mut self, message: Message) {
        let current = self.worker.as_ref().map(|worker| worker.number);
        match message {
            Message::Line { worker, event } if Some(worker) == current => self.hear(&event),
            Message::Closed { worker } if Some(worker) == current => self.closed(),
            Message::Line { .. } | Message::Closed { .. } | Message::Wake => {}
            Message::Cancel(id) => self.cancel(&id),
            Message::Stop => {
                self.stopping = true;
                let kill_at = Instant::now() + self.shared.config.stop_timeout;
                if let Some(worker) = &mut self.worker {
                    worker.close(kill_at);
                }
            }
        }
    }

    /// Takes in an event of the worker.
    fn hear(&mut self, event: &Map<String, Value>) {
        let Some(id) = event.get("job").and_then(Value::as_str) else { return };
        if self.running.as_ref().is_none_or(|job| job.id != id) {
            return;
        }
        if event.get("event").and_then(Value::as_str) == Some("ended") {
            return self.ended(event);
        }
        let heard = self.shared.with_live(|live| {
            let heard = live.hear(event);
            self.shared.metrics.holds(live.held_bytes);
            heard
        });
        match heard {
            Some(Heard::Turned) => self.tell(),
            Some(Heard::Advanced) => {
                self.tell_at.get_or_insert(self.told_at + TELL_EVERY);
            }
            _ => {}
        }
    }

    /// Tells everyone how far the running job is.
    fn tell(&mut self) {
        self.tell_at = None;
        self.told_at = Instant::now();
        if let Some(job) = &self.running {
            self.shared.changed(&job.id);
        }
    }

    fn cancel(&mut self, id: &str) {
        if self.running.as_ref().is_none_or(|job| job.id != id) {
            return;
        }
        if let Some(job) = &mut self.running {
            job.cancel = true;
        }
        let kill_at = Instant::now() + self.shared.config.stop_timeout;
        if let Some(worker) = &mut self.worker {
            // If it cannot be told, it has ended.
            let _ = worker.cancel(id);
            worker.kill_at.get_or_insert(kill_at);
        }
        self.tell();
    }

    /// How long there is nothing to do without a message.
    fn patience(&self) -> Duration {
        let worker = self.worker.as_ref();
        let unload_at = worker
            .filter(|worker| self.running.is_none() && !worker.is_closing())
            .map(|worker| worker.idle_since + self.shared.config.idle_unload);
        let closing = worker.is_some_and(Worker::is_closing);
        let can_begin = self.running.is_none() && !closing && self.pause_until.is_none();
        let due = [
            worker.and_then(|worker| worker.kill_at),
            self.pause_until.filter(|_| self.running.is_none()),
            self.shared.waits.next().filter(|_| can_begin),
            self.tell_at,
            unload_at,
        ];
        let first = due.into_iter().flatten().min();
        first.map_or(LONG, |at| at.saturating_duration_since(Instant::now()))
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.pause_until.is_some_and(|until| until <= now) {
            self.pause_until = None;
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell();
        }
        if let Some(worker) = &mut self.worker
            && worker.kill_at.is_some_and(|at| at <= now)
        {
            tracing::warn!("the worker did not end when it was asked to, and is killed");
            worker.kill_at = None;
            worker.kill();
        }
    }

    /// Does something with the database until it works, for what it would note has happened; `None`
    /// if the server ends before. A full disk is the usual reason, and someone will make room.
    fn insist<T>(
        &mut self,
        act: impl Fn(&Shared) -> Result<T, crate::store::StoreError>,
    ) -> Option<T> {
        let mut told = false;
        loop {
            match act(&self.shared) {
                Ok(value) => return Some(value),
                Err(error) if !told => tracing::error!(%error, "the queue cannot be written"),
                Err(_) => {}
            }
            told = true;
            if self.shared.is_stopping() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Notes how the running job ended, and tells everyone.
    fn finish(&mut self, status: Status, error: Option<crate::backend::Refusal>) {
        let Some(job) = self.running.take() else { return };
        let live = self.shared.set_live(None);
        let outcome = self.outcome(&job, status, error, live);
        tracing::info!(job = job.id, status = status.word(), "job ended");
        self.shared.metrics.ended(status);
        self.insist(|shared| shared.store.finish(&job.id, status, &outcome));
        self.rest();
        self.tell_end(&job.id);
    }

    /// Tells everyone that a job is out of the worker's hands, and removes it if it is deleted.
    fn tell_end(&mut self, id: &str) {
        match self.insist(|shared| shared.store.any_job(id)) {
            Some(Some(job)) if job.deleted => self.shared.sweep(id),
            _ => self.shared.changed(id),
        }
        self.shared.queue_changed();
    }

    /// The worker has nothing to do.
    fn rest(&mut self) {
        self.tell_at = None;
        if let Some(worker) = &mut self.worker
            && !worker.is_closing()
        {
            worker.idle_since = Instant::now();
            worker.kill_at = None;
        }
    }
}
