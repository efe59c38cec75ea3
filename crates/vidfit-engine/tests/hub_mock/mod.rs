//! A hub on 127.0.0.1 that can be told to fail in every way a network can.

// Each test file uses its own part of this.
#![allow(dead_code)]
// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use vidfit_engine::hub::{HubConfig, HubError, PullEvent, pull};

pub const ID: &str = "zai-org/CogVideoX-2b";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: HashMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is_for(&self, file: &str) -> bool {
        self.path.contains("/resolve/") && self.path.ends_with(file)
    }
}

#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// Fall silent there instead of closing.
    pub stall: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut_after: None, stall: false }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn cut_after(self, bytes: usize) -> Self {
        Self { cut_after: Some(bytes), ..self }
    }

    pub fn stall_after(self, bytes: usize) -> Self {
        Self { stall: true, ..self.cut_after(bytes) }
    }
}

/// Answers each connection's one request; `nth` counts the requests for the same path from 0.
pub struct Server {
    pub url: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || {
                    let _ = serve(stream.unwrap(), &seen, &*answer);
                });
            }
        });
        Self { url, requests }
    }

    /// How many requests asked for contents or headers of files.
    pub fn file_requests(&self) -> usize {
        self.requests.lock().unwrap().iter().filter(|r| r.path.contains("/resolve/")).count()
    }

    /// The `Range` headers of the requests for a file, in order.
    pub fn ranges(&self, file: &str) -> Vec<Option<String>> {
        let requests = self.requests.lock().unwrap();
        let of_file = requests.iter().filter(|request| request.is_for(file));
        of_file.map(|request| request.header("range").map(str::to_owned)).collect()
    }

    pub fn config(&self, cache: &Path) -> HubConfig {
        let mut config = HubConfig::new(cache, &self.url);
        config.first_backoff = Duration::from_millis(1);
        config.stall_timeout = Duration::from_secs(10);
        config
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { method, path, headers };
    let nth = seen.lock().unwrap().iter().filter(|earlier| earlier.path == request.path).count();
    let reply = answer(&request, nth);
    let is_head = request.method == "HEAD";
    seen.lock().unwrap().push(request);

    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if !is_head {
        let end = reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len());
        stream.write_all(&reply.body[..end])?;
        if reply.stall {
            thread::sleep(Duration::from_secs(20));
        }
    }
    Ok(())
}

/// A repository and how the hub answers for it when nothing fails.
pub struct Repo {
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Whether the list of files says their sizes and checksums.
    pub describes_blobs: bool,
}

impl Repo {
    /// A small pipeline with 300 kB of weights, and things nobody needs.
    pub fn pipeline() -> Self {
        let index = br#"{"_class_name":"CogVideoXPipeline","transformer":["diffusers","T"],"vae":["diffusers","V"]}"#;
        Self {
            files: vec![
                ("README.md", b"read me".to_vec()),
                ("model_index.json", index.to_vec()),
                ("onnx/model.json", b"{}".to_vec()),
                ("transformer/config.json", br#"{"num_layers":30}"#.to_vec()),
                (WEIGHTS, noise(300_000)),
                ("transformer/diffusion_pytorch_model.bin", noise(10)),
                ("vae/config.json", br#"{"latent_channels":16}"#.to_vec()),
                ("vae/diffusion_pytorch_model.safetensors", noise(70_000)),
            ],
            describes_blobs: true,
        }
    }

    pub fn content(&self, file: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| *name == file).unwrap().1
    }

    /// As on the hub: large files by SHA-256, the others as git names them.
    pub fn etag(&self, file: &str) -> String {
        let content = self.content(file);
        if is_large(file) { sha256(content) } else { git_sha1(content) }
    }

    pub fn reply(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap();
        if path.starts_with("/api/models/") {
            return Reply::new(200, self.listing());
        }
        let file = path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, file)| file);
        let Some((name, content)) = self.files.iter().find(|(name, _)| Some(*name) == file) else {
            return Reply::new(404, "").with("X-Error-Code", "EntryNotFound");
        };
        let etag = format!("\"{}\"", self.etag(name));
        let header = if is_large(name) { "X-Linked-ETag" } else { "ETag" };
        let start = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let reply = match start {
            None => Reply::new(200, content.clone()),
            Some(start) => {
                let total = content.len();
                Reply::new(206, &content[start..])
                    .with("Content-Range", format!("bytes {start}-{}/{total}", total - 1))
            }
        };
        reply.with(header, etag).with("X-Repo-Commit", COMMIT)
    }

    fn listing(&self) -> String {
        let files: Vec<String> = self
            .files
            .iter()
            .map(|(name, content)| {
                let size = content.len();
                if !self.describes_blobs {
                    format!(r#"{{"rfilename":"{name}"}}"#)
                } else if is_large(name) {
                    format!(
                        r#"{{"rfilename":"{name}","size":{size},"blobId":"{}","lfs":{{"sha256":"{}","size":{size},"pointerSize":134}}}}"#,
                        git_sha1(b"pointer"),
                        sha256(content),
                    )
                } else {
                    format!(
                        r#"{{"rfilename":"{name}","size":{size},"blobId":"{}"}}"#,
                        git_sha1(content)
                    )
                }
            })
            .collect();
        format!(r#"{{"id":"x","sha":"{COMMIT}","siblings":[{}]}}"#, files.join(","))
    }
}

/// A hub for the pipeline whose answers for its weights are changed.
pub fn server_with(
    change: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let repo = Repo::pipeline();
    Server::start(move |request, nth| {
        let reply = repo.reply(request);
        if request.is_for(WEIGHTS) { change(request, nth, reply) } else { reply }
    })
}

/// A hub that gives the same answer to everything.
pub fn server_of(reply: Reply) -> Server {
    Server::start(move |_, _| reply.clone())
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
}

/// The same bytes for the same length, and no two places alike.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64 + 1;
    let step = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..bytes).map(step).collect()
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn git_sha1(content: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", content.len()));
    sha1.update(content);
    sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pull that nobody watches or cancels.
pub fn pull_quietly(config: &HubConfig) -> Result<std::path::PathBuf, HubError> {
    pull(ID, config, &mut |_| {}, &AtomicBool::new(false))
}

/// A pull with what it told.
pub fn pull_watched(config: &HubConfig) -> (Result<std::path::PathBuf, HubError>, Vec<PullEvent>) {
    let mut events = Vec::new();
    let outcome = pull(ID, config, &mut |event| events.push(event), &AtomicBool::new(false));
    (outcome, events)
}

/// Asserts that a snapshot holds what the repository does, of the files a pipeline needs.
pub fn assert_complete(repo: &Repo, snapshot: &Path) {
    for (name, content) in &repo.files {
        let wanted = *name == "model_index.json"
            || (name.contains('/') && !name.starts_with("onnx") && !name.ends_with(".bin"));
        let found = std::fs::read(snapshot.join(name)).ok();
        assert_eq!(found.as_deref(), wanted.then_some(content.as_slice()), "{name}");
    }
}
