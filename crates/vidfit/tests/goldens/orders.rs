//! Orders over HTTP: the lines of `cases/orders.txt`, sent to one server one after another.
//!
//! - `GET PATH`, `DELETE PATH` and `POST PATH JSON` are answered;
//! - `FORM PATH name=value name=@FILE` is posted as a form;
//! - `MAKE JSON` and `MAKE name=value …` order a video, and wait until it is made;
//! - `BEGIN` is the same, but the video is cancelled once its run has begun, which tells what the worker
//!   was asked for.

use crate::commands::digest;
use crate::golden;
use crate::normal;
use crate::sandbox::{Sandbox, here};
use crate::shell::{lines, words};
use crate::support::server::{Answer, Server};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Nothing is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between the parts of a form.
const BOUNDARY: &str = "golden";

/// What the server is started with.
const SERVE: &str = "serve --queue-dir queue --address 127.0.0.1:0 --device sim:64MB --ram 512MB \
                     --threads 1 --models demo,tiny-5b,tiny-5b-i2v,zai-org/CogVideoX-5b --loras loras";

#[test]
fn orders() {
    hold("orders", SERVE);
}

/// What videos may start from, and what a device has room for, are said to the server.
#[test]
fn orders_to_a_small_server() {
    let few = "serve --queue-dir queue --address 127.0.0.1:0 --device sim:9MB --ram 512MB --threads 1 \
               --models tiny-5b --tasks t2v";
    hold("orders_small", few);
}

fn hold(name: &str, serve: &str) {
    let sandbox = Sandbox::new();
    let clip = "generate clip --model tiny-5b --frames 9 --height 48 --width 64 --steps 1 --ram 512MB \
                --device cpu --threads 1 --no-keep -o clip.gif";
    assert!(sandbox.command(&words(clip)).output().unwrap().status.success());
    let server = Server::of(sandbox.command(&words(serve)));
    let text = fs::read_to_string(here().join("cases").join(format!("{name}.txt"))).unwrap();
    let found: Vec<Value> = lines(&text).map(|line| case(&sandbox, &server, line)).collect();
    golden::compare(name, &found);
}

fn case(sandbox: &Sandbox, server: &Server, line: &str) -> Value {
    let (verb, rest) = line.split_once(' ').unwrap();
    let mut case = Map::new();
    case.insert("case".into(), line.into());
    let answer = match verb {
        "GET" => server.get(rest),
        "DELETE" => server.delete(rest),
        "MAKE" | "BEGIN" => post(sandbox, server, "/v1/videos", rest),
        "POST" => {
            let (path, body) = rest.split_once(' ').unwrap();
            server.send(path, "application/json", body.as_bytes())
        }
        "FORM" => {
            let (path, fields) = rest.split_once(' ').unwrap();
            form(sandbox, server, path, fields)
        }
        _ => panic!("{verb} is no verb of orders"),
    };
    case.insert("status".into(), answer.status.into());
    case.insert("answer".into(), normal::value(sandbox, &body(&answer)));
    if answer.status == 200 {
        let id = || answer.json()["id"].as_str().unwrap().to_owned();
        match verb {
            "MAKE" => made(sandbox, server, &id(), &mut case),
            "BEGIN" => begun(sandbox, server, &id(), &mut case),
            _ => {}
        }
    }
    Value::Object(case)
}

/// Posts a body, which is JSON or the fields of a form.
fn post(sandbox: &Sandbox, server: &Server, path: &str, body: &str) -> Answer {
    match body.starts_with('{') {
        true => server.send(path, "application/json", body.as_bytes()),
        false => form(sandbox, server, path, body),
    }
}

pub fn form(sandbox: &Sandbox, server: &Server, path: &str, fields: &str) -> Answer {
    let mut body = Vec::new();
    for field in words(fields) {
        let (name, value) = field.split_once('=').unwrap();
        let (about, contents) = match value.strip_prefix('@') {
            Some(file) => {
                let contents = fs::read(sandbox.path(file)).unwrap();
                (format!("name=\"{name}\"; filename=\"{file}\""), contents)
            }
            None => (format!("name=\"{name}\""), value.as_bytes().to_vec()),
        };
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {about}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&contents);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    server.send(path, &format!("multipart/form-data; boundary={BOUNDARY}"), &body)
}

/// The body of an answer as JSON, or as text.
fn body(answer: &Answer) -> Value {
    let text = || json!(String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| text())
}

/// Waits for a video, and tells what was heard of it, how it stands, and what it is.
///
/// How often a video is heard of depends on how busy the machine is, so only each new standing counts.
fn made(sandbox: &Sandbox, server: &Server, id: &str, case: &mut Map<String, Value>) {
    let mut heard: Vec<Value> = Vec::new();
    for (name, video) in server.events(&format!("/v1/videos/{id}/events")) {
        let standing = json!([name, video["status"]]);
        if heard.last() != Some(&standing) {
            heard.push(standing);
        }
    }
    // Whether it is still seen waiting is a matter of luck.
    heard.retain(|standing| standing[1] != "queued");
    case.insert("events".into(), heard.into());
    let video = server.get(&format!("/v1/videos/{id}")).ok();
    case.insert("video".into(), normal::value(sandbox, &video));
    if video["status"] == "completed" {
        let file = sandbox.path("content");
        fs::write(&file, server.content(id)).unwrap();
        case.insert("content".into(), digest(&[file]).into());
    }
}

/// Waits until the run of a video has begun, cancels it, and tells what the run was asked for.
fn begun(sandbox: &Sandbox, server: &Server, id: &str, case: &mut Map<String, Value>) {
    let began = Instant::now();
    let runs = sandbox.path(&format!("queue/jobs/{id}/runs"));
    let request = loop {
        if let Some(request) = request_in(&runs) {
            break request;
        }
        assert!(began.elapsed() < PATIENCE, "{id} does not begin");
        std::thread::sleep(Duration::from_millis(5));
    };
    let request: Value = serde_json::from_slice(&request).unwrap();
    case.insert("request".into(), normal::value(sandbox, &request));
    server.post(&format!("/v1/videos/{id}/cancel"), &json!({})).ok();
    server.until(id, |video| video["status"] == "cancelled");
}

/// The request of the run in a folder, if it has begun.
fn request_in(runs: &PathBuf) -> Option<Vec<u8>> {
    let runs = fs::read_dir(runs).ok()?.flatten();
    let mut whole = runs.filter(|run| !run.file_name().to_string_lossy().starts_with('.'));
    fs::read(whole.next()?.path().join("request.json")).ok()
}
