//! The body of a request, read piece by piece within limits.

use super::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::time::Duration;

/// A body that gives up on what is too large or too slow.
pub(crate) struct Incoming {
    body: Body,
    most_bytes: u64,
    left_bytes: u64,
    patience: Duration,
}

impl Incoming {
    /// A body of at most `most_bytes`, with at most `patience` between two pieces. If its length is
    /// given and too large, nothing of it is read.
    pub(crate) fn new(
        headers: &HeaderMap,
        body: Body,
        most_bytes: u64,
        patience: Duration,
    ) -> Result<Incoming, ApiError> {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > most_bytes) {
            return Err(ApiError::too_large(most_bytes));
        }
        Ok(Incoming { body, most_bytes, left_bytes: most_bytes, patience })
    }

    /// The next piece, which may be empty; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
        let piece = match frame.map_err(|_| ApiError::too_slow())? {
            None => return Ok(None),
            Some(Err(_)) => {
                return Err(ApiError::bad("broken_body", "the body ended before it was whole"));
            }
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let length = piece.len() as u64;
        self.left_bytes =
            self.left_bytes.checked_sub(length).ok_or(ApiError::too_large(self.most_bytes))?;
        Ok(Some(piece))
    }

    /// All of it.
    pub(crate) async fn collect(mut self) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// The media type of a body, in lower case, with what follows it.
pub(crate) fn content_type(headers: &HeaderMap) -> (String, String) {
    let value =
        headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (kind, rest) = value.split_once(';').unwrap_or((value, ""));
    (kind.trim().to_ascii_lowercase(), rest.to_owned())
}
