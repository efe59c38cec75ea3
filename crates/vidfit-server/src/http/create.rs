//! `POST /v1/videos`: the way of an order into the queue.

use super::answer::{Answer, State, blocking, heavy};
use super::error::ApiError;
use super::openapi::{OrderForm, OrderJson};
use super::receive::{Upload, hex, receive, save_data_url, two_files};
use crate::backend::{Reference, ReferenceKind};
use crate::media::sniff;
use crate::order::{Limits, Order, parse};
use crate::runner::Message;
use crate::state::Shared;
use crate::store::{Accepted, NewJob, StoreError};
use crate::video::Video;
use axum::Json;
use axum::body::Body;
use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// Most characters of an Idempotency-Key.
const MAX_KEY_CHARS: usize = 255;

/// Orders a video.
///
/// The answer comes once the job is on the disk: from then on it will be made, whatever happens to
/// the server. Numbers may be sent as texts. With an `Idempotency-Key`, the same order is taken once,
/// however often it is sent.
#[utoipa::path(
    post,
    path = "/v1/videos",
    tag = "videos",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same job",
        min_length = 1, max_length = 255)),
    request_body(content((OrderJson = "application/json"), (OrderForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "The job is in the queue", body = Video),
        (status = 400, description = "The order cannot be taken", body = super::error::ErrorBody),
        (status = 409, description = "The key came with another order", body = super::error::ErrorBody),
        (status = 413, description = "The body is too large", body = super::error::ErrorBody),
        (status = 415, description = "Neither JSON nor a form", body = super::error::ErrorBody),
        (status = 503, description = "The disk is full", body = super::error::ErrorBody,
            headers(("Retry-After" = u32, description = "Seconds"))),
        (status = 429, description = "The queue is full", body = super::error::ErrorBody,
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(crate) async fn create(state: State, headers: HeaderMap, body: Body) -> Answer<Video> {
    let shared = state.shared();
    let key = key(&headers)?;
    if key.is_none() {
        // Not worth reading a body for.
        blocking(&state, refuse_if_full).await?;
    }
    let received = receive(&shared, &headers, body).await?;
    let limits = Limits { prompt_chars: shared.config.max_prompt_chars };
    let wanted = parse(received.fields, limits, false).map_err(ApiError::of_fields)?;
    let video = heavy(&state, move |shared| {
        let upload = match (received.upload, wanted.data_url) {
            (Some(_), Some(_)) => return Err(two_files()),
            (upload @ Some(_), None) => upload,
            (None, Some((field, url))) => Some(save_data_url(shared, field, &url)?),
            (None, None) => None,
        };
        accept(shared, wanted.order, upload, key)
    })
    .await?;
    Ok(Json(video))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str().map(str::trim) {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_CHARS => Ok(Some(key.to_owned())),
        _ => Err(ApiError::bad(
            "invalid_value",
            format!("Idempotency-Key: 1 to {MAX_KEY_CHARS} ASCII characters are wanted"),
        )
        .about("Idempotency-Key")),
    }
}

fn refuse_if_full(shared: &Shared) -> Result<(), ApiError> {
    let waiting = shared.store.queue()?.len();
    if waiting >= shared.config.queue_limit {
        return Err(StoreError::QueueFull { waiting }.into());
    }
    Ok(())
}

/// Takes an order into the queue.
fn accept(
    shared: &Shared,
    order: Order,
    upload: Option<Upload>,
    key: Option<String>,
) -> Result<Video, ApiError> {
    let digest = digest(&order, upload.as_ref())?;
    if let Some(key) = &key {
        if let Some(job) = shared.store.by_key(key, &digest)? {
            return Ok(shared.video(job)?);
        }
        refuse_if_full(shared)?;
    }
    let mut reference = match &upload {
        Some(upload) => Some(look(shared, upload)?),
        None => None,
    };
    let looked = reference.as_ref().map(|(looked, _)| looked);
    if order.strength.is_some() && looked.is_none_or(|it| it.kind != ReferenceKind::Video) {
        let message = "strength: it says how much of a video is made anew, and none was sent to start \
                       from: send one as video_reference, or leave strength away";
        return Err(ApiError::bad("invalid_value", message).about("strength"));
    }
    let settled = shared.backend.settle(&order, looked).map_err(|it| it.for_client(&order))?;
    let id = new_id()?;
    let folder = shared.folders.job(&id);
    if let (Some(upload), Some((looked, ending))) = (upload, &mut reference) {
        looked.path = folder.join(format!("input.{ending}"));
        keep(upload, &folder, &looked.path).map_err(|error| ApiError::of_files(&error))?;
    }
    let reference = reference.map(|(looked, _)| looked);
    let new = NewJob { id, key, digest, order, settled, reference };
    let accepted = shared.store.accept(&new, shared.config.queue_limit);
    if !matches!(accepted, Ok(Accepted::New(_))) {
        // Nobody knows of it; what stays is removed when the server starts.
        let _ = fs::remove_dir_all(&folder);
    }
    let job = match accepted? {
        Accepted::Before(job) => return Ok(shared.video(job)?),
        Accepted::New(job) => job,
    };
    tracing::info!(job = job.id, model = job.settled.model, "job accepted");
    let video = shared.video(job)?;
    shared.tell_runner(Message::Wake);
    shared.queue_changed();
    Ok(video)
}

/// What tells this order from others.
fn digest(order: &Order, upload: Option<&Upload>) -> Result<String, ApiError> {
    let text = serde_json::to_vec(order).map_err(ApiError::internal)?;
    let mut hash = Sha256::new();
    hash.update(&text);
    if let Some(upload) = upload {
        hash.update(upload.field);
        hash.update(&upload.digest);
    }
    Ok(hex(&hash.finalize()))
}

/// Finds out what an upload is, with the ending of its name.
fn look(shared: &Shared, upload: &Upload) -> Result<(Reference, &'static str), ApiError> {
    let bad = |message: &str| ApiError::bad("invalid_file", message).about(upload.field);
    let path = upload.file.path();
    let Some((kind, ending)) = sniff(path).map_err(|error| ApiError::of_files(&error))? else {
        return Err(bad("the file is none that is taken: send PNG, JPEG, WebP, GIF, MP4 or WebM"));
    };
    let looked = shared.backend.look(path, kind).map_err(|refusal| {
        // The file's name here says nothing to the client.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let message = crate::scrub::without_paths(&refusal.message).replace(&*name, "the file");
        ApiError::from(crate::backend::Refusal { message, ..refusal }).about(upload.field)
    })?;
    if upload.field == "video_reference" && looked.kind != ReferenceKind::Video {
        return Err(bad("the file is a picture: send it as input_reference"));
    }
    Ok((looked, ending))
}

/// Moves an upload to its job's folder, in a way that survives a power cut.
fn keep(upload: Upload, folder: &Path, path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    upload.file.persist(path).map_err(|error| error.error)?;
    sync(folder)?;
    folder.parent().map_or(Ok(()), sync)
}

/// Makes sure that the names in a folder are on the disk, where a system has a way to do so.
fn sync(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

fn new_id() -> Result<String, ApiError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(ApiError::internal)?;
    Ok(format!("video_{}", hex(&random)))
}
