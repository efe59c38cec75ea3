//! Who may come in.

use crate::client::{connect, head, read, send};
use crate::running::{Running, TOKEN, start, start_with};
use std::io::Write;

fn get(server: &Running, path: &str, headers: &[(&str, &str)]) -> u16 {
    send(server.address, "GET", path, headers, b"").status
}

fn guarded() -> Running {
    start_with(|config| config.token = Some(TOKEN.into()))
}

#[test]
fn a_token_is_wanted_before_the_body_is_read() {
    let server = guarded();
    let bearer = format!("Bearer {TOKEN}");
    let good: &[(&str, &str)] = &[("Authorization", &bearer)];
    for path in
        ["/v1/videos", "/v1/models", "/v1/gpus", "/v1/events", "/v1/nothing", "/metrics", "/v1"]
    {
        for headers in [
            &[][..],
            &[("Authorization", "Bearer")],
            &[("Authorization", "Bearer wrong")],
            &[("Authorization", TOKEN)],
            &[("Cookie", "vidfit_session=wrong")],
        ] {
            let answer = send(server.address, "GET", path, headers, b"");
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "invalid_token"),
                "{path} {headers:?}"
            );
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    for path in ["/", "/healthz", "/openapi.json", "/docs/"] {
        assert_eq!(get(&server, path, &[]), 200, "{path}");
    }
    assert_eq!(get(&server, "/v1/videos", good), 200);
    assert_eq!(
        get(&server, "/v1/videos", &[("Authorization", &bearer.replace("Bearer", "bearer"))]),
        200
    );
    // A gigabyte is announced, and none of it is waited for.
    let mut stream = connect(server.address);
    let headers = [("Content-Type", "application/json"), ("Content-Length", "1000000000")];
    stream.write_all(head("POST", "/v1/videos", &headers).as_bytes()).unwrap();
    assert_eq!(read(&mut stream).status, 401);
}

#[test]
fn a_session_stands_for_the_token_until_it_ends() {
    let server = guarded();
    let begin = |token: &str| {
        let body = serde_json::json!({ "token": token }).to_string();
        send(
            server.address,
            "POST",
            "/session",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    };
    assert_eq!(begin("wrong").status, 401);
    let answer = begin(TOKEN);
    assert_eq!(answer.status, 200);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly")
            && cookie.contains("SameSite=Strict")
            && !cookie.contains(TOKEN)
    );
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(get(&server, "/v1/videos", &[("Cookie", &format!("a=b; {cookie}"))]), 200);
    let ended = send(server.address, "DELETE", "/session", &[("Cookie", cookie)], b"");
    assert!(ended.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(get(&server, "/v1/videos", &[("Cookie", cookie)]), 401);
    for body in ["", "{}", "{\"token\":1}", "{\"token\":\"a\",\"b\":1}"] {
        let answer = send(
            server.address,
            "POST",
            "/session",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        );
        assert_eq!(answer.status, 400, "{body}");
    }
    assert_eq!(send(server.address, "POST", "/session", &[], b"{}").status, 415);
}

#[test]
fn other_names_and_other_pages_are_refused() {
    let server = start();
    let refused = |headers: &[(&str, &str)]| {
        let answer = send(server.address, "GET", "/v1/videos", headers, b"");
        (answer.status, answer.code())
    };
    assert_eq!(refused(&[("Host", "evil.example")]), (403, "host_not_allowed".into()));
    assert_eq!(refused(&[("Origin", "http://evil.example")]), (403, "cross_site".into()));
    assert_eq!(refused(&[("Origin", "null")]), (403, "cross_site".into()));
    assert_eq!(refused(&[("Sec-Fetch-Site", "cross-site")]), (403, "cross_site".into()));
    assert_eq!(
        refused(&[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]),
        (403, "cross_site".into())
    );
    let port = server.address.port();
    let ours = format!("http://127.0.0.1:{port}");
    assert_eq!(
        get(&server, "/v1/videos", &[("Host", &format!("127.0.0.1:{port}")), ("Origin", &ours)]),
        200
    );
    assert_eq!(
        get(&server, "/", &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")]),
        200
    );
    assert_eq!(get(&server, "/", &[("Host", "evil.example")]), 403);
    let no_host = {
        let mut stream = connect(server.address);
        stream.write_all(b"GET /v1/videos HTTP/1.0\r\n\r\n").unwrap();
        read(&mut stream).status
    };
    assert_eq!(no_host, 403);
}

#[test]
fn cors_is_for_those_who_are_named() {
    let preflight = |server: &Running, origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        send(server.address, "OPTIONS", "/v1/videos", &headers, b"")
    };
    let closed = start();
    assert_eq!(
        preflight(&closed, "https://app.example").header("access-control-allow-origin"),
        None
    );
    let open = start_with(|config| {
        config.cors_origins = vec!["https://app.example".into()];
        config.token = Some(TOKEN.into());
    });
    let answer = preflight(&open, "https://app.example");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("https://app.example"))
    );
    assert_eq!(
        preflight(&open, "https://evil.example").header("access-control-allow-origin"),
        None
    );
    let bearer = format!("Bearer {TOKEN}");
    let with = |origin| {
        [("Origin", origin), ("Authorization", bearer.as_str()), ("Sec-Fetch-Site", "cross-site")]
    };
    assert_eq!(get(&open, "/v1/videos", &with("https://app.example")), 200);
    assert_eq!(get(&open, "/v1/videos", &with("https://evil.example")), 403);
}

#[test]
fn answers_say_nothing_of_the_servers_folders() {
    let server = start();
    let id = server.order("a");
    server.wait(&id, "completed");
    std::fs::write(server.job(&id).join("video.mp4"), "no video").unwrap();
    let folder = server.folder.path().to_str().unwrap().to_owned();
    for path in
        ["/v1/videos", "/v1/models", "/v1/gpus", "/metrics", "/openapi.json", "/v1/videos/x"]
    {
        assert!(!server.get(path).text().contains(&folder), "{path}");
    }
    let broken = server.get(&format!("/v1/videos/{id}/content?variant=gif"));
    assert_eq!((broken.status, broken.code().as_str()), (500, "internal"));
    assert!(!broken.text().contains(&folder));
}
