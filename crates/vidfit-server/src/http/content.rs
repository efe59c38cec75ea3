//! `GET /v1/videos/{id}/content`: the video, its first frame, a GIF of it, or what it starts from.

use super::answer::{Asked, Id, State, blocking, heavy, no_video};
use super::error::{ApiError, ErrorBody};
use super::range::{Ranged, ranged};
use crate::backend::Refusal;
use crate::job::Status;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What of a video is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ContentQuery {
    /// `video`, where nothing is said.
    #[param(inline)]
    variant: Option<Variant>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    #[default]
    Video,
    Thumbnail,
    Gif,
    /// What the video was made from.
    Input,
}

impl Variant {
    /// The file's name and its media type.
    fn file(self) -> (&'static str, &'static str) {
        match self {
            // It has names of its own.
            Variant::Input => ("", ""),
            Variant::Video => ("video.mp4", "video/mp4"),
            Variant::Thumbnail => ("thumbnail.png", "image/png"),
            Variant::Gif => ("video.gif", "image/gif"),
        }
    }
}

/// Gives a video's content, or a range of it.
#[utoipa::path(
    get,
    path = "/v1/videos/{id}/content",
    tag = "videos",
    params(("id" = String, Path, description = "The video's id"), ContentQuery),
    responses(
        (status = 200, description = "All of it", content(
            (String = "video/mp4"), (String = "image/png"), (String = "image/gif"),
            (String = "image/jpeg"), (String = "image/webp"), (String = "video/webm"))),
        (status = 206, description = "The range that was asked for", content(
            (String = "video/mp4"), (String = "image/png"), (String = "image/gif"),
            (String = "image/jpeg"), (String = "image/webp"), (String = "video/webm"))),
        (status = 304, description = "It is as it was"),
        (status = 400, description = "There is no such variant", body = ErrorBody),
        (status = 404, description = "There is no such video, or it starts from text alone", body = ErrorBody),
        (status = 409, description = "It is not done", body = ErrorBody),
        (status = 416, description = "There is no such range", body = ErrorBody),
    )
)]
pub(crate) async fn content(
    state: State,
    Id(id): Id,
    Asked(query): Asked<ContentQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let variant = query.variant.unwrap_or_default();
    if matches!(variant, Variant::Input) {
        return input(&state, id, &headers).await;
    }
    let (name, kind) = variant.file();
    let find = id.clone();
    let folder = blocking(&state, move |shared| {
        let job = shared.store.job(&find)?.ok_or_else(no_video)?;
        match job.status {
            Status::Completed => Ok(shared.folders.job(&job.id)),
            status => Err(not_done(status)),
        }
    })
    .await?;
    let path = folder.join(name);
    if !matches!(variant, Variant::Video) && !path.exists() {
        heavy(&state, move |shared| {
            let (video, to) = (folder.join("video.mp4"), folder.join(name));
            let made = match variant {
                _ if to.exists() => Ok(()),
                Variant::Gif => shared.backend.gif(&video, &to),
                _ => shared.backend.thumbnail(&video, &to),
            };
            made.map_err(|Refusal { message, .. }| ApiError::internal(message))
        })
        .await?;
    }
    let file = blocking(&state, move |_| Content::open(&path)).await?;
    file.answer(&headers, kind, &format!("{id}.{}", name.rsplit('.').next().unwrap_or_default()))
        .await
}

/// Gives what a video starts from, however it stands.
async fn input(state: &State, id: String, headers: &HeaderMap) -> Result<Response, ApiError> {
    let find = id.clone();
    let (file, ending) = blocking(state, move |shared| {
        let job = shared.store.job(&find)?.ok_or_else(no_video)?;
        let path = job.reference.map(|reference| reference.path).ok_or_else(|| {
            ApiError::not_found("the video starts from text alone").about("variant")
        })?;
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        Ok((Content::open(&path)?, ending))
    })
    .await?;
    let kind = match ending.as_str() {
        "png" => "image/png",
        "jpg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    };
    file.answer(headers, kind, &format!("{id}-input.{ending}")).await
}

fn not_done(status: Status) -> ApiError {
    let message = match status {
        Status::Queued | Status::InProgress => {
            "the video is not done yet: wait until its status is completed"
        }
        Status::Cancelled => "there is no video, for it was cancelled",
        Status::Completed | Status::Failed => "there is no video: its error says why",
    };
    ApiError::new(StatusCode::CONFLICT, "not_completed", message)
}

/// A file that is given away.
struct Content {
    file: File,
    bytes: u64,
    /// Changes with the file.
    tag: String,
}

impl Content {
    fn open(path: &Path) -> Result<Content, ApiError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file): (fs::Metadata, File) = opened.map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return ApiError::not_found("the file is not there any more");
            }
            ApiError::internal(format!("{}: {error}", PathBuf::from(path).display()))
        })?;
        let changed = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let tag = format!("\"{:x}-{:x}\"", meta.len(), changed.unwrap_or_default().as_nanos());
        Ok(Content { file, bytes: meta.len(), tag })
    }

    async fn answer(
        mut self,
        headers: &HeaderMap,
        kind: &str,
        name: &str,
    ) -> Result<Response, ApiError> {
        let asked = |name: HeaderName| headers.get(name).and_then(|it| it.to_str().ok());
        let same = |tags: &str| {
            tags == "*"
                || tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.tag)
        };
        let always = [
            (header::ETAG, self.tag.clone()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        ];
        if asked(header::IF_NONE_MATCH).is_some_and(same) {
            return Ok((StatusCode::NOT_MODIFIED, always).into_response());
        }
        let range = asked(header::RANGE)
            .filter(|_| asked(header::IF_RANGE).is_none_or(|tag| tag.trim() == self.tag));
        let (status, from, length, part) = match ranged(range, self.bytes) {
            Ranged::Whole => (StatusCode::OK, 0, self.bytes, None),
            Ranged::Part { from, to } => {
                let part = format!("bytes {from}-{to}/{}", self.bytes);
                (StatusCode::PARTIAL_CONTENT, from, to - from + 1, Some(part))
            }
            Ranged::Beyond => {
                let message = format!("the file has {} bytes, and none in this range", self.bytes);
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let error = ApiError::new(status, "no_such_range", message);
                let all = [(header::CONTENT_RANGE, format!("bytes */{}", self.bytes))];
                return Ok((all, error).into_response());
            }
        };
        self.file.seek(SeekFrom::Start(from)).map_err(|error| ApiError::of_files(&error))?;
        let file = tokio::fs::File::from_std(self.file).take(length);
        let body = Body::from_stream(ReaderStream::with_capacity(file, PIECE_BYTES));
        let about = [
            (header::CONTENT_TYPE, kind.to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
            (header::CONTENT_DISPOSITION, format!("inline; filename=\"{name}\"")),
        ];
        let part = part.map(|part| [(header::CONTENT_RANGE, part)]);
        Ok(match part {
            Some(part) => (status, always, about, part, body).into_response(),
            None => (status, always, about, body).into_response(),
        })
    }
}
