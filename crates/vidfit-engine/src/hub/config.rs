//! Where the cache is and how the hub is reached.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the cache is and how the hub is reached.
///
/// [`from_env`](Self::from_env) reads the variables that Python's `huggingface_hub` reads;
/// [`new`](Self::new) takes nothing from the surroundings.
#[derive(Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The folder that holds `models--owner--name` folders.
    pub cache_dir: PathBuf,
    /// The access token, needed for gated and private models.
    pub token: Option<String>,
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// Whether the network must not be touched.
    pub offline: bool,
    /// Whether to honour `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub proxy_from_env: bool,
    /// Certificates (PEM) to trust instead of the built-in ones, as a company's proxy needs.
    pub ca_bundle: Option<PathBuf>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a connection may be silent before it counts as cut.
    pub stall_timeout: Duration,
    /// How many failures in a row, without a single byte gained between them, end a download.
    pub max_failures: u32,
    /// The wait after the first failure; each further one doubles it, up to 30 s.
    pub first_backoff: Duration,
    /// The longest wait that a server's `Retry-After` is given.
    pub retry_after_cap: Duration,
}

impl HubConfig {
    /// A configuration that depends on nothing but its arguments: no token, no proxy, online.
    pub fn new(cache_dir: impl Into<PathBuf>, endpoint: impl Into<String>) -> Self {
        let endpoint: String = endpoint.into();
        Self {
            cache_dir: cache_dir.into(),
            token: None,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            offline: false,
            proxy_from_env: false,
            ca_bundle: None,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
            max_failures: 6,
            first_backoff: Duration::from_secs(1),
            retry_after_cap: Duration::from_secs(120),
        }
    }

    /// The configuration that the environment asks for.
    ///
    /// - cache: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `$HF_HOME/hub`; `HF_HOME` is
    ///   `$XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` if not set
    /// - token: `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH` or
    ///   `$HF_HOME/token`
    /// - `HF_ENDPOINT`, or the public hub
    /// - `HF_HUB_OFFLINE`: `1`, `true`, `yes` or `on`
    /// - certificates: `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`
    ///
    /// A variable that is set but empty counts as not set.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let mut config = Self::from_variables(&variable, std::env::home_dir().as_deref());
        config.proxy_from_env = true;
        config
    }

    /// As [`from_env`](Self::from_env), with the variables looked up by `variable` and no proxy.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Self {
        let text = |name: &str| {
            variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let path = |name: &str| text(name).map(|value| expand_home(&value, home));
        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            let cache_home = path("XDG_CACHE_HOME")
                .unwrap_or_else(|| home.unwrap_or(Path::new(".")).join(".cache"));
            cache_home.join("huggingface")
        });
        let cache_dir = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| hf_home.join("hub"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| fs::read_to_string(token_file).ok().map(|token| token.trim().to_owned()))
            .filter(|token| !token.is_empty());
        let offline = text("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
        });
        let ca_bundle = path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE"));
        Self { token, offline, ca_bundle, ..Self::new(cache_dir, endpoint) }
    }
}

/// `~` and `~/...` as a shell would expand them.
fn expand_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with(['/', std::path::MAIN_SEPARATOR]) => {
            home.join(&rest[1..])
        }
        _ => PathBuf::from(path),
    }
}

/// Shows everything but the token.
impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("endpoint", &self.endpoint)
            .field("offline", &self.offline)
            .field("proxy_from_env", &self.proxy_from_env)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        HubConfig::from_variables(&variable, Some(Path::new("/home/ann")))
    }

    #[test]
    fn the_cache_is_where_python_looks_for_it() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "/home/ann/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/h/hub"),
            (&[("HF_HOME", "~/hf")], "/home/ann/hf/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/new"),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", "/h")], "/h/hub"),
        ];
        for (variables, expected) in cases {
            assert_eq!(config(variables).cache_dir, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn offline_is_what_python_takes_for_true() {
        for yes in ["1", "true", "TRUE", "Yes", "on"] {
            assert!(config(&[("HF_HUB_OFFLINE", yes)]).offline, "{yes}");
        }
        for no in ["", "0", "false", "no", "off"] {
            assert!(!config(&[("HF_HUB_OFFLINE", no)]).offline, "{no}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "from-file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(config(&[("HF_HOME", home)]).token.as_deref(), Some("from-file"));
        let both = config(&[("HF_HOME", home), ("HF_TOKEN", " from-variable ")]);
        assert_eq!(both.token.as_deref(), Some("from-variable"));
        assert!(!format!("{both:?}").contains("from-variable"));
        assert_eq!(config(&[("HF_HOME", "/nowhere")]).token, None);
    }

    #[test]
    fn the_endpoint_has_no_slash_at_the_end() {
        assert_eq!(config(&[]).endpoint, DEFAULT_ENDPOINT);
        assert_eq!(config(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }
}
