//! The page and the API's description, from within the program.

use super::error::ApiError;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::Arc;

/// The files of the page.
#[derive(RustEmbed)]
#[folder = "page/"]
struct Page;

/// The page itself.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    file(&headers, "index.html")
}

/// One of its files.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&headers, &name)
}

fn file(headers: &HeaderMap, name: &str) -> Response {
    match Page::get(name) {
        Some(file) => answer(headers, file.data, media_type(name)),
        None => nothing(),
    }
}

/// There is nothing of that name.
pub(crate) fn nothing() -> Response {
    ApiError::not_found("there is nothing of this name here; /docs lists what there is")
        .into_response()
}

/// The description's page has its files below it.
pub(crate) async fn to_docs() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The description's page.
pub(crate) async fn docs_index(headers: HeaderMap) -> Response {
    docs_file(&headers, "")
}

/// One of its files.
pub(crate) async fn docs(Path(name): Path<String>, headers: HeaderMap) -> Response {
    docs_file(&headers, &name)
}

fn docs_file(headers: &HeaderMap, name: &str) -> Response {
    let config = utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none");
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => {
            let kind = HeaderValue::from_str(&file.content_type);
            let zipped = file.gzpipped;
            let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            let mut response = answer(headers, Cow::Owned(file.bytes.into_owned()), kind);
            if zipped {
                let zipped = HeaderValue::from_static("gzip");
                response.headers_mut().insert(header::CONTENT_ENCODING, zipped);
            }
            response
        }
        Ok(None) => nothing(),
        Err(error) => ApiError::internal(error).into_response(),
    }
}

/// Bytes that change only with the program, so that a browser that has them need not get them again.
fn answer(headers: &HeaderMap, bytes: Cow<'static, [u8]>, kind: HeaderValue) -> Response {
    let tag = format!("\"{}\"", &super::receive::hex(&Sha256::digest(&bytes))[..32]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    let cached = [
        (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if known
        .is_some_and(|known| known.split(',').any(|it| it.trim().trim_start_matches("W/") == tag))
    {
        return (StatusCode::NOT_MODIFIED, cached).into_response();
    }
    ([(header::CONTENT_TYPE, kind)], cached, bytes.into_owned()).into_response()
}

fn media_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}
