//! Orders, and what becomes of them.

use crate::running::start;
use serde_json::json;

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
    let content = server.get(&format!("/v1/videos/{id}/content"));
    assert_eq!((content.status, content.header("content-type")), (200, Some("video/mp4")));
    assert_eq!(content.body, std::fs::read(server.job(id).join("video.mp4")).unwrap());
}
