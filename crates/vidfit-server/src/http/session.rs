//! Tokens, and the sessions of browsers that have shown one.

use super::answer::State;
use super::body::{Incoming, content_type};
use super::error::{ApiError, ErrorBody};
use super::receive::hex;
use crate::state::lock;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use utoipa::ToSchema;

/// The cookie's name.
const COOKIE: &str = "vidfit_session";
/// How long a session lasts.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most sessions at a time; the oldest goes first.
const MOST_SESSIONS: usize = 1000;
/// Most bytes of the body of `POST /session`.
const MAX_BODY_BYTES: u64 = 4096;

/// The browsers that have shown a token.
pub(crate) struct Sessions {
    /// The digest of each one's secret, with the end of its time.
    known: Mutex<VecDeque<([u8; 32], Instant)>>,
    /// Told whenever one ends.
    ended: watch::Sender<()>,
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions { known: Mutex::default(), ended: watch::channel(()).0 }
    }
}

impl Sessions {
    /// Begins a session, and gives its secret.
    fn begin(&self) -> Result<String, ApiError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(ApiError::internal)?;
        let secret = hex(&random);
        let mut known = lock(&self.known);
        known.retain(|(_, end)| *end > Instant::now());
        if known.len() >= MOST_SESSIONS {
            known.pop_front();
        }
        known.push_back((digest(&secret), Instant::now() + LIFETIME));
        Ok(secret)
    }

    /// What changes whenever a session ends.
    pub(crate) fn leaving(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Whether there is a session of this secret.
    pub(crate) fn is_known(&self, secret: &str) -> bool {
        let secret = digest(secret);
        let now = Instant::now();
        lock(&self.known).iter().any(|(known, end)| *end > now && bool::from(known.ct_eq(&secret)))
    }

    fn end(&self, secret: &str) {
        let secret = digest(secret);
        lock(&self.known).retain(|(known, _)| !bool::from(known.ct_eq(&secret)));
        self.ended.send_replace(());
    }
}

/// Texts of any length become comparable in a time that says nothing about either.
fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn same(a: &str, b: &str) -> bool {
    digest(a).ct_eq(&digest(b)).into()
}

/// Whether a request shows the token, or the cookie of a session.
pub(crate) fn is_authorized(headers: &HeaderMap, token: &str, sessions: &Sessions) -> bool {
    match bearer(headers) {
        Some(given) => same(given, token),
        None => cookie(headers).is_some_and(|secret| sessions.is_known(secret)),
    }
}

/// The secret of the session that a request is of, if it shows no token itself.
pub(crate) fn session_of(headers: &HeaderMap) -> Option<&str> {
    if bearer(headers).is_some() { None } else { cookie(headers) }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    cookies.flat_map(|it| it.split(';')).find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

/// What begins a session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionRequest {
    /// The server's token.
    token: String,
}

/// Whether there is a session now.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionState {
    authenticated: bool,
}

/// Begins a session: a cookie that stands for the token in this browser.
#[utoipa::path(
    post,
    path = "/session",
    tag = "session",
    security(()),
    request_body(content = SessionRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The cookie is set", body = SessionState),
        (status = 400, description = "The body is not as it should be", body = ErrorBody),
        (status = 401, description = "The token is wrong", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is not JSON", body = ErrorBody),
    )
)]
pub(crate) async fn begin(
    state: State,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if content_type(&headers).0 != "application/json" {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "unsupported_media_type", "send application/json"));
    }
    let shared = state.shared();
    let body = Incoming::new(&headers, body, MAX_BODY_BYTES, shared.config.stall_timeout)?;
    let request: SessionRequest =
        serde_json::from_slice(&body.collect().await?).map_err(|error| {
            ApiError::bad("invalid_json", format!("{{\"token\": …}} is wanted: {error}"))
        })?;
    let token = shared.config.token.as_deref();
    if token.is_some_and(|token| !same(token, &request.token)) {
        tracing::warn!("a wrong token was given for a session");
        // Whoever guesses is to take his time.
        tokio::time::sleep(Duration::from_millis(300)).await;
        return Err(unauthorized());
    }
    let secret = state.sessions.begin()?;
    let age = LIFETIME.as_secs();
    Ok(with_cookie(&headers, &format!("{COOKIE}={secret}; Max-Age={age}"), true))
}

/// Ends the session.
#[utoipa::path(delete, path = "/session", tag = "session", security(()),
    responses((status = 200, description = "The cookie is gone", body = SessionState)))]
pub(crate) async fn end(state: State, headers: HeaderMap) -> Response {
    if let Some(secret) = cookie(&headers) {
        state.sessions.end(secret);
    }
    with_cookie(&headers, &format!("{COOKIE}=; Max-Age=0"), false)
}

fn with_cookie(headers: &HeaderMap, cookie: &str, authenticated: bool) -> Response {
    let origin = headers.get(header::ORIGIN).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let secure = if origin.starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!("{cookie}; Path=/; HttpOnly; SameSite=Strict{secure}");
    let mut response = axum::Json(SessionState { authenticated }).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The token is missing, or wrong.
pub(crate) fn unauthorized() -> ApiError {
    let message = "this server wants its token: send it as \"Authorization: Bearer TOKEN\"";
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
}
