//! What can go wrong with the directories of runs.

use super::RunId;
use crate::bytes::both_in_words;
use crate::error::Fault;
use std::path::PathBuf;

/// An error of the directories of runs.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// There is not a single one.
    #[error("there are no runs in {}", folder.display())]
    NoRuns {
        /// Where they were looked for.
        folder: PathBuf,
    },
    /// None is called so.
    #[error("no run in {} is called {wanted:?}; `vidfit runs` lists those there are", folder.display())]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// Several are called so.
    #[error("{wanted:?} may be {}: write more of the name", one_of(found))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// What it may be.
        found: Vec<RunId>,
    },
    /// A process works on it.
    #[error(
        "run {id} is under way{}; wait for it, or stop it first",
        pid.map_or(String::new(), |pid| format!(" in process {pid}"))
    )]
    Busy {
        /// The run.
        id: RunId,
        /// The process, where it says.
        pid: Option<u32>,
    },
    /// Its directory does not hold what it should.
    #[error("run {id} is damaged: {what}. `vidfit runs rm {id}` takes it away")]
    Damaged {
        /// The run.
        id: RunId,
        /// What is wrong.
        what: String,
    },
    /// Its directory holds what no run has put there.
    #[error(
        "run {id} was taken away, but {} stays: {found} in it is not of the run",
        folder.display()
    )]
    ForeignFiles {
        /// The run.
        id: RunId,
        /// Its directory.
        folder: PathBuf,
        /// One of the others' files.
        found: String,
    },
    /// The disk has too little room.
    #[error(
        "the run needs {} on the disk of {}, and {} are free. Make room, or keep runs elsewhere: \
         --runs DIR, or --queue-dir DIR of a server",
        both_in_words(*needed_bytes, *free_bytes).0,
        folder.display(),
        both_in_words(*needed_bytes, *free_bytes).1
    )]
    NoRoom {
        /// A folder on that disk.
        folder: PathBuf,
        /// All that will be written there.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The system will not.
    #[error(
        "cannot {action} {}: {source}{}",
        path.display(),
        if ["make", "lock"].contains(action) { ". Keep runs elsewhere with --runs DIR" } else { "" }
    )]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl RunsError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            RunsError::ForeignFiles { .. } | RunsError::File { .. } => Fault::Other,
            _ => Fault::Input,
        }
    }
}

/// Names beyond this number are not listed.
const NAMED: usize = 4;

/// `a, b or c`.
fn one_of(ids: &[RunId]) -> String {
    let named: Vec<&str> = ids.iter().take(NAMED).map(RunId::as_str).collect();
    match ids.len().saturating_sub(NAMED) {
        0 => named.join(" or "),
        more => format!("{} or one of {more} others", named.join(", ")),
    }
}
