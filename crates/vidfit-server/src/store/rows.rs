//! A row of the database as a [`Job`].

use super::StoreError;
use crate::backend::Reference;
use crate::job::{Folders, Job, Status};
use rusqlite::Row;
use serde::de::DeserializeOwned;

/// What [`read`] needs of a row.
pub(super) const COLUMNS: &str = "id, status, created_at, started_at, completed_at, crashes, cancel, \
                                  deleted, demand, settled, reference, outcome";

/// Reads a row.
pub(super) fn read(row: &Row<'_>, folders: &Folders) -> Result<Job, StoreError> {
    let id: String = row.get("id")?;
    let status: String = row.get("status")?;
    let reference: Option<String> = row.get("reference")?;
    let reference = reference.map(|text| serde_json::from_str::<Reference>(&text)).transpose()?;
    // The queue's folder may have moved since.
    let reference = reference.map(|it| Reference {
        path: folders.job(&id).join(it.path.file_name().unwrap_or_default()),
        ..it
    });
    Ok(Job {
        status: Status::of(&status)
            .ok_or(rusqlite::Error::InvalidColumnName(format!("status {status}")))?,
        created_at: row.get("created_at")?,
        started_at: row.get("started_at")?,
        completed_at: row.get("completed_at")?,
        crashes: row.get("crashes")?,
        cancel: row.get("cancel")?,
        deleted: row.get("deleted")?,
        order: json(row, "demand")?,
        settled: json(row, "settled")?,
        outcome: json(row, "outcome")?,
        reference,
        id,
    })
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    Ok(serde_json::from_str(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?)?)
}
