//! Requests to the hub: redirects, credentials, timeouts, and what a status means.

use std::fs;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::retry::Failure;
use super::{HubConfig, HubError, ModelId};

const MAX_REDIRECTS: usize = 10;

/// What was asked for, to say what its absence means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Listing,
    File,
}

/// Asks the hub about one model.
pub(super) struct Client<'a> {
    agent: Agent,
    config: &'a HubConfig,
    id: &'a ModelId,
}

/// A successful answer, after redirects.
pub(super) struct Answer {
    pub response: Response<Body>,
    /// `X-Linked-ETag` or `ETag`: of the file itself, not of what a redirect led to.
    pub etag: Option<String>,
    /// `X-Linked-Size` or, of an answer without redirect, `Content-Length`.
    pub file_bytes: Option<u64>,
}

impl<'a> Client<'a> {
    pub fn new(config: &'a HubConfig, id: &'a ModelId) -> Result<Self, HubError> {
        if origin_of(&config.endpoint).is_none() {
            return Err(HubError::BadConfig {
                reason: format!(
                    "HF_ENDPOINT is `{}`, which is not an http:// or https:// address",
                    config.endpoint
                ),
            });
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.ca_bundle {
            tls = tls.root_certs(read_certificates(path)?);
        }
        let proxy = if config.proxy_from_env { Proxy::try_from_env() } else { None };
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(proxy)
            .user_agent(concat!("vidfit/", env!("CARGO_PKG_VERSION")))
            // Compressed answers would have other lengths than the files.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_recv_response(Some(config.stall_timeout))
            .timeout_per_read(Some(config.stall_timeout))
            .timeout_per_write(Some(config.stall_timeout))
            .build()
            .new_agent();
        Ok(Self { agent, config, id })
    }

    /// A call that makes every request under way fail at once.
    pub fn interrupter(&self) -> impl FnOnce() + Send + 'static {
        let agent = self.agent.clone();
        move || agent.shutdown()
    }

    /// The address of a file of a commit.
    pub fn file_url(&self, commit: &str, file: &str) -> String {
        let endpoint = &self.config.endpoint;
        format!("{endpoint}/{}/resolve/{commit}/{}", self.id.repo(), encode(file, "/"))
    }

    /// The address of a revision's list of files.
    pub fn listing_url(&self) -> String {
        let endpoint = &self.config.endpoint;
        let revision = encode(self.id.revision(), "");
        format!("{endpoint}/api/models/{}/revision/{revision}?blobs=true", self.id.repo())
    }

    /// GET, from a byte on if it is not 0. The answer may be 200, 206 or 416.
    pub fn get(&self, url: &str, asked: Asked, from_byte: u64) -> Result<Answer, Failure> {
        self.follow(url, asked, false, |url, token| {
            let mut request = self.agent.get(url);
            if let Some(token) = token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if from_byte > 0 {
                request = request.header("Range", format!("bytes={from_byte}-"));
            }
            request.call()
        })
    }

    /// HEAD: what the hub's headers say of a file, wherever its contents are stored.
    pub fn head(&self, url: &str) -> Result<Answer, Failure> {
        self.follow(url, Asked::File, true, |url, token| {
            let mut request = self.agent.head(url);
            if let Some(token) = token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            request.call()
        })
    }

    /// Follows redirects by hand: the token must not reach another host, and the hub's own answer
    /// names the file's checksum, not that of the storage it redirects to.
    fn follow(
        &self,
        url: &str,
        asked: Asked,
        only_headers: bool,
        send: impl Fn(&str, Option<&str>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, Failure> {
        let home = origin_of(url);
        let mut at = url.to_owned();
        let mut etag = None;
        let mut file_bytes = None;
        for _ in 0..=MAX_REDIRECTS {
            let is_home = origin_of(&at) == home;
            let token = self.config.token.as_deref().filter(|_| is_home);
            let response = send(&at, token).map_err(|error| failure_of(&at, &error))?;
            let headers = response.headers();
            etag = header(headers, "x-linked-etag").map(normal_etag).or(etag);
            file_bytes = number(headers, "x-linked-size").or(file_bytes);
            if response.status().is_redirection() {
                // Signed addresses of contents may be good for GET alone.
                if only_headers && etag.is_some() {
                    return Ok(Answer { response, etag, file_bytes });
                }
                let next = header(headers, "location").and_then(|target| join(&at, target));
                let downgrade = |next: &str| at.starts_with("https:") && next.starts_with("http:");
                match next {
                    Some(next) if !downgrade(&next) => at = next,
                    _ => return Err(bad_answer(&at, "it redirects to nowhere safe".to_owned())),
                }
                continue;
            }
            self.check_status(&at, asked, is_home, &response)?;
            let etag = etag.or_else(|| header(headers, "etag").map(normal_etag));
            let file_bytes = file_bytes.or_else(|| number(headers, "content-length"));
            return Ok(Answer { response, etag, file_bytes });
        }
        Err(bad_answer(url, format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    fn check_status(
        &self,
        url: &str,
        asked: Asked,
        is_home: bool,
        response: &Response<Body>,
    ) -> Result<(), Failure> {
        let headers = response.headers();
        let error_code = header(headers, "x-error-code").unwrap_or("");
        let endpoint = self.config.endpoint.clone();
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(()),
            // The hub says so of models that do not exist to whoever is not logged in.
            401 | 403 | 404 if error_code == "RepoNotFound" => Err(self.no_such_model().into()),
            401 | 403 if is_home => Err(Failure::Final(HubError::NoAccess {
                id: self.id.to_string(),
                endpoint,
                token_sent: self.config.token.is_some(),
            })),
            // Signed addresses expire; asking the hub again gives a fresh one.
            status @ (401 | 403) => Err(passing(url, format!("status {status}"), None)),
            404 if error_code == "RevisionNotFound" => {
                Err(Failure::Final(HubError::NoSuchRevision {
                    id: self.id.repo(),
                    revision: self.id.revision().to_owned(),
                }))
            }
            404 if asked == Asked::Listing => Err(self.no_such_model().into()),
            status @ (408 | 425 | 429 | 500..=599) => {
                let wait = number(headers, "retry-after").map(Duration::from_secs);
                Err(passing(url, format!("the server answers with status {status}"), wait))
            }
            status => Err(bad_answer(url, format!("status {status}"))),
        }
    }

    fn no_such_model(&self) -> HubError {
        HubError::NoSuchModel {
            id: self.id.repo(),
            endpoint: self.config.endpoint.clone(),
            suggestion: self.id.suggestion(),
        }
    }
}

/// Fails where trying again may help.
pub(super) fn passing(url: &str, reason: String, retry_after: Option<Duration>) -> Failure {
    // What stands behind the question mark may be a signature.
    let url = url.split('?').next().unwrap_or(url).to_owned();
    Failure::Passing { url, reason, retry_after }
}

/// Fails where the server talks nonsense.
pub(super) fn bad_answer(url: &str, reason: String) -> Failure {
    let url = url.split('?').next().unwrap_or(url).to_owned();
    Failure::Final(HubError::BadAnswer { url, reason })
}

fn failure_of(url: &str, error: &ureq::Error) -> Failure {
    let reason = error.to_string();
    match error {
        ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl | ureq::Error::Http(_) => {
            Failure::Final(HubError::BadConfig {
                reason: format!("{reason}; check HF_ENDPOINT, HF_TOKEN and the proxy variables"),
            })
        }
        _ if reason.contains("certificate") => Failure::Final(HubError::BadConfig {
            reason: format!(
                "{reason}. If your network has certificates of its own, set SSL_CERT_FILE to the \
                 PEM file that holds them"
            ),
        }),
        _ => passing(url, reason, None),
    }
}

fn read_certificates(path: &std::path::Path) -> Result<RootCerts, HubError> {
    let pem = fs::read(path).map_err(HubError::io("read", path))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(HubError::BadConfig {
            reason: format!("SSL_CERT_FILE holds no certificate: {}", path.display()),
        });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header(headers, name)?.parse().ok()
}

/// Without the mark of a weak tag and without quotes, as Python names blobs.
fn normal_etag(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Scheme, host and port; `None` for what is not an http(s) address.
fn origin_of(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let authority = uri.authority()?.as_str().to_ascii_lowercase();
    matches!(scheme.as_str(), "http" | "https").then_some((scheme, authority))
}

/// Where a redirect from `base` leads.
fn join(base: &str, target: &str) -> Option<String> {
    if target.contains("://") {
        return origin_of(target).map(|_| target.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(elsewhere) = target.strip_prefix("//") {
        return Some(format!("{scheme}://{elsewhere}"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if target.starts_with('/') {
        return Some(format!("{scheme}://{authority}{target}"));
    }
    let path = path.split('?').next().unwrap_or(path);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let slash = if folder.is_empty() { "" } else { "/" };
    Some(format!("{scheme}://{authority}/{folder}{slash}{target}"))
}

/// Percent-encodes all but letters, digits, `-._~` and `keep`.
fn encode(text: &str, keep: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let c = byte as char;
        if byte.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let base = "https://hub/a/b/c?d=/e";
        for (target, expected) in [
            ("https://other:1/x?y", Some("https://other:1/x?y")),
            ("//other/x", Some("https://other/x")),
            ("/x/y", Some("https://hub/x/y")),
            ("x", Some("https://hub/a/b/x")),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(join(base, target).as_deref(), expected, "{target}");
        }
        assert_eq!(join("https://hub", "x").as_deref(), Some("https://hub/x"));
    }

    #[test]
    fn ports_and_schemes_tell_origins_apart() {
        assert_eq!(origin_of("http://HUB:1/a"), origin_of("http://hub:1/b?c"));
        assert_ne!(origin_of("http://hub:1/"), origin_of("http://hub:2/"));
        assert_ne!(origin_of("http://hub/"), origin_of("https://hub/"));
        assert_eq!(origin_of("ftp://hub/"), None);
        assert_eq!(origin_of("hub"), None);
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("vae/a b?#%ä.json", "/"), "vae/a%20b%3F%23%25%C3%A4.json");
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(normal_etag("W/\"abc\""), "abc");
    }
}
