//! Server-sent events: how jobs stand, as it changes.

use super::answer::{Http, Id, State, blocking, no_video};
use super::error::{ApiError, ErrorBody};
use super::session::session_of;
use crate::connection::is_true;
use crate::job::Status;
use crate::state::{News, news_of};
use crate::store::Page;
use axum::http::{HeaderMap, StatusCode};
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
/// `{"id": …}`, is the last of a video that is deleted. Where nothing but its place in the queue has
/// changed, the object comes without `plan`.
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
pub(crate) async fn of_one(
    state: State,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut stream = Stream::new(&state, &headers, Some(id.clone()))?;
    let now = blocking(&state, move |shared| {
        let job = shared.store.job(&id)?.ok_or_else(no_video)?;
        Ok(news_of(&shared.video(job)?)?)
    });
    stream.first.push_back(now.await?);
    Ok(stream.answer())
}

/// Tells of every video whenever it changes, and at first of all that wait or are being made.
///
/// A client that is too slow to take them all is not told half of the story: the stream ends, and the
/// client asks for the list and comes again.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "videos",
    responses(
        (status = 200, description = "The events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = 429, description = "Too many clients wait for events", body = ErrorBody),
    )
)]
pub(crate) async fn of_all(state: State, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut stream = Stream::new(&state, &headers, None)?;
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
    /// The session that it may listen by, if it showed no token.
    session: Option<String>,
    first: VecDeque<News>,
    news: Receiver<News>,
    ending: watch::Receiver<bool>,
    /// Changes when a session ends.
    leaving: watch::Receiver<()>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Stream {
    /// From here on, no news is missed.
    fn new(state: &Http, headers: &HeaderMap, only: Option<String>) -> Result<Stream, ApiError> {
        let permit = state.streams.clone().try_acquire_owned().map_err(|_| {
            let message = "as many clients wait for events as may: try again later, or poll";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message)
                .retry_after(10)
        })?;
        let wants_token = state.shared().config.token.is_some();
        let leaving = state.sessions.leaving();
        Ok(Stream {
            only,
            session: session_of(headers).filter(|_| wants_token).map(str::to_owned),
            first: VecDeque::new(),
            news: state.shared().news.subscribe(),
            ending: state.ending.clone(),
            leaving,
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
                    // It was slow, and news are lost: of one video, it is told how that stands instead.
                    // Of all, nobody knows which ends it missed, so it has to come again, and ask.
                    Err(()) => {
                        let id = self.only.clone()?;
                        self.first = self.again(id).await;
                        continue;
                    }
                },
            };
            // What was lost while a session ended, and what was on its way, is for nobody any more.
            if !self.may_listen() {
                return None;
            }
            let is_told = |id: &str| self.only.as_deref().is_none_or(|only| only == id);
            match news {
                News::Video { id, json, last } if is_told(&id) => {
                    self.ended = last && self.only.is_some();
                    return Some(Event::default().event("video").data(json));
                }
                News::Deleted { id } if is_told(&id) => {
                    self.ended = self.only.is_some();
                    let id = serde_json::json!({ "id": &*id });
                    return Some(Event::default().event("deleted").data(id.to_string()));
                }
                News::Places(places) => {
                    let told = places.iter().filter(|(id, _)| is_told(id)).cloned();
                    let told = told.map(|(id, json)| News::Video { id, json, last: false });
                    let told: Vec<News> = told.collect();
                    self.first.extend(told);
                }
                News::Video { .. } | News::Deleted { .. } => {}
            }
        }
        None
    }

    /// Whether the session that it listens by has not ended.
    fn may_listen(&self) -> bool {
        self.session.as_ref().is_none_or(|secret| self.state.sessions.is_known(secret))
    }

    /// The next news; an error if some were lost, nothing if the server ends, or the session.
    async fn wait(&mut self) -> Option<Result<News, ()>> {
        loop {
            tokio::select! {
                () = is_true(&mut self.ending) => return None,
                _ = self.leaving.changed() => {
                    if !self.may_listen() {
                        return None;
                    }
                }
                news = self.news.recv() => return match news {
                    Ok(news) => Some(Ok(news)),
                    Err(RecvError::Lagged(_)) => Some(Err(())),
                    Err(RecvError::Closed) => None,
                },
            }
        }
    }

    async fn again(&self, id: String) -> VecDeque<News> {
        let news = blocking(&self.state, move |shared| {
            Ok(match shared.store.job(&id)? {
                Some(job) => news_of(&shared.video(job)?)?,
                None => News::Deleted { id: id.into() },
            })
        });
        news.await.into_iter().collect()
    }
}
