//! What the HTTP side and the runner share.

use crate::backend::Backend;
use crate::config::Config;
use crate::job::{Folders, Job, Status};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::runner::Message;
use crate::store::{Store, StoreError};
use crate::video::Video;
use crate::waits::Waits;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// News that wait for a client that is slow to take them; if there are more, some are lost to it.
const NEWS_KEPT: usize = 256;

/// What clients that wait are told.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// A job changed: the video object as JSON, and whether that was its last change.
    Video { id: Arc<str>, json: Arc<str>, last: bool },
    /// Jobs that wait have other places: the id and the video object of each, without its plan, which
    /// is by far the most of it and has not changed.
    Places(Arc<[(Arc<str>, Arc<str>)]>),
    /// A job is gone.
    Deleted { id: Arc<str> },
}

/// The server's state.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) folders: Folders,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) news: broadcast::Sender<News>,
    /// Jobs that the machine cannot make now.
    pub(crate) waits: Waits,
    live: Mutex<Option<Live>>,
    /// Held while news are made and sent, so that none overtakes another.
    telling: Mutex<()>,
    /// Where each job waited when that was last told.
    places: Mutex<HashMap<String, usize>>,
    runner: Mutex<Sender<Message>>,
    stopping: AtomicBool,
}

impl Shared {
    /// The state of a server that has just been started.
    pub(crate) fn new(
        config: Config,
        backend: Arc<dyn Backend>,
        folders: Folders,
        store: Store,
        runner: Sender<Message>,
    ) -> Shared {
        Shared {
            config,
            backend,
            folders,
            store,
            metrics: Metrics::default(),
            news: broadcast::channel(NEWS_KEPT).0,
            waits: Waits::default(),
            live: Mutex::default(),
            telling: Mutex::default(),
            places: Mutex::default(),
            runner: Mutex::new(runner),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether the server is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Says that the server is to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tell_runner(Message::Stop);
    }

    /// Tells the runner something: whether it is there to hear it. What it does not hear, the next
    /// server finds in the database.
    pub(crate) fn tell_runner(&self, message: Message) -> bool {
        lock(&self.runner).send(message).is_ok()
    }

    /// The job that is to be worked on next, of those that may be tried now. Asked while none runs.
    pub(crate) fn next_job(&self) -> Result<Option<Job>, StoreError> {
        let queue = self.store.queue()?;
        self.waits.keep_only(&queue);
        match queue.iter().find(|id| self.waits.is_due(id)) {
            Some(id) => self.store.job(id),
            None => Ok(None),
        }
    }

    /// Sets which job runs, and gives what was known of the last one.
    pub(crate) fn set_live(&self, live: Option<Live>) -> Option<Live> {
        std::mem::replace(&mut *lock(&self.live), live)
    }

    /// Does something with what is known of the running job.
    pub(crate) fn with_live<T>(&self, act: impl FnOnce(&mut Live) -> T) -> Option<T> {
        lock(&self.live).as_mut().map(act)
    }

    /// Jobs as clients see them.
    pub(crate) fn videos(&self, jobs: Vec<Job>) -> Result<Vec<Video>, StoreError> {
        let waits = jobs.iter().any(|job| job.status == Status::Queued);
        let queue = if waits { self.store.queue()? } else { Vec::new() };
        let places: HashMap<&str, usize> =
            queue.iter().enumerate().map(|(at, id)| (id.as_str(), at + 1)).collect();
        let mut live = lock(&self.live);
        let shown = jobs.into_iter().map(|job| {
            let place = places.get(job.id.as_str()).copied();
            let live = live.as_mut().filter(|live| live.id == job.id);
            let waiting = self.waits.why(&job.id);
            Video::of(job, live, place, waiting)
        });
        Ok(shown.collect())
    }

    /// A job as clients see it.
    pub(crate) fn video(&self, job: Job) -> Result<Video, StoreError> {
        let mut videos = self.videos(vec![job])?;
        videos.pop().ok_or(StoreError::Sqlite(rusqlite::Error::QueryReturnedNoRows))
    }

    /// Tells those who wait that a job has changed.
    pub(crate) fn changed(&self, id: &str) {
        if self.news.receiver_count() == 0 {
            return;
        }
        let _telling = lock(&self.telling);
        let news = self.store.job(id).and_then(|job| match job {
            Some(job) => Ok(Some(news_of(&self.video(job)?)?)),
            None => Ok(None),
        });
        match news {
            // Whoever has gone away in the meantime need not know.
            Ok(Some(news)) => drop(self.news.send(news)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a change could not be told"),
        }
    }

    /// Tells those who wait about every job whose place in the queue is another now.
    pub(crate) fn queue_changed(&self) {
        let queue = match self.store.queue() {
            Ok(queue) => queue,
            Err(error) => return tracing::warn!(%error, "a change could not be told"),
        };
        let now: HashMap<_, _> = queue.into_iter().enumerate().map(|(at, id)| (id, at)).collect();
        let before = std::mem::replace(&mut *lock(&self.places), now.clone());
        let came = now.keys().filter(|id| !before.contains_key(*id));
        let left = before.keys().filter(|id| !now.contains_key(*id));
        for id in came.chain(left) {
            self.changed(id);
        }
        let has_moved = |job: &Job| {
            let (before, now) = (before.get(&job.id), now.get(&job.id));
            before.is_some() && now.is_some() && before != now
        };
        if now.keys().any(|id| before.get(id).is_some_and(|at| now.get(id) != Some(at)))
            && let Err(error) = self.tell_places(has_moved)
        {
            tracing::warn!(%error, "a change could not be told");
        }
    }

    /// Tells the places of these jobs, all at once.
    fn tell_places(&self, are_told: impl Fn(&Job) -> bool) -> Result<(), StoreError> {
        if self.news.receiver_count() == 0 {
            return Ok(());
        }
        let _telling = lock(&self.telling);
        let mut jobs = self.store.waiting()?;
        jobs.retain(are_told);
        let videos = self.videos(jobs)?;
        let told = videos.iter().map(|video| {
            let mut json = serde_json::to_value(video)?;
            if let Value::Object(fields) = &mut json {
                fields.remove("plan");
            }
            Ok((video.id().into(), json.to_string().into()))
        });
        let told: Result<Vec<_>, serde_json::Error> = told.collect();
        // Whoever has gone away in the meantime need not know.
        drop(self.news.send(News::Places(told?.into())));
        Ok(())
    }

    /// Removes the files of a deleted job, then what is known of it.
    pub(crate) fn sweep(&self, id: &str) {
        let folder = self.folders.job(id);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                // It is tried again when the server starts.
                tracing::warn!(job = id, %error, "the files of a deleted job could not be removed");
            }
            _ => {
                if let Err(error) = self.store.purge(id) {
                    tracing::warn!(job = id, %error, "a deleted job could not be forgotten");
                }
            }
        }
    }

    /// Tells those who wait that a job is gone.
    pub(crate) fn deleted(&self, id: &str) {
        let telling = lock(&self.telling);
        drop(self.news.send(News::Deleted { id: id.into() }));
        drop(telling);
        self.queue_changed();
    }
}

/// The news that a video has changed.
pub(crate) fn news_of(video: &Video) -> Result<News, StoreError> {
    let json = serde_json::to_string(video)?.into();
    Ok(News::Video { id: video.id().into(), json, last: video.status().is_final() })
}

/// Locks what is whole between any two statements, so that a panic elsewhere does no harm to it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
