//! What can go wrong with the database.

use std::path::PathBuf;

/// Why the queue cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room.
    #[error("the disk of the queue is full: make room, then try again")]
    Full,
    /// Another process has it.
    #[error("{} is in use by another vidfit server: stop that one, or take another --queue-dir", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// It was written by a program that knows more.
    #[error(
        "{} was written by a newer vidfit (schema {found}, and this one knows {known}): use that \
         one, or take another --queue-dir", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It is not a queue.
    #[error("{} is not a queue of vidfit: move it away, or take another --queue-dir", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// As many jobs wait as may.
    #[error("as many jobs wait as may ({waiting}): try again once some are done")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The key of another order.
    #[error("this Idempotency-Key came with another order before: take a new key for a new order")]
    KeyReused,
    /// Something that was written cannot be read.
    #[error("a job of the queue cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Anything else that SQLite says.
    #[error("the queue's database failed: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
            _ => StoreError::Sqlite(error),
        }
    }
}
