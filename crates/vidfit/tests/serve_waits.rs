//! `vidfit serve`: jobs that were accepted, on a machine that cannot make them for a while.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::server::Server;
use support::{checkpoint, says};

/// Waits until a job has to wait for the machine, and says for what.
fn waits(server: &Server, id: &str) -> String {
    let video = server.until(id, |video| video["waiting"].is_string());
    assert_eq!((&video["status"], &video["error"]), (&json!("queued"), &Value::Null), "{video}");
    video["waiting"].as_str().unwrap().to_owned()
}

/// A job that makes others wait.
const LONG: u32 = 400;

#[test]
fn a_model_that_is_away_or_not_offered_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("tiny"), folder.path().join("away"));
    copy(&checkpoint("5b"), &here);
    let models = ["--models", "demo,tiny"];
    let mut server = Server::start(folder.path(), &models);
    let long = server.order(&json!({ "num_inference_steps": LONG }));
    let tiny = server.order(&json!({
        "model": "tiny", "size": "64x48", "num_frames": 9, "num_inference_steps": 2
    }));
    let other = server.order(&json!({ "num_inference_steps": 2 }));
    server.kill();
    std::fs::rename(&here, &away).unwrap();
    let mut server = Server::start(folder.path(), &models);
    server.post(&format!("/v1/videos/{long}/cancel"), &json!({})).ok();
    says(&waits(&server, &tiny), &["no model \"tiny\" here"]);
    // What can be made is made.
    server.completed(&other);
    server.kill();
    std::fs::rename(&away, &here).unwrap();
    // Not from text, by now.
    let mut server = Server::start(folder.path(), &[&models[..], &["--tasks", "v2v"]].concat());
    says(&waits(&server, &tiny), &["makes no videos from text"]);
    server.kill();
    let server = Server::start(folder.path(), &models);
    assert!(server.completed(&tiny)["waiting"].is_null());
}

#[test]
fn what_does_not_fit_by_now_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--device", "sim:64MB"]);
    let long = server.order(&json!({ "num_inference_steps": LONG }));
    let next = server.order(&json!({ "num_inference_steps": 1 }));
    server.until_step(&long, 1);
    server.kill();
    // As if another program had the rest.
    let mut server = Server::start(folder.path(), &["--device", "sim:1MB"]);
    for id in [&long, &next] {
        says(&waits(&server, id), &["sim:1MB"]);
    }
    server.kill();
    let server = Server::start(folder.path(), &["--device", "sim:64MB"]);
    server.until_step(&long, 1);
    server.post(&format!("/v1/videos/{long}/cancel"), &json!({})).ok();
    server.completed(&next);
}

/// A disk of its own, which is soon full.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// Nothing, if the system lets nobody but root have one.
    fn new(size: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        mount.stderr(std::process::Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(SmallDisk(folder));
        }
        println!("skipped: a small disk cannot be mounted here, which takes root");
        None
    }

    /// Writes until nothing goes on it any more.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        for length in [4096, 1] {
            while file.write_all(&vec![0; length]).is_ok() {}
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_under_a_job_delays_it_and_no_more() {
    let Some(disk) = SmallDisk::new("24m") else { return };
    let server = Server::start(disk.0.path(), &[]);
    let id = server.order(&json!({ "num_inference_steps": LONG }));
    server.until_step(&id, 1);
    disk.fill();
    // Its end cannot be noted in the queue either, but told.
    let video = server.until(&id, |video| video["waiting"].is_string());
    let why = video["waiting"].as_str().unwrap();
    assert!(video["error"].is_null(), "{video}");
    assert!(["room", "space", "full"].iter().any(|word| why.contains(word)), "{why}");
    let refused = server.post("/v1/videos", &json!({ "prompt": "x" })).error(503);
    assert_eq!(refused["code"], "disk_full");
    std::fs::remove_file(disk.0.path().join("filler")).unwrap();
    server.completed(&id);
}

#[cfg(target_os = "linux")]
#[test]
fn what_a_disk_has_no_room_for_is_not_accepted() {
    let Some(disk) = SmallDisk::new("3m") else { return };
    let server = Server::start(disk.0.path(), &[]);
    let answer = server.post("/v1/videos", &json!({ "prompt": "x" }));
    let refused = answer.error(503);
    assert_eq!(refused["code"], "disk_full");
    says(refused["message"].as_str().unwrap(), &["--queue-dir", "are free"]);
    assert_eq!(server.get("/v1/videos").ok()["data"], json!([]));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}
