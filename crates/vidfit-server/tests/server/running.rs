//! A server that runs while a test looks at it.

use crate::client::{Answer, send};
use crate::pretend::Pretend;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vidfit_server::{Config, ServeError, serve};

/// Where the worker finds its queue.
pub const WORKER: &str = "VIDFIT_PRETEND_WORKER";
/// Where the server that is to be killed finds it.
pub const SERVER: &str = "VIDFIT_PRETEND_SERVER";
/// The token of servers that want one.
pub const TOKEN: &str = "a token that nobody guesses";

/// A server on a free port.
pub struct Running {
    pub address: SocketAddr,
    pub folder: Arc<TempDir>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// What tests want of a server: everything is quick.
pub fn config(folder: &Path) -> Config {
    let mut config = Config::new(folder);
    config.address.set_port(0);
    config.crash_pause = Duration::from_millis(1);
    config.retry_pause = Duration::from_millis(20);
    config.max_retry_pause = Duration::from_millis(100);
    config.stop_timeout = Duration::from_secs(10);
    config
}

pub fn backend() -> Pretend {
    let program = std::env::current_exe().unwrap();
    Pretend {
        worker: Box::new(move |queue_dir| {
            let mut command = Command::new(&program);
            // The harness captures nothing of what is written past its macros.
            command.args(["pretend_worker", "--exact", "--nocapture"]).env(WORKER, queue_dir);
            command
        }),
    }
}

/// Starts a server.
pub fn start() -> Running {
    start_with(|_| {})
}

/// Starts a server with other settings.
pub fn start_with(change: impl FnOnce(&mut Config)) -> Running {
    start_in(Arc::new(TempDir::new().unwrap()), change)
}

/// Starts a server with a queue that may be there already.
pub fn start_in(folder: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(folder.path());
    change(&mut config);
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, address) = mpsc::channel();
    let flag = stop.clone();
    let thread =
        thread::spawn(move || serve(config, backend(), &flag, |it| ready.send(it).unwrap()));
    let Ok(address) = address.recv_timeout(Duration::from_secs(20)) else {
        panic!("{:?}", thread.join());
    };
    Running { address, folder, stop, thread: Some(thread) }
}

/// What [`Running::serve_until_killed`] runs in.
pub fn serve_until_killed(queue_dir: &Path) -> ! {
    let ready = |address: SocketAddr| {
        // Renamed, so that nobody reads half of it.
        std::fs::write(queue_dir.join("address.part"), address.to_string()).unwrap();
        std::fs::rename(queue_dir.join("address.part"), queue_dir.join("address")).unwrap();
    };
    serve(config(queue_dir), backend(), &AtomicBool::new(false), ready).unwrap();
    std::process::exit(0)
}

/// A server in a process of its own.
pub struct Killable {
    pub running: Running,
    child: Child,
}

impl Killable {
    pub fn start(folder: Arc<TempDir>) -> Killable {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["pretend_server", "--exact", "--nocapture"])
            .env(SERVER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let place = folder.path().join("address");
        wait_until("the server listens", || place.exists());
        let address = std::fs::read_to_string(place).unwrap().parse().unwrap();
        let stop = Arc::default();
        Killable { running: Running { address, folder, stop, thread: None }, child }
    }

    /// Ends it without a warning.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(self.running.folder.path().join("address")).unwrap();
    }
}

impl Running {
    pub fn get(&self, path: &str) -> Answer {
        send(self.address, "GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &[], body)
    }

    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        send(self.address, "POST", path, &all, body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Answer {
        send(self.address, "DELETE", path, &[], b"")
    }

    /// Orders a video, and gives its id.
    pub fn order(&self, prompt: &str) -> String {
        self.order_with(json!({ "prompt": prompt }))
    }

    pub fn order_with(&self, order: Value) -> String {
        let answer = self.post("/v1/videos", &order);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub fn video(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/videos/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until a video stands like this.
    pub fn wait(&self, id: &str, status: &str) -> Value {
        let mut last = Value::Null;
        wait_until(&format!("{id} is {status}"), || {
            last = self.video(id);
            let now = last["status"].as_str().unwrap();
            let over = ["completed", "failed", "cancelled"].contains(&now);
            assert!(now == status || !over, "{last}");
            now == status
        });
        last
    }

    /// Waits until a job has made so many steps.
    pub fn wait_for_step(&self, id: &str, step: u64) {
        wait_until("a step is made", || {
            self.video(id)["step"].as_u64().is_some_and(|it| it >= step)
        });
    }

    /// The steps that were made of a job, in order.
    pub fn steps(&self, id: &str) -> Vec<u64> {
        let text = std::fs::read_to_string(self.job(id).join("runs/steps")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    pub fn job(&self, id: &str) -> std::path::PathBuf {
        self.folder.path().join("jobs").join(id)
    }

    /// A number of `/metrics`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").text();
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|it| it.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Ends it as Ctrl-C does, and gives its folder.
    pub fn stop(mut self) -> Arc<TempDir> {
        self.end();
        self.folder.clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
