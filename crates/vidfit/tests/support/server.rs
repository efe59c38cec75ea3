//! A server: `vidfit serve`, asked over HTTP as clients ask it.

use super::command;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use ureq::Agent;

/// Nothing is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Server {
    pub child: Child,
    pub url: String,
    /// What requests say they know.
    pub token: Option<String>,
    said: Lines<BufReader<ChildStdout>>,
    agent: Agent,
}

/// What a request came to.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What a request that succeeds answers.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The error that it was answered with.
    pub fn error(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()["error"].clone()
    }
}

impl Server {
    /// Starts one on one thread, with its queue in `queue`.
    pub fn start(folder: &Path, more: &[&str]) -> Server {
        let words = ["serve", "--queue-dir", "queue", "--threads", "1"];
        let own = [("--device", "cpu"), ("--address", "127.0.0.1:0")];
        let own = own.iter().filter(|(flag, _)| !more.contains(flag));
        let own: Vec<&str> = own.flat_map(|(flag, value)| [*flag, *value]).collect();
        Server::of(command(folder, &[&words[..], &own, more].concat()))
    }

    /// Starts that of a command, and waits until it listens.
    pub fn of(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut errors = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let Some(Ok(line)) = said.next() else {
            panic!("it does not listen: {}", log.join().unwrap());
        };
        let url = line.split_once("http://").expect("where it listens").1;
        let url = format!("http://{}", url.replace("0.0.0.0", "127.0.0.1"));
        let config = Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(PATIENCE)).build().into();
        Server { child, url, token: None, said, agent }
    }

    /// The next line that it says.
    pub fn says(&mut self) -> String {
        self.said.next().unwrap().unwrap()
    }

    fn bearer(&self) -> Option<(&'static str, String)> {
        self.token.as_ref().map(|token| ("Authorization", format!("Bearer {token}")))
    }

    pub fn get(&self, path: &str) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some((name, value)) = self.bearer() {
            request = request.header(name, value);
        }
        answer(request.call().unwrap())
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(self.agent.delete(format!("{}{path}", self.url)).call().unwrap())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(path, "application/json", body.to_string().as_bytes())
    }

    /// Posts a form of fields and one file.
    pub fn post_file(&self, path: &str, fields: &[(&str, &str)], file: (&str, &[u8])) -> Answer {
        let mut body = Vec::new();
        let mut part = |about: String, contents: &[u8]| {
            let head = format!("--limit\r\nContent-Disposition: form-data; {about}\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(contents);
            body.extend_from_slice(b"\r\n");
        };
        fields.iter().for_each(|(name, value)| part(format!("name=\"{name}\""), value.as_bytes()));
        part(format!("name=\"{}\"; filename=\"a file\"", file.0), file.1);
        body.extend_from_slice(b"--limit--\r\n");
        self.send(path, "multipart/form-data; boundary=limit", &body)
    }

    pub fn send(&self, path: &str, kind: &str, body: &[u8]) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.url)).content_type(kind);
        if let Some((name, value)) = self.bearer() {
            request = request.header(name, value);
        }
        answer(request.send(body).unwrap())
    }

    /// Orders a ball that takes a second or two, with more fields; says what it is called.
    pub fn order(&self, more: &Value) -> String {
        let mut order = json!({ "prompt": "a red ball moving right", "model": "demo" });
        order["num_inference_steps"] = super::worker::STEPS.parse::<u32>().unwrap().into();
        for (name, value) in more.as_object().unwrap() {
            order[name] = value.clone();
        }
        let video = self.post("/v1/videos", &order).ok();
        video["id"].as_str().unwrap().to_owned()
    }

    pub fn video(&self, id: &str) -> Value {
        self.get(&format!("/v1/videos/{id}")).ok()
    }

    /// Asks for a video until it `is_it`.
    pub fn until(&self, id: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let video = self.video(id);
            if is_it(&video) {
                return video;
            }
            assert!(video["status"] != "failed" && began.elapsed() < PATIENCE, "{video}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn completed(&self, id: &str) -> Value {
        self.until(id, |video| video["status"] == "completed")
    }

    /// Waits until so many steps of a video are done.
    pub fn until_step(&self, id: &str, steps: u64) {
        self.until(id, |video| {
            assert!(video["status"] != "completed", "it ended before step {steps}");
            video["step"].as_u64().is_some_and(|step| step >= steps) && video["phase"] == "denoise"
        });
    }

    pub fn content(&self, id: &str) -> Vec<u8> {
        let answer = self.get(&format!("/v1/videos/{id}/content"));
        assert_eq!(answer.status, 200);
        answer.body
    }

    /// The events of a path, as long as there are any: their names and data.
    pub fn events(&self, path: &str) -> impl Iterator<Item = (String, Value)> + use<> {
        let config = Agent::config_builder().timeout_global(Some(PATIENCE)).build();
        let response = Agent::from(config).get(format!("{}{path}", self.url)).call().unwrap();
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        let mut name = String::new();
        lines.map_while(Result::ok).filter_map(move |line| {
            if let Some(event) = line.strip_prefix("event:") {
                name = event.trim().to_owned();
            }
            let data = line.strip_prefix("data:")?;
            Some((name.clone(), serde_json::from_str(data.trim()).unwrap()))
        })
    }

    /// Kills it, as nothing can be done about.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec().unwrap();
    Answer { status, headers, body }
}
