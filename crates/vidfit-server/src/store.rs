//! The queue on the disk: every job, in an SQLite database.
//!
//! A job is accepted once its row is committed. Everything else about it, such as how far it is, can
//! be had again.

mod error;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

pub use error::StoreError;

use crate::backend::{Reference, Settled};
use crate::job::{Folders, Job, Outcome, Status};
use crate::order::Order;
use rows::{COLUMNS, read};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// In which order jobs are worked on: what has begun goes on first, so that nothing lies half done.
const QUEUE_ORDER: &str = "ORDER BY started_at IS NULL, priority DESC, seq";

/// The database.
pub(crate) struct Store {
    database: Mutex<Connection>,
    folders: Folders,
}

/// A job to be accepted.
pub(crate) struct NewJob {
    pub(crate) id: String,
    /// The client's key, under which the same order is accepted only once.
    pub(crate) key: Option<String>,
    /// Of everything that the client sent.
    pub(crate) digest: String,
    pub(crate) order: Order,
    pub(crate) settled: Settled,
    pub(crate) reference: Option<Reference>,
}

/// A job that was accepted, now or before.
pub(crate) enum Accepted {
    New(Job),
    /// The key was known.
    Before(Job),
}

/// A page of a list.
pub(crate) struct Page<'a> {
    pub(crate) limit: usize,
    pub(crate) after: Option<&'a str>,
    pub(crate) newest_first: bool,
    pub(crate) status: Option<Status>,
}

/// What a cancellation met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// The job had not begun, and never will.
    Queued,
    /// The worker has it, and has to be told.
    Running,
    /// It was over.
    Over,
}

impl Store {
    /// Opens the queue in a folder, or makes one.
    pub(crate) fn open(folders: &Folders, max_bytes: Option<u64>) -> Result<Store, StoreError> {
        let database = schema::open(&folders.database(), max_bytes)?;
        Ok(Store { database: Mutex::new(database), folders: folders.clone() })
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        // A transaction that panics is rolled back, so what is there is whole.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job that was accepted under a key, if the order is the same.
    pub(crate) fn by_key(&self, key: &str, digest: &str) -> Result<Option<Job>, StoreError> {
        let database = self.database();
        self.known(&database, key, digest)
    }

    fn known(
        &self,
        database: &Connection,
        key: &str,
        digest: &str,
    ) -> Result<Option<Job>, StoreError> {
        let query = format!("SELECT {COLUMNS}, digest FROM jobs WHERE key = ?1 AND deleted = 0");
        let found = database
            .query_row(&query, [key], |row| {
                Ok((read(row, &self.folders), row.get::<_, String>("digest")?))
            })
            .optional()?;
        match found {
            None => Ok(None),
            Some((job, before)) if before == digest => job.map(Some),
            Some(_) => Err(StoreError::KeyReused),
        }
    }

    /// Takes a job into the queue, if there is room. When this returns, it is on the disk.
    pub(crate) fn accept(&self, new: &NewJob, queue_limit: usize) -> Result<Accepted, StoreError> {
        let mut database = self.database();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(key) = &new.key
            && let Some(job) = self.known(&transaction, key, &new.digest)?
        {
            return Ok(Accepted::Before(job));
        }
        let waiting: u32 = transaction.query_row(
            "SELECT count(*) FROM jobs WHERE status = 'queued' AND deleted = 0",
            [],
            |row| row.get(0),
        )?;
        if waiting as usize >= queue_limit {
            return Err(StoreError::QueueFull { waiting: waiting as usize });
        }
        transaction.execute(
            "INSERT INTO jobs (id, status, priority, created_at, key, digest, demand, settled, reference)
             VALUES (?1, 'queued', ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                new.id,
                new.order.priority,
                now(),
                new.key,
                new.digest,
                serde_json::to_string(&new.order)?,
                serde_json::to_string(&new.settled)?,
                new.reference.as_ref().map(serde_json::to_string).transpose()?,
            ],
        )?;
        let job = self.get(&transaction, &new.id)?;
        transaction.commit()?;
        job.map(Accepted::New).ok_or(StoreError::Sqlite(rusqlite::Error::QueryReturnedNoRows))
    }

    fn get(&self, database: &Connection, id: &str) -> Result<Option<Job>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
        let mut statement = database.prepare_cached(&query)?;
        let job = statement.query_row([id], |row| Ok(read(row, &self.folders))).optional()?;
        job.transpose()
    }

    /// A job, unless it is deleted.
    pub(crate) fn job(&self, id: &str) -> Result<Option<Job>, StoreError> {
        Ok(self.get(&self.database(), id)?.filter(|job| !job.deleted))
    }

    /// A job, deleted or not.
    pub(crate) fn any_job(&self, id: &str) -> Result<Option<Job>, StoreError> {
        self.get(&self.database(), id)
    }

    /// A page of jobs, and whether there are more behind it; `None` if there is no job `after`.
    pub(crate) fn list(&self, page: &Page<'_>) -> Result<Option<(Vec<Job>, bool)>, StoreError> {
        let database = self.database();
        let (sign, order, start) =
            if page.newest_first { ("<", "DESC", i64::MAX) } else { (">", "ASC", i64::MIN) };
        let start = match page.after {
            None => start,
            Some(id) => {
                let place = "SELECT seq FROM jobs WHERE id = ?1 AND deleted = 0";
                match database.query_row(place, [id], |row| row.get(0)).optional()? {
                    Some(seq) => seq,
                    None => return Ok(None),
                }
            }
        };
        let query = format!(
            "SELECT {COLUMNS} FROM jobs
             WHERE deleted = 0 AND seq {sign} ?1 AND (?2 IS NULL OR status = ?2)
             ORDER BY seq {order} LIMIT ?3"
        );
        let mut statement = database.prepare_cached(&query)?;
        let values = params![start, page.status.map(Status::word), page.limit as i64 + 1];
        let rows = statement.query_map(values, |row| Ok(read(row, &self.folders)))?;
        let mut jobs = rows.flatten_jobs()?;
        let more = jobs.len() > page.limit;
        jobs.truncate(page.limit);
        Ok(Some((jobs, more)))
    }

    /// The ids of the jobs that wait, in the order in which they will be worked on.
    pub(crate) fn queue(&self) -> Result<Vec<String>, StoreError> {
        let database = self.database();
        let query =
            format!("SELECT id FROM jobs WHERE status = 'queued' AND deleted = 0 {QUEUE_ORDER}");
        let mut statement = database.prepare_cached(&query)?;
        let ids = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(ids)
    }

    /// The jobs that wait, in the order in which they will be worked on.
    pub(crate) fn waiting(&self) -> Result<Vec<Job>, StoreError> {
        let database = self.database();
        let query = format!(
            "SELECT {COLUMNS} FROM jobs WHERE status = 'queued' AND deleted = 0 {QUEUE_ORDER}"
        );
        let mut statement = database.prepare_cached(&query)?;
        statement.query_map([], |row| Ok(read(row, &self.folders)))?.flatten_jobs()
    }

    /// How many jobs there are of each status.
    pub(crate) fn counts(&self) -> Result<Vec<(Status, u32)>, StoreError> {
        let database = self.database();
        let count = "SELECT count(*) FROM jobs WHERE status = ?1 AND deleted = 0";
        let mut statement = database.prepare_cached(count)?;
        let each = |status: Status| {
            Ok((status, statement.query_row([status.word()], |row| row.get::<_, u32>(0))?))
        };
        Status::ALL.into_iter().map(each).collect()
    }

    /// Notes that the worker is given a job, unless it was cancelled in the meantime.
    pub(crate) fn start(&self, id: &str) -> Result<bool, StoreError> {
        let changed = self.database().execute(
            "UPDATE jobs SET status = 'in_progress', started_at = coalesce(started_at, ?2)
             WHERE id = ?1 AND status = 'queued' AND deleted = 0",
            params![id, now()],
        )?;
        Ok(changed == 1)
    }

    /// Puts a job that was in progress back into the queue, where it is first, unless it is not wanted
    /// any more.
    pub(crate) fn requeue(&self, id: &str, crashed: bool) -> Result<(), StoreError> {
        self.database().execute(
            "UPDATE jobs SET crashes = crashes + ?2,
                 status = iif(cancel, 'cancelled', 'queued'),
                 completed_at = iif(cancel, ?3, NULL)
             WHERE id = ?1 AND status = 'in_progress'",
            params![id, crashed, now()],
        )?;
        Ok(())
    }

    /// Puts back whatever was in progress when the last server ended, and gives the ids of what is to
    /// be deleted.
    pub(crate) fn recover(&self) -> Result<Vec<String>, StoreError> {
        let database = self.database();
        database.execute(
            "UPDATE jobs SET status = iif(cancel, 'cancelled', 'queued'),
                 completed_at = iif(cancel, ?1, NULL)
             WHERE status = 'in_progress'",
            [now()],
        )?;
        let mut statement = database.prepare("SELECT id FROM jobs WHERE deleted = 1")?;
        let ids = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(ids)
    }

    /// Notes how a job ended. A job ends once: whatever comes after is not noted.
    pub(crate) fn finish(
        &self,
        id: &str,
        status: Status,
        outcome: &Outcome,
    ) -> Result<bool, StoreError> {
        let changed = self.database().execute(
            "UPDATE jobs SET status = ?2, completed_at = ?3, outcome = ?4
             WHERE id = ?1 AND status IN ('queued', 'in_progress')",
            params![id, status.word(), now(), serde_json::to_string(outcome)?],
        )?;
        Ok(changed == 1)
    }

    /// Notes that a job is not wanted any more.
    pub(crate) fn cancel(&self, id: &str) -> Result<Cancelled, StoreError> {
        let mut database = self.database();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let queued = transaction.execute(
            "UPDATE jobs SET status = 'cancelled', cancel = 1, completed_at = ?2
             WHERE id = ?1 AND status = 'queued'",
            params![id, now()],
        )?;
        let running = transaction
            .execute("UPDATE jobs SET cancel = 1 WHERE id = ?1 AND status = 'in_progress'", [id])?;
        transaction.commit()?;
        Ok(match (queued, running) {
            (1, _) => Cancelled::Queued,
            (_, 1) => Cancelled::Running,
            _ => Cancelled::Over,
        })
    }

    /// Hides a job, whose row goes with [`Store::purge`].
    pub(crate) fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.database().execute("UPDATE jobs SET deleted = 1, key = NULL WHERE id = ?1", [id])?;
        Ok(())
    }

    /// Forgets a job that is deleted.
    pub(crate) fn purge(&self, id: &str) -> Result<(), StoreError> {
        self.database().execute("DELETE FROM jobs WHERE id = ?1 AND deleted = 1", [id])?;
        Ok(())
    }

    /// Whether a job of this id is known, deleted or not.
    pub(crate) fn knows(&self, id: &str) -> Result<bool, StoreError> {
        let known = "SELECT count(*) FROM jobs WHERE id = ?1";
        Ok(self.database().query_row(known, [id], |row| row.get::<_, i64>(0))? > 0)
    }

    /// Whether the database answers.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.database().query_row("SELECT 1", [], |_| Ok(()))?;
        Ok(())
    }
}

/// Rows that are read in two steps: by SQLite, and from JSON.
trait FlattenJobs {
    fn flatten_jobs(self) -> Result<Vec<Job>, StoreError>;
}

impl<I: Iterator<Item = rusqlite::Result<Result<Job, StoreError>>>> FlattenJobs for I {
    fn flatten_jobs(self) -> Result<Vec<Job>, StoreError> {
        self.map(|row| row?).collect()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
