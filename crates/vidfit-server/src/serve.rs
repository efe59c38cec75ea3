//! The server from its start to its end.

use crate::backend::Backend;
use crate::config::Config;
use crate::connection::{self, Patience};
use crate::http::{Http, router};
use crate::job::Folders;
use crate::runner::Runner;
use crate::state::Shared;
use crate::store::{Store, StoreError};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How often the stop flag is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Fewest characters of a token: less can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// Most threads that wait for the disk.
const MAX_BLOCKING_THREADS: usize = 32;

/// Why a server cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Everyone could use it.
    #[error(
        "{address} can be reached from other machines, and without a token everyone could use it: \
         give --token, or listen on 127.0.0.1"
    )]
    NeedsToken {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The token is short.
    #[error("a token of less than {MIN_TOKEN_CHARS} characters can be guessed: take a longer one")]
    ShortToken,
    /// The address is taken, or is none of this machine's.
    #[error("cannot listen on {address}: {source}; take another --address")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The queue's folder cannot be made.
    #[error("cannot make {}: {source}; take another --queue-dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The queue cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refuses something else.
    #[error("the server cannot be started: {0}")]
    System(#[from] io::Error),
    /// The API's description cannot be written, which is a mistake of ours.
    #[error("the API cannot be described: {0}")]
    Description(#[from] serde_json::Error),
}

/// Runs a server until `stop` becomes true: then it takes no more connections, has the worker save the
/// step it is at, and returns once that has ended. `ready` is told where it listens.
///
/// # Errors
///
/// A [`ServeError`] if it cannot be started.
pub fn serve(
    config: Config,
    backend: impl Backend,
    stop: &AtomicBool,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    check(&config)?;
    let folders = Folders { root: config.queue_dir.clone() };
    make(&folders)?;
    let store = Store::open(&folders, config.max_database_bytes)?;
    let deleted = store.recover()?;
    let (outbox, inbox) = mpsc::channel();
    let shared = Arc::new(Shared::new(config, Arc::new(backend), folders, store, outbox.clone()));
    for id in deleted {
        shared.sweep(&id);
    }
    sweep_orphans(&shared)?;
    // Nobody has to be told yet; later, what is as it was need not be told.
    shared.queue_changed();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name("vidfit-http")
        .enable_io()
        .enable_time()
        .build()?;
    let (end, ending) = watch::channel(false);
    let router = router(&Http::new(shared.clone(), ending.clone()))?;
    let address = shared.config.address;
    let listener = runtime
        .block_on(TcpListener::bind(address))
        .map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr()?;
    let config = &shared.config;
    let patience = Patience {
        headers: config.header_timeout,
        stall: config.stall_timeout,
        connections: config.max_connections,
    };
    let runner = Runner::new(shared.clone(), inbox, outbox);
    let runner = thread::Builder::new().name("vidfit-runner".into()).spawn(|| runner.run())?;
    tracing::info!(%address, "listening");
    ready(address);
    runtime.block_on(async {
        let accepting = tokio::spawn(connection::accept(listener, router, patience, ending));
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tracing::info!("ending");
        // The worker saves its step while the last connections end.
        shared.stop();
        let _ = end.send(true);
        if let Err(error) = accepting.await {
            tracing::error!(%error, "the connections ended badly");
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    if runner.join().is_err() {
        tracing::error!("the runner ended badly");
    }
    Ok(())
}

fn check(config: &Config) -> Result<(), ServeError> {
    match &config.token {
        None if !config.address.ip().is_loopback() => {
            Err(ServeError::NeedsToken { address: config.address })
        }
        Some(token) if token.chars().count() < MIN_TOKEN_CHARS => Err(ServeError::ShortToken),
        _ => Ok(()),
    }
}

/// Makes the queue's folders, for this user alone, without what was being uploaded when the last
/// server ended.
fn make(folders: &Folders) -> Result<(), ServeError> {
    let failed = |path: PathBuf| move |source| ServeError::Folder { path, source };
    let incoming = folders.incoming();
    if incoming.exists() {
        fs::remove_dir_all(&incoming).map_err(failed(incoming.clone()))?;
    }
    for path in [folders.root.clone(), folders.jobs(), incoming] {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(failed(path.clone()))?;
    }
    Ok(())
}

/// Removes the folders of jobs that were never accepted.
fn sweep_orphans(shared: &Shared) -> Result<(), ServeError> {
    for entry in fs::read_dir(shared.folders.jobs())? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with("video_"));
        if ours && !shared.store.knows(&name.to_string_lossy())? {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
