//! What clients that wait are told.

use crate::client::{connect, head};
use crate::running::{Running, start, start_with};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A client that waits for events.
struct Waiting {
    lines: BufReader<TcpStream>,
}

impl Waiting {
    fn new(server: &Running, path: &str) -> Waiting {
        let mut stream = connect(server.address);
        stream.write_all(head("GET", path, &[]).as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut status = String::new();
        lines.read_line(&mut status).unwrap();
        assert!(status.contains(" 200 "), "{status}");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
        Waiting { lines }
    }

    /// The next event, with its name; nothing once the server has ended the stream.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 || line == "0\r\n" {
                return None;
            }
            // What is neither is the length of a chunk, a comment or an empty line.
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().into();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).unwrap()));
            }
        }
    }

    fn all(&mut self) -> Vec<(String, Value)> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

#[test]
fn a_video_is_followed_to_its_end() {
    let server = start();
    let id = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 50 }));
    let events = Waiting::new(&server, &format!("/v1/videos/{id}/events")).all();
    assert!(events.iter().all(|(name, video)| name == "video" && video["id"] == *id));
    let videos: Vec<_> = events.iter().map(|(_, video)| video).collect();
    let progress: Vec<_> = videos.iter().map(|it| it["progress"].as_u64().unwrap()).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    assert_eq!(videos.last().unwrap()["status"], "completed");
    assert!(videos.iter().any(|it| it["phase"] == "denoise"
        && it["step"].as_u64() > Some(0)
        && it["seconds_left"].is_f64()));
    // A second of steps of 20 ms is told in about five pieces, not in fifty.
    let steps = videos.iter().filter(|it| it["phase"] == "denoise").count();
    assert!((3..20).contains(&steps), "{steps}");
    // Who comes late is told the end.
    let late = Waiting::new(&server, &format!("/v1/videos/{id}/events")).all();
    assert_eq!((late.len(), &late[0].1["status"]), (1, &json!("completed")));
    assert_eq!(server.get("/v1/videos/video_0/events").status, 404);
}

#[test]
fn everyone_is_told_of_places_and_deletions() {
    let server = start();
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 1000 }));
    server.wait_for_step(&running, 1);
    let mut waiting = Waiting::new(&server, "/v1/events");
    assert_eq!(waiting.next().unwrap().1["id"], *running);
    let (a, b) = (server.order("a"), server.order("b"));
    let mut place = |id: &str| loop {
        let (_, video) = waiting.next().unwrap();
        if video["id"] == *id {
            return video["position"].as_u64();
        }
    };
    assert_eq!((place(&a), place(&b)), (Some(1), Some(2)));
    server.delete(&format!("/v1/videos/{a}"));
    assert_eq!(place(&b), Some(1));
    server.delete(&format!("/v1/videos/{running}"));
    let mut seen = Vec::new();
    loop {
        let (name, data) = waiting.next().unwrap();
        if data["id"] == *running && name == "deleted" {
            seen.push("deleted");
        }
        if data["id"] == *b && data["status"] == "completed" {
            break;
        }
        assert!(!(name == "video" && data["id"] == *a), "{data}");
    }
    assert_eq!(seen, ["deleted"]);
}

#[test]
fn a_deleted_video_ends_its_stream() {
    let server = start();
    let id = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 1000 }));
    let mut waiting = Waiting::new(&server, &format!("/v1/videos/{id}/events"));
    server.delete(&format!("/v1/videos/{id}"));
    let events = waiting.all();
    assert_eq!(events.last().unwrap(), &("deleted".into(), json!({ "id": id })));
}

#[test]
fn streams_are_limited_and_end_with_the_server() {
    let server = start_with(|config| config.max_event_streams = 1);
    let mut waiting = Waiting::new(&server, "/v1/events");
    let refused = server.get("/v1/events");
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_streams"));
    assert_eq!(server.metric("vidfit_event_streams"), Some(1.0));
    server.stop();
    assert_eq!(waiting.next(), None);
}
