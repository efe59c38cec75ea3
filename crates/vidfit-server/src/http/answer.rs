//! What all handlers have in common: their state, their answers, and where they may block.

use super::error::ApiError;
use super::session::Sessions;
use crate::state::Shared;
use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// What most handlers answer.
pub(crate) type Answer<T> = Result<Json<T>, ApiError>;

/// The state of the HTTP side, as handlers take it.
pub(crate) type State = axum::extract::State<Http>;

/// Most things at a time that take a processor or much memory: looking at uploads, planning, GIFs.
const HEAVY_AT_ONCE: usize = 2;

/// The state of the HTTP side.
#[derive(Clone)]
pub(crate) struct Http {
    shared: Arc<Shared>,
    pub(crate) sessions: Arc<Sessions>,
    heavy: Arc<Semaphore>,
    /// One permit for each client that may wait for events.
    pub(crate) streams: Arc<Semaphore>,
    /// True once the server is to end.
    pub(crate) ending: watch::Receiver<bool>,
}

impl Http {
    /// The state of a server that has just been started.
    pub(crate) fn new(shared: Arc<Shared>, ending: watch::Receiver<bool>) -> Http {
        Http {
            sessions: Arc::default(),
            heavy: Arc::new(Semaphore::new(HEAVY_AT_ONCE)),
            streams: Arc::new(Semaphore::new(shared.config.max_event_streams)),
            ending,
            shared,
        }
    }

    /// What is shared with the runner.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

/// Does something that waits for the disk, where that holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    state: &Http,
    act: impl FnOnce(&Shared) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let shared = state.shared();
    tokio::task::spawn_blocking(move || act(&shared)).await.map_err(ApiError::internal)?
}

/// Does something that takes a processor or much memory, one after the other.
pub(crate) async fn heavy<T: Send + 'static>(
    state: &Http,
    act: impl FnOnce(&Shared) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let permit = state.heavy.clone().acquire_owned().await.map_err(ApiError::internal)?;
    blocking(state, move |shared| {
        // Held to the end, even if the client has gone away in the meantime.
        let _permit = permit;
        act(shared)
    })
    .await
}

/// The id in a path.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(id)) => Ok(Id(id)),
            Err(_) => Err(no_video()),
        }
    }
}

/// There is no video of that id.
pub(crate) fn no_video() -> ApiError {
    ApiError::not_found("there is no video of this id; GET /v1/videos lists them").about("id")
}

/// What stands behind the question mark.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(error) => Err(of_query(&error.body_text())),
        }
    }
}

/// What is wrong with a query, about the parameter that it is about.
fn of_query(said: &str) -> ApiError {
    let said = said.strip_prefix("Failed to deserialize query string: ").unwrap_or(said);
    let (name, message) = match said.split_once(": ") {
        Some((name, what)) => (Some(name), format!("{name}: {what}")),
        None => (said.split('`').nth(1), said.to_owned()),
    };
    let error = ApiError::bad("invalid_query", message);
    match name {
        Some(name) => error.about(&name.chars().take(40).collect::<String>()),
        None => error,
    }
}
