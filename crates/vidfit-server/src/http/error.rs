//! Errors as clients get them, in OpenAI's form.

use crate::backend::Refusal;
use crate::order::Order;
use crate::scrub::{without_paths, without_paths_but};
use crate::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An answer that says why not.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: String,
    param: Option<String>,
    message: String,
    retry_after_seconds: Option<u32>,
}

/// The body of every answer that is an error.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErrorBody {
    error: ErrorInfo,
}

/// What is wrong.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ErrorInfo {
    /// For people: what is wrong, and what to do.
    message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field or parameter that it is about.
    #[schema(required)]
    param: Option<String>,
    /// For programs.
    code: String,
}

impl ApiError {
    /// An error with its status, its word for programs and its message.
    pub(crate) fn new(status: StatusCode, code: &str, message: impl std::fmt::Display) -> ApiError {
        ApiError {
            status,
            code: code.to_owned(),
            param: None,
            message: message.to_string(),
            retry_after_seconds: None,
        }
    }

    /// Something that was sent is not as it should be.
    pub(crate) fn bad(code: &str, message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The body is larger than what is taken.
    pub(crate) fn too_large(most_bytes: u64) -> ApiError {
        let message = format!("the body is larger than the {most_bytes} bytes that are taken");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// The client is slow.
    pub(crate) fn too_slow() -> ApiError {
        let message = "the request did not come in time: send it again, without pauses";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// Something that is the server's fault, and stands in its log.
    pub(crate) fn internal(what: impl std::fmt::Display) -> ApiError {
        tracing::error!(error = %what, "a request failed");
        let message = "something went wrong in the server; its log says what";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The same, about a field or a parameter.
    pub(crate) fn about(self, param: &str) -> ApiError {
        ApiError { param: Some(param.to_owned()), ..self }
    }

    /// The same, with the time after which another try makes sense.
    pub(crate) fn retry_after(self, seconds: u32) -> ApiError {
        ApiError { retry_after_seconds: Some(seconds), ..self }
    }

    /// A file of the queue that cannot be written or read.
    pub(crate) fn of_files(error: &std::io::Error) -> ApiError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => StoreError::Full.into(),
            _ => ApiError::internal(error),
        }
    }
}

impl ApiError {
    /// Fields that are not as they should be, in words of ours: there is no path in them but those
    /// that the client has sent.
    pub(crate) fn of_fields(refusal: Refusal) -> ApiError {
        ApiError { param: refusal.param, ..ApiError::bad(&refusal.code, refusal.message) }
    }
}

impl Refusal {
    /// What the client may know of a refusal of his order.
    pub(crate) fn for_client(self, order: &Order) -> ApiError {
        let own = [&order.model, &order.lora, &order.preset].map(|it| it.as_deref().unwrap_or(""));
        let message = without_paths_but(&self.message, &own);
        ApiError { message, ..self.into() }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = without_paths(&refusal.message);
        if refusal.code == "disk_full" {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return ApiError::new(status, &refusal.code, message).retry_after(30);
        }
        ApiError { param: refusal.param, ..ApiError::bad(&refusal.code, message) }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "disk_full",
                "the server's disk is full, so nothing can be kept: make room there, then try again",
            )
            .retry_after(30),
            StoreError::QueueFull { .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", error).retry_after(30)
            }
            StoreError::KeyReused => {
                ApiError::new(StatusCode::CONFLICT, "idempotency_key_reused", error)
            }
            other => ApiError::internal(other),
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// The kind of an error, in OpenAI's words.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ApiError { status, code, param, message, retry_after_seconds } = self;
        let error = ErrorInfo { message, kind: kind(status), param, code };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
