//! Videos by their ids, and the list of them.

use super::answer::{Answer, Asked, Id, State, blocking, no_video};
use super::error::{ApiError, ErrorBody};
use crate::job::Status;
use crate::runner::Message;
use crate::store::{Cancelled, Page};
use crate::video::Video;
use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What part of the list is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// How many, 1 to 100; 20 where nothing is said.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// The id of the last video of the page before.
    #[param(min_length = 1)]
    after: Option<String>,
    /// `desc`, the newest first, where nothing is said.
    #[param(inline)]
    order: Option<Direction>,
    /// Only those that stand like this.
    #[param(inline)]
    status: Option<Status>,
}

#[derive(Clone, Copy, Deserialize, Serialize, ToSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Asc,
    Desc,
}

/// A page of the list.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VideoList {
    /// Always `list`.
    object: ListWord,
    data: Vec<Video>,
    /// Whether there are more behind these.
    has_more: bool,
    #[schema(required)]
    first_id: Option<String>,
    /// What `after` is to be for the next page.
    #[schema(required)]
    last_id: Option<String>,
}

/// What a list says it is.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListWord {
    /// A list.
    List,
}

/// Lists the videos, and the jobs that are to become some.
#[utoipa::path(
    get,
    path = "/v1/videos",
    tag = "videos",
    params(ListQuery),
    responses(
        (status = 200, description = "A page of the list", body = VideoList),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 404, description = "There is no video `after`", body = ErrorBody),
    )
)]
pub(crate) async fn list(state: State, Asked(query): Asked<ListQuery>) -> Answer<VideoList> {
    let limit = match query.limit.unwrap_or(20) {
        limit @ 1..=100 => limit as usize,
        _ => return Err(ApiError::bad("invalid_value", "limit: 1 to 100 is wanted").about("limit")),
    };
    let list = blocking(&state, move |shared| {
        let page = Page {
            limit,
            after: query.after.as_deref(),
            newest_first: query.order != Some(Direction::Asc),
            status: query.status,
        };
        let Some((jobs, has_more)) = shared.store.list(&page)? else {
            return Err(ApiError::not_found("after: there is no video of this id").about("after"));
        };
        let data = shared.videos(jobs)?;
        let id = |video: Option<&Video>| video.map(|video| video.id().to_owned());
        let (first_id, last_id) = (id(data.first()), id(data.last()));
        Ok(VideoList { object: ListWord::List, data, has_more, first_id, last_id })
    });
    Ok(Json(list.await?))
}

/// Says how a video stands.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}",
    tag = "videos",
    params(("id" = String, Path, description = "The video's id")),
    responses(
        (status = 200, description = "The video", body = Video),
        (status = 404, description = "There is none", body = ErrorBody),
    )
)]
pub(crate) async fn retrieve(state: State, Id(id): Id) -> Answer<Video> {
    let video = blocking(&state, move |shared| {
        Ok(shared.video(shared.store.job(&id)?.ok_or_else(no_video)?)?)
    });
    Ok(Json(video.await?))
}

/// Stops a job, or takes it out of the queue.
///
/// A job that runs stops at its next unit of work, and is `cancelled` then. One that is over stays
/// as it is.
#[utoipa::path(
    post,
    path = "/v1/videos/{id}/cancel",
    tag = "videos",
    params(("id" = String, Path, description = "The video's id")),
    responses(
        (status = 200, description = "How it stands now", body = Video),
        (status = 404, description = "There is none", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(state: State, Id(id): Id) -> Answer<Video> {
    let video = blocking(&state, move |shared| {
        shared.store.job(&id)?.ok_or_else(no_video)?;
        match shared.store.cancel(&id)? {
            Cancelled::Queued => {
                shared.metrics.ended(Status::Cancelled);
                shared.queue_changed();
            }
            Cancelled::Running => {
                shared.tell_runner(Message::Cancel(id.clone()));
            }
            Cancelled::Over => {}
        }
        Ok(shared.video(shared.store.job(&id)?.ok_or_else(no_video)?)?)
    });
    Ok(Json(video.await?))
}

/// A video that is gone.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeletedVideo {
    id: String,
    /// Always `video.deleted`.
    object: DeletedWord,
    deleted: bool,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
enum DeletedWord {
    #[serde(rename = "video.deleted")]
    VideoDeleted,
}

/// Deletes a video with all its files; a job that is not done is cancelled first.
#[utoipa::path(
    delete,
    path = "/v1/videos/{id}",
    tag = "videos",
    params(("id" = String, Path, description = "The video's id")),
    responses(
        (status = 200, description = "It is gone", body = DeletedVideo),
        (status = 404, description = "There is none", body = ErrorBody),
    )
)]
pub(crate) async fn delete(state: State, Id(id): Id) -> Answer<DeletedVideo> {
    let deleted = blocking(&state, move |shared| {
        shared.store.job(&id)?.ok_or_else(no_video)?;
        shared.store.delete(&id)?;
        match shared.store.cancel(&id)? {
            // The runner removes what is left of it.
            Cancelled::Running => {
                shared.tell_runner(Message::Cancel(id.clone()));
            }
            Cancelled::Queued => {
                shared.metrics.ended(Status::Cancelled);
                shared.sweep(&id);
            }
            Cancelled::Over => shared.sweep(&id),
        }
        shared.deleted(&id);
        Ok(DeletedVideo { id, object: DeletedWord::VideoDeleted, deleted: true })
    });
    Ok(Json(deleted.await?))
}
