//! Opening the database, and the versions of its tables.

use super::StoreError;
use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use std::time::Duration;

/// The version of the tables that this program writes. Each version before it has a step in
/// [`MIGRATIONS`].
const VERSION: i64 = 1;

/// What makes version n + 1 of version n.
const MIGRATIONS: [&str; VERSION as usize] = ["
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL,
        priority INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        completed_at INTEGER,
        crashes INTEGER NOT NULL DEFAULT 0,
        cancel INTEGER NOT NULL DEFAULT 0,
        deleted INTEGER NOT NULL DEFAULT 0,
        key TEXT UNIQUE,
        digest TEXT NOT NULL,
        demand TEXT NOT NULL,
        settled TEXT NOT NULL,
        reference TEXT,
        outcome TEXT NOT NULL DEFAULT '{}'
    ) STRICT;
    CREATE INDEX jobs_by_status ON jobs (status, deleted);
"];

/// Opens a database, or makes one.
///
/// It is ours alone as long as we live, so that two servers never give the same job away. In WAL mode
/// with full synchronisation, what is committed has survived a power cut.
pub(super) fn open(path: &Path, max_bytes: Option<u64>) -> Result<Connection, StoreError> {
    prepare(path, max_bytes).map_err(|error| match error {
        StoreError::Sqlite(error) => {
            let path = path.to_path_buf();
            match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    StoreError::InUse { path }
                }
                Some(ErrorCode::NotADatabase) => StoreError::Foreign { path },
                _ => StoreError::Sqlite(error),
            }
        }
        other => other,
    })
}

fn prepare(path: &Path, max_bytes: Option<u64>) -> Result<Connection, StoreError> {
    let mut database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(2))?;
    let keep = |_: &rusqlite::Row<'_>| Ok(());
    database.query_row("PRAGMA locking_mode = EXCLUSIVE", [], keep)?;
    database.query_row("PRAGMA journal_mode = WAL", [], keep)?;
    database.execute_batch("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON")?;
    if let Some(bytes) = max_bytes {
        let page_bytes: u32 = database.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = (bytes / u64::from(page_bytes.max(1))).max(1);
        database.query_row(&format!("PRAGMA max_page_count = {pages}"), [], keep)?;
    }
    let transaction =
        database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.into(), found, known: VERSION });
    }
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if found < 0 || (found == 0 && tables > 0) {
        return Err(StoreError::Foreign { path: path.into() });
    }
    for step in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    transaction.commit()?;
    Ok(database)
}
