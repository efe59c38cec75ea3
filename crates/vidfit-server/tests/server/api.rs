//! Orders, lists, contents and everything else that clients ask for.

use crate::client::{form, send};
use crate::running::{Running, start, start_with, wait_until};
use serde_json::{Value, json};

/// A PNG of 16 x 16 pixels.
fn png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[99; 16 * 16 * 3]).unwrap();
    bytes
}

fn post_form(
    server: &Running,
    fields: &[(&str, &str)],
    files: &[(&str, &[u8])],
) -> crate::client::Answer {
    let (kind, body) = form(fields, files);
    send(server.address, "POST", "/v1/videos", &[("Content-Type", &kind)], &body)
}

#[test]
fn an_order_becomes_a_video() {
    let server = start();
    let answer = server
        .post("/v1/videos", &json!({ "prompt": "a square", "seconds": "2", "size": "64x64" }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let video = answer.json();
    let id = video["id"].as_str().unwrap();
    assert!(id.starts_with("video_") && id.len() == 38);
    assert_eq!((&video["object"], &video["model"]), (&json!("video"), &json!("demo")));
    assert_eq!((&video["seconds"], &video["num_frames"]), (&json!("2"), &json!(17)));
    assert_eq!((&video["size"], &video["seed"]), (&json!("64x64"), &json!(42)));
    let done = server.wait(id, "completed");
    assert_eq!(
        (&done["progress"], &done["position"], &done["error"]),
        (&json!(100), &json!(null), &json!(null))
    );
    assert_eq!(done["report"]["measured_peak_bytes"], 2_900_000);
    assert!(done["completed_at"].as_i64().unwrap() >= done["created_at"].as_i64().unwrap());
    assert_eq!(server.steps(id), [0, 1, 2, 3]);
}

#[test]
fn numbers_may_be_texts_and_forms_are_taken() {
    let server = start();
    let fields = [
        ("prompt", "ä\r\nb"),
        ("num_inference_steps", "3"),
        ("guidance_scale", "2.5"),
        ("seed", "7"),
    ];
    let by_form = post_form(&server, &fields, &[]).json();
    let by_json = server
        .post(
            "/v1/videos",
            &json!({ "prompt": "ä\r\nb", "num_inference_steps": 3.0,
        "guidance_scale": 2.5, "seed": "7e0", "lora": null }),
        )
        .json();
    for field in ["prompt", "num_inference_steps", "guidance_scale", "seed", "task", "width"] {
        assert_eq!(by_form[field], by_json[field], "{field}");
    }
    assert_eq!(
        (&by_form["num_inference_steps"], &by_form["prompt"]),
        (&json!(3), &json!("ä\r\nb"))
    );
}

#[test]
fn what_is_wrong_with_an_order_is_said() {
    let server = start_with(|config| config.max_prompt_chars = 20);
    for (order, param, code) in [
        (json!({}), "prompt", "missing_field"),
        (json!({ "prompt": "" }), "prompt", "invalid_value"),
        (json!({ "prompt": " \n" }), "prompt", "invalid_value"),
        (json!({ "prompt": null }), "prompt", "missing_field"),
        (json!({ "prompt": 3 }), "prompt", "invalid_value"),
        (json!({ "prompt": "a\0b" }), "prompt", "invalid_value"),
        (json!({ "prompt": "ä".repeat(21) }), "prompt", "invalid_value"),
        (json!({ "prompt": "a", "colour": 1 }), "colour", "unknown_field"),
        (json!({ "prompt": "a", "colour": null }), "colour", "unknown_field"),
        (json!({ "prompt": "a", "seed": -1 }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": 1.5 }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": 9_007_199_254_740_992_u64 }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": "07" }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": true }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": " 7" }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": "+7" }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "seed": "" }), "seed", "invalid_value"),
        (json!({ "prompt": "a", "preset": "x" }), "preset", "unknown_preset"),
        (json!({ "prompt": "a", "fps": "NaN" }), "fps", "invalid_value"),
        (json!({ "prompt": "a", "fps": "1e9" }), "fps", "invalid_value"),
        (json!({ "prompt": "a", "seconds": "inf" }), "seconds", "invalid_value"),
        (json!({ "prompt": "a", "size": "64" }), "size", "invalid_value"),
        (json!({ "prompt": "a", "size": "064x64" }), "size", "invalid_value"),
        (json!({ "prompt": "a", "size": "64x99999" }), "size", "invalid_value"),
        (json!({ "prompt": "a", "width": 65 }), "width", "bad_size"),
        (json!({ "prompt": "a", "model": "x" }), "model", "unknown_model"),
        (json!({ "prompt": "a", "strength": 0.5 }), "strength", "invalid_value"),
        (json!({ "prompt": "a", "lora": "../../etc/passwd" }), "lora", "unknown_lora"),
        (json!({ "prompt": "a", "task": "t2v" }), "task", "unknown_field"),
        (
            json!({ "prompt": "a", "input_reference": "https://a.example/b.png" }),
            "input_reference",
            "invalid_value",
        ),
        (
            json!({ "prompt": "a", "input_reference": "data:image/png;base64,!" }),
            "input_reference",
            "invalid_value",
        ),
        (
            json!({ "prompt": "a", "input_reference": { "file_id": "f" } }),
            "input_reference",
            "invalid_value",
        ),
    ] {
        let answer = server.post("/v1/videos", &order);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{order}");
        assert_eq!(answer.json()["error"]["param"], param, "{order}");
    }
    server.order(&"ä".repeat(20));
    let too_big = server.post("/v1/videos", &json!({ "prompt": "a", "num_frames": 1001 }));
    assert_eq!((too_big.status, too_big.code().as_str()), (400, "does_not_fit"));
    assert_eq!(server.get("/v1/videos").json()["data"].as_array().unwrap().len(), 1);
    let raw = |kind: &str, body: &str| {
        send(server.address, "POST", "/v1/videos", &[("Content-Type", kind)], body.as_bytes())
    };
    for (kind, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        ("application/json", "{\"prompt\":\"\\ud800\"}", 400),
        ("text/plain", "a", 415),
        ("", "", 415),
        ("multipart/form-data", "--b--", 400),
        ("multipart/form-data; boundary=b", "--b\r\n", 400),
    ] {
        let answer = raw(kind, body);
        assert_eq!(answer.status, status, "{kind}: {}", answer.text());
        answer.code();
    }
    assert_eq!(raw("application/json", &"[".repeat(100_000)).status, 400);
    assert_eq!(post_form(&server, &[("prompt", "a"), ("prompt", "b")], &[]).status, 400);
}

#[test]
fn uploads_are_told_by_their_content_and_kept_under_our_names() {
    let server = start();
    let image = post_form(&server, &[("prompt", "a")], &[("input_reference", &png())]);
    assert_eq!(image.status, 200, "{}", image.text());
    let image = image.json();
    assert_eq!(image["task"], "i2v");
    let id = image["id"].as_str().unwrap();
    assert_eq!(std::fs::read(server.job(id).join("input.png")).unwrap(), png());
    server.wait(id, "completed");
    // A video, as made by the job before.
    let video = server.get(&format!("/v1/videos/{id}/content")).body;
    let from_video = post_form(&server, &[("prompt", "a")], &[("video_reference", &video)]).json();
    assert_eq!(from_video["task"], "v2v");
    server.wait(from_video["id"].as_str().unwrap(), "completed");
    let gif = server.get(&format!("/v1/videos/{id}/content?variant=gif")).body;
    assert_eq!(
        post_form(&server, &[("prompt", "a")], &[("input_reference", &gif)]).json()["task"],
        "v2v"
    );
    // In JSON.
    use base64::Engine;
    let url = format!(
        "data:image/png;base64,{}",
        base64::engine::general_purpose::STANDARD.encode(png())
    );
    for reference in [json!(url), json!({ "image_url": url })] {
        let order = json!({ "prompt": "a", "input_reference": reference });
        assert_eq!(server.post("/v1/videos", &order).json()["task"], "i2v");
    }
    let spelled = post_form(&server, &[("prompt", "a"), ("input_reference[image_url]", &url)], &[]);
    assert_eq!(spelled.json()["task"], "i2v", "{}", spelled.text());
    // A file input that nobody has filled in, as browsers send it; a file that is empty is another.
    let body = b"--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\n--b\r\n\
        Content-Disposition: form-data; name=\"input_reference\"; filename=\"\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n";
    let kind = [("Content-Type", "multipart/form-data; boundary=b")];
    let unchosen = send(server.address, "POST", "/v1/videos", &kind, body);
    assert_eq!(unchosen.json()["task"], "t2v", "{}", unchosen.text());
    // It can be had again.
    let input = server.get(&format!("/v1/videos/{id}/content?variant=input"));
    assert_eq!((input.status, input.header("content-type")), (200, Some("image/png")));
    assert!(input.body == png());
    let unchosen = unchosen.json();
    let unchosen = unchosen["id"].as_str().unwrap();
    let none = server.get(&format!("/v1/videos/{unchosen}/content?variant=input"));
    assert_eq!((none.status, none.code().as_str()), (404, "not_found"));
    assert_eq!(std::fs::read_dir(server.folder.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused() {
    let server = start();
    let whole = png();
    // The size that a decoder would believe: 60,000 x 60,000 pixels.
    let mut bomb = whole.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let cut = &whole[..whole.len() - 20];
    for (what, file, field) in [
        ("text", b"#EXTM3U\nhttp://localhost/".as_slice(), "input_reference"),
        ("svg", b"<svg onload='x'/>", "input_reference"),
        ("a bomb", &bomb, "input_reference"),
        ("half", cut, "input_reference"),
        ("no video", b"\0\0\0\x18ftypmp42 and nothing behind it", "video_reference"),
        ("a picture", &whole, "video_reference"),
        ("nothing", b"", "input_reference"),
        ("nothing", b"", "video_reference"),
    ] {
        let answer = post_form(&server, &[("prompt", "a")], &[(field, file)]);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_file"), "{what}");
        assert_eq!(answer.json()["error"]["param"], field);
        let text = answer.text();
        assert!(!text.contains("incoming") && !text.contains("tmp"), "{text}");
    }
    let two = post_form(
        &server,
        &[("prompt", "a")],
        &[("input_reference", &whole), ("video_reference", &whole)],
    );
    assert_eq!((two.status, two.code().as_str()), (400, "too_many_files"));
    assert_eq!(post_form(&server, &[("prompt", "a")], &[("other", &whole)]).status, 400);
    assert_eq!(std::fs::read_dir(server.folder.path().join("incoming")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(server.folder.path().join("jobs")).unwrap().count(), 0);
}

#[test]
fn contents_come_whole_and_in_parts() {
    let server = start();
    let id = server.order("a");
    server.wait(&id, "completed");
    let path = format!("/v1/videos/{id}/content");
    let file = std::fs::read(server.job(&id).join("video.mp4")).unwrap();
    let get = |headers: &[(&str, &str)]| send(server.address, "GET", &path, headers, b"");
    let whole = get(&[]);
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("video/mp4")));
    assert_eq!(
        (whole.header("accept-ranges"), whole.body.as_slice()),
        (Some("bytes"), file.as_slice())
    );
    let tag = whole.header("etag").unwrap();
    let part = get(&[("Range", "bytes=4-11")]);
    assert_eq!((part.status, part.body.as_slice()), (206, &file[4..12]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 4-11/{}", file.len()).as_str()));
    assert_eq!(get(&[("Range", "bytes=-8")]).body, file[file.len() - 8..]);
    let beyond = get(&[("Range", "bytes=99999999-")]);
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "no_such_range"));
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{}", file.len()).as_str()));
    assert_eq!(get(&[("If-None-Match", tag)]).status, 304);
    assert_eq!(get(&[("If-None-Match", "\"other\"")]).status, 200);
    assert_eq!(get(&[("Range", "bytes=0-1"), ("If-Range", tag)]).status, 206);
    assert_eq!(get(&[("Range", "bytes=0-1"), ("If-Range", "\"other\"")]).status, 200);
    let head = send(server.address, "HEAD", &path, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    for (variant, kind, begins) in
        [("thumbnail", "image/png", "\u{89}PNG"), ("gif", "image/gif", "GIF89a")]
    {
        for _ in 0..2 {
            let answer = server.get(&format!("{path}?variant={variant}"));
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
            let begin: String =
                answer.body.iter().take(begins.chars().count()).map(|it| char::from(*it)).collect();
            assert_eq!(begin, begins);
        }
    }
    assert_eq!(server.get(&format!("{path}?variant=spritesheet")).status, 400);
    assert_eq!(server.get(&format!("{path}?x=1")).status, 400);
    let slow = server.order_with(json!({ "prompt": "slow", "num_inference_steps": 1000 }));
    assert_eq!(server.get(&format!("/v1/videos/{slow}/content")).code(), "not_completed");
    for id in ["video_0", "..%2f..%2fqueue.sqlite", "%ff", "."] {
        assert_eq!(server.get(&format!("/v1/videos/{id}/content")).status, 404, "{id}");
    }
}

#[test]
fn lists_come_in_pages() {
    let server = start();
    let ids: Vec<_> = (0..5).map(|n| server.order(&n.to_string())).collect();
    for id in &ids {
        server.wait(id, "completed");
    }
    let list = |query: &str| server.get(&format!("/v1/videos{query}"));
    let names = |list: &Value| -> Vec<String> {
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["id"].as_str().unwrap().into())
            .collect()
    };
    let mut newest = ids.clone();
    newest.reverse();
    assert_eq!(names(&list("").json()), newest);
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = list(&format!("?limit=2&order=asc{after}")).json();
        assert_eq!(page["object"], "list");
        let page_names = names(&page);
        assert_eq!(page["first_id"], json!(page_names.first()));
        assert_eq!(page["last_id"], json!(page_names.last()));
        after = format!("&after={}", page["last_id"].as_str().unwrap());
        all.extend(page_names);
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(all, ids);
    assert_eq!(names(&list("?status=completed&limit=100").json()).len(), 5);
    assert_eq!(list("?status=queued").json()["data"], json!([]));
    for query in ["?limit=0", "?limit=101", "?limit=x", "?order=up", "?status=done", "?page=2"] {
        let answer = list(query);
        assert_eq!(answer.status, 400, "{query}");
        answer.code();
        let name = query[1..].split('=').next().unwrap();
        let error = &answer.json()["error"];
        assert_eq!(error["param"], name, "{error}");
        assert!(!error["message"].as_str().unwrap().contains("deserialize"), "{error}");
    }
}

#[test]
fn a_page_after_nothing_is_not_there() {
    let answer = start().get("/v1/videos?after=video_0");
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
}

#[test]
fn the_rest_of_the_api_answers() {
    let server = start();
    let plan = server.post("/v1/plan", &json!({ "model": "demo", "task": "i2v" }));
    assert_eq!((plan.status, &plan.json()["fits"]), (200, &json!(true)));
    let plan = server.post("/v1/plan", &json!({ "num_frames": 5000 }));
    assert_eq!((plan.status, &plan.json()["fits"]), (200, &json!(false)));
    let unknown = server.post("/v1/plan", &json!({ "model": "/my/x" }));
    assert_eq!(unknown.code(), "unknown_model");
    // What a client has said itself is not cut.
    assert!(unknown.text().contains("no model /my/x"), "{}", unknown.text());
    let unknown = server.post("/v1/plan", &json!({ "n": 1 })).text();
    assert!(unknown.contains("\\\"n\\\"; /docs lists them"), "{unknown}");
    let demo = server.get("/v1/models/demo").json();
    assert_eq!((&demo["object"], &demo["id"]), (&json!("model"), &json!("demo")));
    let absent = server.get("/v1/models/some/thing");
    assert_eq!((absent.status, absent.code().as_str()), (404, "not_found"));
    assert_eq!(server.get("/v1/models/some%2Fthing").json()["error"]["param"], "model");
    assert_eq!(
        server.post("/v1/plan", &json!({ "input_reference": "data:" })).code(),
        "unknown_field"
    );
    let models = server.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("demo")));
    assert_eq!(models["data"][0]["object"], "model");
    assert_eq!(server.get("/v1/presets").json()["data"][0]["name"], "fast");
    assert_eq!(server.get("/healthz").json(), json!({ "status": "ok" }));
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
    }
    for (method, path) in [("PUT", "/v1/videos"), ("DELETE", "/v1/models"), ("POST", "/healthz")] {
        let answer = send(server.address, method, path, &[], b"");
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
        assert!(answer.header("allow").is_some_and(|it| !it.is_empty()), "{method} {path}");
    }
    for path in
        ["/v1/nothing", "/nothing.js", "/v1/videos/", "/../Cargo.toml", "/%2e%2e/Cargo.toml"]
    {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
}

#[test]
fn the_page_and_the_docs_come_from_the_program() {
    let server = start();
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let csp = page.header("content-security-policy").unwrap();
    assert!(
        csp.contains("default-src 'none'")
            && csp.contains("frame-ancestors 'none'")
            && !csp.contains("unsafe")
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let again =
        send(server.address, "GET", "/", &[("If-None-Match", page.header("etag").unwrap())], b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
    let docs = server.get("/docs");
    assert_eq!((docs.status, docs.header("location")), (308, Some("/docs/")));
    let docs = server.get("/docs/").text();
    assert!(docs.contains("swagger-ui") && !docs.contains("://"), "{docs}");
    for file in docs.split(['"', '\'']).filter(|it| it.ends_with(".js") || it.ends_with(".css")) {
        assert_eq!(
            server.get(&format!("/docs/{}", file.trim_start_matches("./"))).status,
            200,
            "{file}"
        );
    }
    assert!(server.get("/docs/swagger-initializer.js").text().contains("/openapi.json"));
}

#[test]
fn the_description_is_of_what_there_is() {
    let server = start();
    let api = server.get("/openapi.json").json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = 0;
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let responses = operation["responses"].as_object().unwrap();
            for status in ["403", "408", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
    assert_eq!(operations, 17);
    // Every reference leads somewhere, and every object says whether it is closed.
    let text = api.to_string();
    for name in
        text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap())
    {
        assert!(api["components"]["schemas"][name].is_object(), "{name}");
    }
    let order = &api["components"]["schemas"]["OrderJson"];
    assert_eq!(
        (&order["additionalProperties"], &order["required"]),
        (&json!(false), &json!(["prompt"]))
    );
    // The schema of a video has just the fields that a video has.
    let id = server.order("a");
    server.wait(&id, "completed");
    wait_until("it is listed", || server.get("/v1/videos").status == 200);
    let video = server.video(&id);
    let schema = &api["components"]["schemas"]["Video"];
    assert_eq!(schema["additionalProperties"], false);
    let names = |it: &Value| it.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&schema["properties"]), names(&video));
    assert_eq!(schema["required"].as_array().unwrap().len(), names(&video).len());
}
