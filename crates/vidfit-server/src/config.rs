//! How a server is to be run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a server is to be run.
#[derive(Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The folder of the queue and of the videos.
    pub queue_dir: PathBuf,
    /// What clients must know. Needed where others than this machine can connect.
    pub token: Option<String>,
    /// Names, beside loopback's, that a request's `Host` may have: those of a proxy in front.
    pub allowed_hosts: Vec<String>,
    /// Origins of other pages that may use the API, such as `https://example.com`.
    pub cors_origins: Vec<String>,
    /// Most jobs that wait.
    pub queue_limit: usize,
    /// Most bytes of a request's body.
    pub max_body_bytes: u64,
    /// Most characters of a prompt.
    pub max_prompt_chars: usize,
    /// Most bytes of the database, or as many as the disk has.
    pub max_database_bytes: Option<u64>,
    /// Most connections at a time; more are told to come again.
    pub max_connections: usize,
    /// Most of them that wait for events.
    pub max_event_streams: usize,
    /// Time for a request's headers, and between two requests.
    pub header_timeout: Duration,
    /// Time between two pieces of a request's body, and between two that a client takes of an answer.
    pub stall_timeout: Duration,
    /// Time for a whole request, with its body; the answer may take longer.
    pub request_timeout: Duration,
    /// How long a worker without a job is kept, with the weights that it keeps warm.
    pub idle_unload: Duration,
    /// How often a job goes on after its worker ended under it, before it fails.
    pub max_crashes: u32,
    /// Time before a crashed job goes on, times the crashes so far.
    pub crash_pause: Duration,
    /// Time before a job is tried again that the machine could not make; it doubles with every try.
    pub retry_pause: Duration,
    /// The longest such time.
    pub max_retry_pause: Duration,
    /// Time that a worker gets to save its step and end, when it is asked to.
    pub stop_timeout: Duration,
}

impl Config {
    /// A server for this machine alone, on port 8080, with its queue in `queue_dir`.
    pub fn new(queue_dir: impl Into<PathBuf>) -> Config {
        Config {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            queue_dir: queue_dir.into(),
            token: None,
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            queue_limit: 100,
            max_body_bytes: 512 << 20,
            max_prompt_chars: 8192,
            max_database_bytes: None,
            max_connections: 256,
            max_event_streams: 64,
            header_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(300),
            idle_unload: Duration::ZERO,
            max_crashes: 3,
            crash_pause: Duration::from_secs(2),
            retry_pause: Duration::from_secs(5),
            max_retry_pause: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(60),
        }
    }
}
