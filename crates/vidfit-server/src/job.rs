//! A job, as the queue keeps it.

use crate::backend::{Reference, Refusal, Report, Settled, Work};
use crate::order::Order;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use utoipa::ToSchema;

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits.
    Queued,
    /// The worker has it.
    InProgress,
    /// Its video is there.
    Completed,
    /// There will be no video; the error says why.
    Failed,
    /// Someone did not want it any more.
    Cancelled,
}

impl Status {
    /// All of them.
    pub(crate) const ALL: [Status; 5] =
        [Status::Queued, Status::InProgress, Status::Completed, Status::Failed, Status::Cancelled];

    /// As it is spelled in the database and in answers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// The status that `word` spells.
    pub(crate) fn of(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.word() == word)
    }

    /// Whether nothing more will happen.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }
}

/// A job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) status: Status,
    /// Seconds since 1970, as all times here.
    pub(crate) created_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) completed_at: Option<i64>,
    /// How often its worker ended under it.
    pub(crate) crashes: u32,
    /// Whether it is to be stopped.
    pub(crate) cancel: bool,
    /// Whether it is to go, with its files.
    pub(crate) deleted: bool,
    pub(crate) order: Order,
    pub(crate) settled: Settled,
    pub(crate) reference: Option<Reference>,
    pub(crate) outcome: Outcome,
}

impl Job {
    /// The job as the backend is asked about it; `folder` is its own.
    pub(crate) fn work<'a>(&'a self, folder: &'a Path) -> Work<'a> {
        Work {
            id: &self.id,
            order: &self.order,
            settled: &self.settled,
            reference: self.reference.as_ref(),
            folder,
        }
    }
}

/// What became of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    pub(crate) error: Option<Refusal>,
    pub(crate) report: Option<Report>,
    /// How much was done of a job that has no video, in percent.
    pub(crate) percent: u8,
    /// What the run warned of.
    pub(crate) warnings: Vec<String>,
}

/// Where the queue's files are.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    /// The queue's own folder.
    pub(crate) root: PathBuf,
}

impl Folders {
    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("queue.sqlite")
    }

    /// The folder of all jobs.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// The folder of one.
    pub(crate) fn job(&self, id: &str) -> PathBuf {
        self.jobs().join(id)
    }

    /// Where uploads are until their job is accepted.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }
}
