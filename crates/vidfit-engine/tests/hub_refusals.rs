//! Pulls that the hub refuses, that cannot be right, or that must not happen.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod hub_mock;

use std::fs;
use std::sync::atomic::AtomicBool;

use hub_mock::*;
use vidfit_engine::hub::{HubConfig, HubError, pull};

#[test]
fn refusals_say_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let outcome = |reply: Reply, token: Option<&str>, id: &str| {
        let server = server_of(reply);
        let mut config = server.config(cache.path());
        config.token = token.map(str::to_owned);
        let error = pull(id, &config, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(server.requests.lock().unwrap().len(), 1, "{error}: tried again");
        error
    };
    for status in [401, 403] {
        let error = outcome(Reply::new(status, "").with("X-Error-Code", "GatedRepo"), None, ID);
        let message = error.to_string();
        assert!(matches!(error, HubError::NoAccess { token_sent: false, .. }), "{message}");
        assert!(
            message.contains("HF_TOKEN") && message.contains("Accept the licence"),
            "{message}"
        );
    }
    let error = outcome(Reply::new(403, ""), Some("t"), ID);
    assert!(matches!(error, HubError::NoAccess { token_sent: true, .. }), "{error}");

    let gone = [
        Reply::new(404, ""),
        Reply::new(404, "").with("X-Error-Code", "RepoNotFound"),
        Reply::new(401, "").with("X-Error-Code", "RepoNotFound"),
    ];
    for reply in gone {
        let error = outcome(reply, None, "THUDM/CogVideoX-2B-I2V");
        assert!(matches!(error, HubError::NoSuchModel { .. }), "{error}");
        assert!(error.to_string().contains("did you mean zai-org/CogVideoX-5b-I2V?"), "{error}");
    }
    let revision = Reply::new(404, "").with("X-Error-Code", "RevisionNotFound");
    let error = outcome(revision, None, "zai-org/CogVideoX-2b@v9");
    assert!(error.to_string().contains("has no branch, tag or commit `v9`"), "{error}");
    assert!(fs::read_dir(cache.path()).unwrap().next().is_none(), "something was left behind");
}

#[test]
fn answers_that_make_no_sense() {
    let cache = tempfile::tempdir().unwrap();
    let listing = |sha: &str| format!(r#"{{"sha":"{sha}","siblings":[]}}"#);
    for reply in [
        Reply::new(200, "<html>"),
        Reply::new(200, "{}"),
        Reply::new(200, listing("main")),
        Reply::new(200, listing("../../0123456789abcdef0123456789abcdef01")),
        Reply::new(302, ""),
        Reply::new(302, "").with("Location", "file:///etc/passwd"),
        Reply::new(302, "").with("Location", "/again"),
        Reply::new(418, ""),
    ] {
        let what = String::from_utf8(reply.body.clone()).unwrap();
        let error = pull_quietly(&server_of(reply).config(cache.path())).unwrap_err();
        assert!(matches!(error, HubError::BadAnswer { .. }), "{what}: {error}");
    }
    let error = pull_quietly(&server_of(Reply::new(200, listing(COMMIT))).config(cache.path()));
    assert!(matches!(error, Err(HubError::NothingToPull { .. })), "{error:?}");
    for endpoint in ["", "huggingface", "ftp://x", "http://"] {
        let error = pull_quietly(&HubConfig::new(cache.path(), endpoint)).unwrap_err();
        assert!(matches!(error, HubError::BadConfig { .. }), "{endpoint}: {error}");
    }
}

#[test]
fn names_that_leave_the_folder() {
    for name in ["../evil.json", "vae/../../evil.json", "/evil.json", "vae/..", "c:/evil.json"] {
        let cache = tempfile::tempdir().unwrap();
        let body = format!(
            r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"model_index.json"}},{{"rfilename":"{name}"}}]}}"#
        );
        let server = server_of(Reply::new(200, body));
        let error = pull_quietly(&server.config(cache.path())).unwrap_err();
        assert!(matches!(&error, HubError::UnsafeName { name: n, .. } if n == name), "{error}");
        assert_eq!(server.file_requests(), 0);
    }
    // Checksums become file names, too.
    let cache = tempfile::tempdir().unwrap();
    let listing = format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"a.safetensors","size":1,"blobId":"../../../evil"}}]}}"#
    );
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/api/") {
            Reply::new(200, listing.clone())
        } else {
            Reply::new(200, "x").with("ETag", "\"../../../evil\"")
        }
    });
    let error = pull_quietly(&server.config(cache.path())).unwrap_err();
    assert!(matches!(error, HubError::BadAnswer { .. }), "{error}");
}

#[test]
fn the_token_stays_with_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let storage = {
        let repo = Repo::pipeline();
        Server::start(move |request, nth| match nth {
            // A signed address that has expired.
            0 => Reply::new(403, ""),
            _ => {
                let path = format!("/x/resolve/{COMMIT}/{WEIGHTS}");
                let headers = request.headers.clone();
                repo.reply(&Request { method: "GET".to_owned(), path, headers })
            }
        })
    };
    let storage_url = storage.url.clone();
    let server = server_with(move |request, _, reply| {
        if request.path.starts_with("/renamed") {
            Reply::new(302, "").with("Location", format!("{storage_url}/signed?key=secret"))
        } else if reply.status == 200 {
            Reply::new(307, "").with("Location", format!("/renamed/resolve/{WEIGHTS}"))
        } else {
            reply
        }
    });
    let mut config = server.config(cache.path());
    config.token = Some("hf_secret".to_owned());
    let (outcome, events) = pull_watched(&config);
    assert_complete(&Repo::pipeline(), &outcome.unwrap());

    let to_hub = server.requests.lock().unwrap();
    assert!(to_hub.iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(to_hub.iter().any(|r| r.path.starts_with("/renamed")));
    let to_storage = storage.requests.lock().unwrap();
    assert_eq!(to_storage.len(), 2);
    assert!(to_storage.iter().all(|r| r.header("authorization").is_none()));
    assert!(!format!("{events:?}").contains("secret"));
}

#[test]
fn offline_touches_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, _, reply| reply);
    let mut config = server.config(cache.path());
    config.offline = true;
    let error = pull_quietly(&config).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert!(server.requests.lock().unwrap().is_empty());
    assert!(fs::read_dir(cache.path()).unwrap().next().is_none());
}

#[test]
fn bad_ids_touch_no_network() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, _, reply| reply);
    for id in ["x", "../x", "a/b/c", "a/b@../c"] {
        let config = server.config(cache.path());
        let error = pull(id, &config, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, HubError::InvalidId { .. }), "{error}");
    }
    assert!(server.requests.lock().unwrap().is_empty());
}

#[test]
fn a_full_disk_is_noticed_before() {
    let cache = tempfile::tempdir().unwrap();
    let body = format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"a.safetensors","size":{},"blobId":"{COMMIT}"}}]}}"#,
        1u64 << 60
    );
    let server = server_of(Reply::new(200, body));
    let error = pull_quietly(&server.config(cache.path())).unwrap_err();
    assert!(error.to_string().contains("1073741824.0 GB still to download"), "{error}");
    assert_eq!(server.file_requests(), 0);
}
