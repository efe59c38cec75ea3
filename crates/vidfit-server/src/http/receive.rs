//! From a request's body to the fields of an order and a file.

use super::body::{Incoming, content_type};
use super::error::ApiError;
use super::multipart::Multipart;
use crate::state::Shared;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::Write;
use tempfile::NamedTempFile;

/// Most bytes of a JSON body, which is held in memory.
const MAX_JSON_BYTES: u64 = 32 << 20;
/// Most bytes of a field of a form that is not a file; a `data:` URL is one.
const MAX_FIELD_BYTES: usize = 16 << 20;
/// Most bytes of all those fields.
const MAX_FIELDS_BYTES: usize = 24 << 20;
/// Most fields of an order.
const MAX_FIELDS: usize = 64;
/// The fields that a file can come in.
const FILES: [&str; 2] = ["input_reference", "video_reference"];

/// Base64 as most programs write it; bits that mean nothing do no harm.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// What came in.
#[derive(Default)]
pub(crate) struct Received {
    /// The fields, as JSON values or as texts.
    pub(crate) fields: Map<String, Value>,
    /// The file.
    pub(crate) upload: Option<Upload>,
}

/// A file that a client has sent, under a name that nobody else has.
pub(crate) struct Upload {
    /// The field that it came in.
    pub(crate) field: &'static str,
    /// Where it is, until it is dropped.
    pub(crate) file: NamedTempFile,
    /// Of its bytes, in hexadecimal.
    pub(crate) digest: String,
}

/// Reads a JSON object or a form.
pub(crate) async fn receive(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, ApiError> {
    let (kind, parameters) = content_type(headers);
    let config = &shared.config;
    match kind.as_str() {
        "application/json" => {
            let most = config.max_body_bytes.min(MAX_JSON_BYTES);
            let body = Incoming::new(headers, body, most, config.stall_timeout)?;
            Ok(Received { fields: object(&body.collect().await?)?, upload: None })
        }
        "multipart/form-data" => {
            let most = config.max_body_bytes;
            let body = Incoming::new(headers, body, most, config.stall_timeout)?;
            form(shared, Multipart::new(&parameters, body)?).await
        }
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send application/json or multipart/form-data, and say so in Content-Type",
        )),
    }
}

/// Reads a body that is a JSON object.
pub(crate) async fn receive_json(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Map<String, Value>, ApiError> {
    let received = receive(shared, headers, body).await?;
    match received.upload {
        Some(upload) => {
            Err(ApiError::bad("unexpected_file", "no file is taken here").about(upload.field))
        }
        None => Ok(received.fields),
    }
}

fn object(text: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::bad("invalid_json", "the body is not a JSON object")),
        Err(error) => Err(ApiError::bad("invalid_json", format!("the body is not JSON: {error}"))),
    }
}

async fn form(shared: &Shared, mut form: Multipart) -> Result<Received, ApiError> {
    let mut received = Received::default();
    let mut parts = 0;
    let mut bytes = 0;
    while let Some(part) = form.next(parts == 0).await? {
        parts += 1;
        if parts > MAX_FIELDS {
            return Err(ApiError::bad("too_many_fields", "the form has too many fields"));
        }
        // `input_reference[image_url]` is how forms spell an object.
        let name = part.name.strip_suffix("[image_url]").unwrap_or(&part.name).to_owned();
        let field = FILES.into_iter().find(|field| *field == name);
        if let (Some(field), true) = (field, part.is_file) {
            let saved = save(shared, &mut form, field).await?;
            if saved.is_none() && !part.is_unchosen {
                let message = format!("{field}: the file is empty: send one with something in it");
                return Err(ApiError::bad("invalid_file", message).about(field));
            }
            if let Some(upload) = saved
                && received.upload.replace(upload).is_some()
            {
                return Err(two_files());
            }
            continue;
        }
        let mut value = Vec::new();
        while let Some(chunk) = form.chunk().await? {
            bytes += chunk.len();
            value.extend(chunk);
            if value.len() > MAX_FIELD_BYTES || bytes > MAX_FIELDS_BYTES {
                return Err(ApiError::too_large(MAX_FIELD_BYTES as u64).about(&name));
            }
        }
        let text = String::from_utf8(value).map_err(|_| {
            ApiError::bad("invalid_value", format!("{name}: it is not UTF-8")).about(&name)
        })?;
        if received.fields.insert(name.clone(), Value::String(text)).is_some() {
            let message = format!("{name}: it is there twice");
            return Err(ApiError::bad("invalid_value", message).about(&name));
        }
    }
    Ok(received)
}

/// Two things to start from.
pub(crate) fn two_files() -> ApiError {
    ApiError::bad("too_many_files", "a video starts from one image or one video: send one file")
        .about("input_reference")
}

/// Saves a file of the form; `None` if it is empty, as one is that nobody chose.
async fn save(
    shared: &Shared,
    form: &mut Multipart,
    field: &'static str,
) -> Result<Option<Upload>, ApiError> {
    let file = new_file(shared)?;
    let handle = file.reopen().map_err(|error| ApiError::of_files(&error))?;
    let mut handle = tokio::fs::File::from_std(handle);
    let mut hash = Sha256::new();
    let mut empty = true;
    while let Some(chunk) = form.chunk().await? {
        use tokio::io::AsyncWriteExt;
        empty = false;
        hash.update(&chunk);
        handle.write_all(&chunk).await.map_err(|error| ApiError::of_files(&error))?;
    }
    if empty {
        return Ok(None);
    }
    handle.sync_all().await.map_err(|error| ApiError::of_files(&error))?;
    Ok(Some(Upload { field, file, digest: hex(&hash.finalize()) }))
}

/// Saves the content of a `data:` URL.
pub(crate) fn save_data_url(
    shared: &Shared,
    field: &'static str,
    url: &str,
) -> Result<Upload, ApiError> {
    let bad = |message| ApiError::bad("invalid_value", format!("{field}: {message}")).about(field);
    let content = url
        .strip_prefix("data:")
        .and_then(|url| url.split_once(','))
        .filter(|(kind, _)| kind.ends_with(";base64"))
        .map(|(_, content)| content)
        .ok_or_else(|| bad("a data: URL in base64 is wanted: data:image/png;base64,…"))?;
    let content = BASE64.decode(content.trim()).map_err(|_| bad("it is not base64"))?;
    if content.is_empty() {
        return Err(bad("it is empty"));
    }
    let mut file = new_file(shared)?;
    file.write_all(&content)
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| ApiError::of_files(&error))?;
    Ok(Upload { field, file, digest: hex(&Sha256::digest(&content)) })
}

fn new_file(shared: &Shared) -> Result<NamedTempFile, ApiError> {
    NamedTempFile::new_in(shared.folders.incoming()).map_err(|error| ApiError::of_files(&error))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
