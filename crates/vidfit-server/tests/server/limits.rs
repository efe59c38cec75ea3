//! Clients that are too many, too large or too slow.

use crate::client::{connect, form, head, read, send};
use crate::running::{start, start_with, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Waits until the server has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn bodies_are_held_to_their_limit() {
    let server = start_with(|config| config.max_body_bytes = 10_000);
    let (kind, body) = form(&[("prompt", "a")], &[("input_reference", &[0; 20_000])]);
    // As it says so itself, nothing is read.
    let mut stream = connect(server.address);
    let length =
        [("Content-Type", kind.as_str()), ("Content-Length", "20000"), ("Expect", "100-continue")];
    stream.write_all(head("POST", "/v1/videos", &length).as_bytes()).unwrap();
    let answer = read(&mut stream);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // Or as it comes.
    let mut stream = connect(server.address);
    let chunked = [("Content-Type", kind.as_str()), ("Transfer-Encoding", "chunked")];
    stream.write_all(head("POST", "/v1/videos", &chunked).as_bytes()).unwrap();
    let _ = stream.write_all(format!("{:x}\r\n", body.len()).as_bytes());
    let _ = stream.write_all(&body);
    let _ = stream.write_all(b"\r\n0\r\n\r\n");
    assert_eq!(read(&mut stream).status, 413);
    let json = json!({ "prompt": "a".repeat(20_000) });
    assert_eq!(server.post("/v1/videos", &json).status, 413);
    assert_eq!(std::fs::read_dir(server.folder.path().join("incoming")).unwrap().count(), 0);
    server.order("a");
}

#[test]
fn slow_headers_are_not_waited_for() {
    let server = start_with(|config| config.header_timeout = Duration::from_millis(200));
    let began = Instant::now();
    let mut silent = connect(server.address);
    let mut slow = connect(server.address);
    slow.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let mut idle = connect(server.address);
    idle.write_all(head("GET", "/healthz", &[]).as_bytes()).unwrap();
    assert_eq!(read(&mut idle).status, 200);
    assert!(is_closed(&mut silent) && is_closed(&mut slow) && is_closed(&mut idle));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn slow_bodies_are_not_waited_for() {
    let server = start_with(|config| {
        config.stall_timeout = Duration::from_millis(200);
        config.request_timeout = Duration::from_millis(900);
    });
    let headers = [("Content-Type", "application/json"), ("Content-Length", "1000")];
    let mut stalled = connect(server.address);
    stalled.write_all(head("POST", "/v1/videos", &headers).as_bytes()).unwrap();
    stalled.write_all(b"{\"prompt\"").unwrap();
    let answer = read(&mut stalled);
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    // A byte now and then is no way out.
    let mut dripping = connect(server.address);
    dripping.write_all(head("POST", "/v1/videos", &headers).as_bytes()).unwrap();
    let began = Instant::now();
    let mut drops = dripping.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        while drops.write_all(b" ").is_ok() && began.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(read(&mut dripping).status, 408);
    assert!(began.elapsed() < Duration::from_secs(4), "it was waited for");
    drip.join().unwrap();
    // Half a body is no body.
    let mut cut = connect(server.address);
    cut.write_all(head("POST", "/v1/videos", &headers).as_bytes()).unwrap();
    cut.write_all(b"{\"prompt\":\"a\"}").unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(is_closed(&mut cut));
    assert_eq!(server.get("/v1/videos").json()["data"], json!([]));
}

#[test]
fn clients_that_take_nothing_are_left() {
    let server = start_with(|config| config.stall_timeout = Duration::from_millis(300));
    let id = server.order("a");
    server.wait(&id, "completed");
    // More than all buffers on the way hold.
    let file = server.job(&id).join("video.mp4");
    std::fs::File::options().write(true).open(file).unwrap().set_len(64 << 20).unwrap();
    let mut stuck = connect(server.address);
    stuck.write_all(head("GET", &format!("/v1/videos/{id}/content"), &[]).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut got = Vec::new();
    let _ = stuck.read_to_end(&mut got);
    assert!(got.len() < 64 << 20, "all {} bytes came", got.len());
}

#[test]
fn too_many_connections_are_sent_away() {
    let server = start_with(|config| config.max_connections = 2);
    let mut held: Vec<_> = (0..2).map(|_| connect(server.address)).collect();
    for stream in &mut held {
        stream.write_all(head("GET", "/healthz", &[]).as_bytes()).unwrap();
        assert_eq!(read(stream).status, 200);
    }
    let refused = server.get("/healthz");
    assert_eq!((refused.status, refused.code().as_str()), (503, "too_many_connections"));
    assert!(refused.header("retry-after").is_some());
    drop(held);
    wait_until("there is room again", || server.get("/healthz").status == 200);
}

#[test]
fn what_is_not_http_is_refused() {
    let server = start();
    for text in
        ["\x16\x03\x01 TLS\r\n\r\n", "GET / HTTP/9\r\n\r\n", "x\r\n\r\n", "GET  HTTP/1.1\r\n\r\n"]
    {
        let mut stream = connect(server.address);
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{text}: {answer}");
    }
    let long = "a".repeat(1_000_000);
    let answer = send(server.address, "GET", "/", &[("X-Long", &long)], b"");
    assert_eq!(answer.status, 431);
    assert_eq!(server.get("/healthz").status, 200);
}
