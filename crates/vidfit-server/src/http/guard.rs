//! What every request passes before anything of its body is read, and what every answer gets.

use super::answer::{Http, State};
use super::error::ApiError;
use super::session::{is_authorized, unauthorized};
use crate::config::Config;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::time::Instant;

/// Lets a request through if it may: host, origin, token, in this order.
pub(crate) async fn admit(state: State, request: Request, next: Next) -> Response {
    match check(&state, &request) {
        Ok(()) => {
            let limit = state.shared().config.request_timeout;
            match tokio::time::timeout(limit, next.run(request)).await {
                Ok(response) => response,
                Err(_) => ApiError::too_slow().into_response(),
            }
        }
        Err(error) => error.into_response(),
    }
}

fn check(state: &Http, request: &Request) -> Result<(), ApiError> {
    let shared = state.shared();
    let config = &shared.config;
    let (headers, path) = (request.headers(), request.uri().path());
    let host = host(headers, request.uri());
    check_host(config, host.as_deref())?;
    check_origin(
        config,
        headers,
        host.as_deref(),
        is_open(path) && request.method() == Method::GET,
    )?;
    match &config.token {
        Some(token) if !is_open(path) && !is_authorized(headers, token, &state.sessions) => {
            Err(unauthorized())
        }
        _ => Ok(()),
    }
}

/// What may be asked for without a token, and come to by a link.
fn is_open(path: &str) -> bool {
    !(path == "/v1" || path.starts_with("/v1/") || path == "/metrics")
}

fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let host = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    Some(host.to_ascii_lowercase())
}

/// A page of another name that leads here (DNS rebinding) would be of the same origin as ours.
fn check_host(config: &Config, host: Option<&str>) -> Result<(), ApiError> {
    let refused = || {
        let message = "this server does not go by that name: use localhost, or start it with \
                       --allow-host and the name";
        Err(ApiError::new(StatusCode::FORBIDDEN, "host_not_allowed", message))
    };
    let Some(host) = host else { return refused() };
    let name = without_port(host);
    let allowed = |it: &String| it.eq_ignore_ascii_case(name) || it.eq_ignore_ascii_case(host);
    if config.allowed_hosts.iter().any(allowed) || is_loopback(name) {
        return Ok(());
    }
    if config.address.ip().is_loopback() || !config.allowed_hosts.is_empty() {
        return refused();
    }
    // Everyone may come, by whatever name, for everyone has to show the token.
    Ok(())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Other pages may not use the browser of someone who may use this server.
fn check_origin(
    config: &Config,
    headers: &HeaderMap,
    host: Option<&str>,
    open: bool,
) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or("?"));
    let ours = |origin: &str| {
        let name = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        name.is_some_and(|name| Some(name.to_ascii_lowercase().as_str()) == host)
            || config.cors_origins.iter().any(|allowed| allowed == origin)
    };
    let refused = || {
        let message = "a page of another origin may not use this server; --cors-origin allows one";
        Err(ApiError::new(StatusCode::FORBIDDEN, "cross_site", message))
    };
    match (text("origin"), text("sec-fetch-site")) {
        (Some(origin), _) if ours(origin) => Ok(()),
        (Some(_), _) => refused(),
        (None, None | Some("same-origin" | "none")) => Ok(()),
        // A link from elsewhere leads to the page, and to nothing behind it.
        (None, Some(_)) if open && text("sec-fetch-mode") == Some("navigate") => Ok(()),
        (None, Some(_)) => refused(),
    }
}

/// Counts and logs an answer, and tells browsers to be careful with it.
pub(crate) async fn finish(state: State, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    state.shared().metrics.answered(status);
    // The path alone: what follows it may be private.
    let bytes = response.body().size_hint().exact();
    let ms = began.elapsed().as_secs_f64() * 1e3;
    tracing::debug!(target: "vidfit_server::access", %method, path, status, ms, bytes, "answered");
    let headers = response.headers_mut();
    let csp = if path.starts_with("/docs") { DOCS_CSP } else { CSP };
    for (name, value) in [
        ("content-security-policy", csp),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The page takes nothing from elsewhere, and is shown in no other.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                   media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; \
                   base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Swagger's page has styles within its elements.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                        img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; \
                        form-action 'self'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: &str) -> Config {
        Config { address: address.parse().unwrap(), ..Config::new("/nowhere") }
    }

    #[test]
    fn loopback_goes_by_loopbacks_names_alone() {
        let config = config("127.0.0.1:80");
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:80", "a.localhost"]
        {
            assert!(check_host(&config, Some(host)).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "",
            "[::2]",
            "10.0.0.1",
        ] {
            assert!(check_host(&config, Some(host)).is_err(), "{host}");
        }
        assert!(check_host(&config, None).is_err());
        let named = Config { allowed_hosts: vec!["video.example".into()], ..config };
        assert!(check_host(&named, Some("video.example:443")).is_ok());
        assert!(check_host(&named, Some("evil.example")).is_err());
        let open = super::tests::config("0.0.0.0:80");
        assert!(check_host(&open, Some("10.0.0.1")).is_ok());
    }

    #[test]
    fn other_origins_are_refused() {
        let config =
            Config { cors_origins: vec!["https://b.example".into()], ..config("127.0.0.1:80") };
        let check = |open, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            });
            check_origin(&config, &headers.collect(), Some("localhost:80"), open).is_ok()
        };
        let cross = ("sec-fetch-site", "cross-site");
        assert!(check(false, &[]));
        assert!(check(
            false,
            &[("origin", "http://localhost:80"), ("sec-fetch-site", "same-origin")]
        ));
        assert!(check(false, &[("sec-fetch-site", "none")]));
        assert!(check(false, &[("origin", "https://b.example"), cross]));
        assert!(check(true, &[cross, ("sec-fetch-mode", "navigate")]));
        assert!(!check(false, &[cross, ("sec-fetch-mode", "navigate")]));
        assert!(!check(true, &[cross, ("sec-fetch-mode", "no-cors")]));
        assert!(!check(false, &[("sec-fetch-site", "same-site")]));
        for origin in [
            "null",
            "http://localhost:81",
            "http://evil.example",
            "http://localhost:80.evil.example",
        ] {
            assert!(!check(false, &[("origin", origin)]), "{origin}");
        }
    }
}
