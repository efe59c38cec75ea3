//! Server-sent events: how jobs stand, as it changes.

use super::answer::{Http, Id, State, blocking, no_video};
use super::error::{ApiError, ErrorBody};
use crate::connection::is_true;
use crate::job::Status;
use crate::state::{News, What, news_of};
use crate::store::Page;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

/// How often a client hears from us though nothing happens, so that it knows that we are there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Most jobs that a client that has just come is told of.
const TOLD_AT_FIRST: usize = 1000;

/// One event, as its lines have it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, and written by axum")]
struct ServerSentEvent {
    /// `video` or `deleted`.
    #[schema(pattern = "^(video|deleted)$")]
    event: String,
    /// The video object as JSON, or `{"id": …}`.
    data: String,
}

/// Tells how a video stands, now and whenever that changes, up to its end.
///
/// Each event has the name `video`, and the video object as its data; `deleted`, with
/// `{"id": …}`, is the last of a video that is deleted.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/events",
    tag = "videos",
    params(("id" = String, Path, description = "The video's id")),
    responses(
        (status = 200, description = "The events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 429, description = "Too many clients wait for events", body = ErrorBody),
    )
)]
pub(crate) async fn of_one(state: State, Id(id): Id) -> Result<Response, ApiError> {
    let mut stream = Stream::new(&state, Some(id.clone()))?;
    let now = blocking(&state, move |shared| {
        let job = shared.store.job(&id)?.ok_or_else(no_video)?;
        Ok(news_of(&shared.video(job)?)?)
    });
    stream.first.push_back(now.await?);
    Ok(stream.answer())
}

/// Tells of every video whenever it changes, and at first of all that wait or are being made.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "videos",
    responses(
        (status = 200, description = "The events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = 429, description = "Too many clients wait for events", body = ErrorBody),
    )
)]
pub(crate) async fn of_all(state: State) -> Result<Response, ApiError> {
    let mut stream = Stream::new(&state, None)?;
    stream.first = unfinished(&state).await?;
    Ok(stream.answer())
}

async fn unfinished(state: &Http) -> Result<VecDeque<News>, ApiError> {
    blocking(state, |shared| {
        let mut told = VecDeque::new();
        for status in [Status::InProgress, Status::Queued] {
            let status = Some(status);
            let page = Page { limit: TOLD_AT_FIRST, after: None, newest_first: false, status };
            let (jobs, _) = shared.store.list(&page)?.unwrap_or_default();
            for video in shared.videos(jobs)? {
                told.push_back(news_of(&video)?);
            }
        }
        Ok(told)
    })
    .await
}

/// What a client that waits is told.
struct Stream {
    state: Http,
    /// The only job that it wants to hear of.
    only: Option<String>,
    first: VecDeque<News>,
    news: Receiver<News>,
    ending: watch::Receiver<bool>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// From here on, no news is missed.
    fn new(state: &Http, only: Option<String>) -> Result<Stream, ApiError> {
        let permit = state.streams.clone().try_acquire_owned().map_err(|_| {
            let message = "as many clients wait for events as may: try again later, or poll";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message)
                .retry_after(10)
        })?;
        Ok(Stream {
            only,
            first: VecDeque::new(),
            news: state.shared().news.subscribe(),
            ending: state.ending.clone(),
            ended: false,
            state: state.clone(),
            _permit: permit,
        })
    }

    fn answer(self) -> Response {
        let events = stream::unfold(self, |mut stream| async move {
            let event = stream.next().await?;
            Some((Ok::<_, Infallible>(event), stream))
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
    }

    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            let news = match self.first.pop_front() {
                Some(news) => news,
                None => match self.wait().await? {
                    Ok(news) => news,
                    // It was slow, and news are lost: it is told how things stand instead.
                    Err(()) => {
                        self.first = self.again().await;
                        continue;
                    }
                },
            };
            if self.only.as_deref().is_some_and(|id| id != &*news.id) {
                continue;
            }
            return Some(match news.what {
                What::Video { json, last } => {
                    self.ended = last && self.only.is_some();
                    Event::default().event("video").data(json)
                }
                What::Deleted => {
                    self.ended = self.only.is_some();
                    let id = serde_json::json!({ "id": &*news.id });
                    Event::default().event("deleted").data(id.to_string())
                }
            });
        }
        None
    }

    /// The next news; an error if some were lost, nothing if the server ends.
    async fn wait(&mut self) -> Option<Result<News, ()>> {
        tokio::select! {
            () = is_true(&mut self.ending) => None,
            news = self.news.recv() => match news {
                Ok(news) => Some(Ok(news)),
                Err(RecvError::Lagged(_)) => Some(Err(())),
                Err(RecvError::Closed) => None,
            },
        }
    }

    async fn again(&self) -> VecDeque<News> {
        let Some(id) = self.only.clone() else {
            return unfinished(&self.state).await.unwrap_or_default();
        };
        let news = blocking(&self.state, move |shared| {
            Ok(match shared.store.job(&id)? {
                Some(job) => news_of(&shared.video(job)?)?,
                None => News { id: id.into(), what: What::Deleted },
            })
        });
        news.await.into_iter().collect()
    }
}
