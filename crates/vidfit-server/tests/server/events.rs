//! What clients that wait are told.

use crate::client::{connect, head, send};
use crate::running::{Running, TOKEN, start, start_with};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A client that waits for events.
struct Waiting {
    lines: BufReader<TcpStream>,
}

impl Waiting {
    fn new(server: &Running, path: &str) -> Waiting {
        Waiting::with(server, path, &[])
    }

    fn with(server: &Running, path: &str, headers: &[(&str, &str)]) -> Waiting {
        let mut stream = connect(server.address);
        stream.write_all(head("GET", path, headers).as_bytes()).unwrap();
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

#[test]
fn new_places_are_told_without_plans() {
    let server = start();
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 1000 }));
    server.wait_for_step(&running, 1);
    let ids: Vec<String> = (0..4).map(|_| server.order("next")).collect();
    let mut waiting = Waiting::new(&server, "/v1/events");
    let mut one = Waiting::new(&server, &format!("/v1/videos/{}/events", ids[3]));
    server.delete(&format!("/v1/videos/{}", ids[0]));
    let mut moved = Vec::new();
    while moved.len() < 3 {
        let (name, video) = waiting.next().unwrap();
        let id = video["id"].as_str().unwrap().to_owned();
        assert_eq!(name == "deleted", id == ids[0] && video["status"].is_null(), "{video}");
        // At first, everything is told of each.
        if let Value::Object(fields) = &video
            && name == "video"
            && !fields.contains_key("plan")
        {
            assert_eq!((&video["status"], &video["prompt"]), (&json!("queued"), &json!("next")));
            moved.push((id, video["position"].as_u64().unwrap()));
        }
    }
    let expected: Vec<_> = ids[1..].iter().cloned().zip(1..).collect();
    assert_eq!(moved, expected);
    assert!(one.next().unwrap().1["plan"]["fits"] == true);
    let (_, video) = one.next().unwrap();
    assert_eq!((&video["position"], video.get("plan")), (&json!(3), None));
}

#[test]
fn a_client_that_is_too_slow_has_to_come_again() {
    let server = start();
    let running = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 1000 }));
    server.wait_for_step(&running, 1);
    let mut waiting = Waiting::new(&server, "/v1/events");
    // More than the system keeps for a connection, and than the server keeps for a client.
    let prompt = "\u{1f388}".repeat(8000);
    for _ in 0..200 {
        let id = server.order(&prompt);
        server.post(&format!("/v1/videos/{id}/cancel"), &json!({}));
    }
    let told = waiting.all();
    assert!(told.len() < 800, "{} were told", told.len());
    assert_eq!(server.get("/healthz").status, 200);
    let first = Waiting::new(&server, "/v1/events").next().unwrap();
    assert_eq!(first.1["id"], *running);
}

#[test]
fn a_session_takes_its_streams_with_it() {
    let server = start_with(|config| config.token = Some(TOKEN.into()));
    let begin = || {
        let kind = [("Content-Type", "application/json")];
        let body = json!({ "token": TOKEN }).to_string();
        let answer = send(server.address, "POST", "/session", &kind, body.as_bytes());
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    };
    let (leaving, staying) = (begin(), begin());
    let listen = |headers: &[(&str, &str)]| Waiting::with(&server, "/v1/events", headers);
    let mut gone = listen(&[("Cookie", &leaving)]);
    let bearer = format!("Bearer {TOKEN}");
    let mut others = [
        listen(&[("Cookie", &staying)]),
        // The token is good by itself.
        listen(&[("Cookie", &leaving), ("Authorization", &bearer)]),
    ];
    send(server.address, "DELETE", "/session", &[("Cookie", &leaving)], b"");
    assert_eq!(gone.next(), None);
    let headers = [("Content-Type", "application/json"), ("Authorization", &*bearer)];
    let order = json!({ "prompt": "a" }).to_string();
    let answer = send(server.address, "POST", "/v1/videos", &headers, order.as_bytes());
    for other in &mut others {
        assert_eq!(other.next().unwrap().1["id"], answer.json()["id"]);
    }
}
