//! Pulls from a hub that works: layout of the cache, choice of files, what is found afterwards.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod hub_mock;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use hub_mock::*;
use vidfit_engine::hub::{
    HubConfig, HubError, ModelSource, PullEvent, PullProgress, list_local, pull, resolve,
};

fn progress_of(events: &[PullEvent]) -> Vec<PullProgress> {
    let progress = |event: &PullEvent| match event {
        PullEvent::Progress(progress) => Some(progress.clone()),
        _ => None,
    };
    events.iter().filter_map(progress).collect()
}

#[test]
fn the_cache_has_the_layout_of_python() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| repo.reply(request));
    let snapshot = pull_quietly(&server.config(cache.path())).unwrap();

    let repo = Repo::pipeline();
    assert_complete(&repo, &snapshot);
    let model = cache.path().join("models--zai-org--CogVideoX-2b");
    assert_eq!(snapshot, model.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    let mut blobs: Vec<String> = fs::read_dir(model.join("blobs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names = ["model_index.json", "transformer/config.json", WEIGHTS, "vae/config.json"];
    let mut expected: Vec<String> = names.iter().map(|name| repo.etag(name)).collect();
    expected.push(repo.etag("vae/diffusion_pytorch_model.safetensors"));
    blobs.sort();
    expected.sort();
    assert_eq!(blobs, expected);
    #[cfg(unix)]
    {
        let target = |file: &str| fs::read_link(snapshot.join(file)).unwrap();
        let blob = |file: &str| repo.etag(file);
        let top = format!("../../blobs/{}", blob("model_index.json"));
        assert_eq!(target("model_index.json"), Path::new(&top));
        let below = format!("../../../blobs/{}", blob(WEIGHTS));
        assert_eq!(target(WEIGHTS), Path::new(&below));
    }
    // Nothing temporary is left beside the links.
    assert_eq!(fs::read_dir(snapshot.join("transformer")).unwrap().count(), 2);
}

#[test]
fn a_second_pull_downloads_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| repo.reply(request));
    let config = server.config(cache.path());
    let first = pull_quietly(&config).unwrap();
    let requests = server.file_requests();
    assert_eq!(requests, 5);
    let (second, events) = pull_watched(&config);
    assert_eq!(second.unwrap(), first);
    assert_eq!(server.file_requests(), requests);
    assert_eq!(events.len(), 1, "{events:?}");
    match &events[0] {
        PullEvent::Planned { files: 5, total_bytes, cached_bytes, commit } => {
            assert_eq!(total_bytes, cached_bytes);
            assert_eq!(commit, COMMIT);
        }
        other => panic!("{other:?}"),
    }

    // A link that was lost is made again from its blob.
    fs::remove_file(first.join(WEIGHTS)).unwrap();
    pull_quietly(&config).unwrap();
    assert_eq!(server.file_requests(), requests);
    assert_complete(&Repo::pipeline(), &first);
}

#[test]
fn progress_adds_up() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| repo.reply(request));
    let (outcome, events) = pull_watched(&server.config(cache.path()));
    outcome.unwrap();
    let progress = progress_of(&events);
    let done: Vec<u64> = progress.iter().map(|p| p.done_bytes).collect();
    assert!(done.is_sorted(), "{done:?}");
    let last = progress.last().unwrap();
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(last.bytes_per_second > 0.0);
    assert_eq!(last.seconds_left, Some(0.0));
    let finished = events.iter().filter(|e| matches!(e, PullEvent::FileDone { .. })).count();
    assert_eq!(finished, 4, "all but the index, which is fetched before the plan");
}

#[test]
fn names_only_listings_are_completed_by_headers() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Server::start(|_, _| Reply::new(500, "contents are not wanted here"));
    let storage_url = storage.url.clone();
    let repo = Repo { describes_blobs: false, ..Repo::pipeline() };
    let server = Server::start(move |request, _| {
        let reply = repo.reply(request);
        if request.method == "HEAD" && request.is_for(WEIGHTS) {
            let size = reply.body.len();
            let etag = repo.etag(WEIGHTS);
            return Reply::new(302, "")
                .with("Location", format!("{storage_url}/signed"))
                .with("X-Linked-ETag", format!("\"{etag}\""))
                .with("X-Linked-Size", size);
        }
        reply
    });
    let snapshot = pull_quietly(&server.config(cache.path())).unwrap();
    assert_complete(&Repo::pipeline(), &snapshot);
    assert!(storage.requests.lock().unwrap().is_empty());
    let blobs = snapshot.join("../../blobs");
    assert!(blobs.join(Repo::pipeline().etag(WEIGHTS)).exists());
}

#[test]
fn revisions() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| repo.reply(request));
    let config = server.config(cache.path());
    let none = AtomicBool::new(false);
    let by_branch = format!("{ID}@refs/pr/1");
    let by_commit = format!("{ID}@{COMMIT}");
    pull(&by_branch, &config, &mut |_| {}, &none).unwrap();
    let asked = server.requests.lock().unwrap()[0].path.clone();
    assert_eq!(asked, format!("/api/models/{ID}/revision/refs%2Fpr%2F1?blobs=true"));
    let model = cache.path().join("models--zai-org--CogVideoX-2b");
    assert_eq!(fs::read_to_string(model.join("refs/refs/pr/1")).unwrap(), COMMIT);

    // The main branch was not asked for, so nobody knows what it stands for.
    assert!(matches!(resolve(ID, &config), Err(HubError::NotCached { .. })));
    let found = resolve(&by_branch, &config).unwrap();
    assert_eq!(resolve(&by_commit, &config).unwrap().dir, found.dir);
    pull(&by_commit, &config, &mut |_| {}, &none).unwrap();
    assert_eq!(fs::read_dir(model.join("refs")).unwrap().count(), 1);
    assert_eq!(list_local(&config).unwrap()[0].revisions, ["refs/pr/1"]);
}

#[test]
fn the_owner_has_two_names() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| repo.reply(request));
    let config = server.config(cache.path());
    let snapshot = pull_quietly(&config).unwrap();
    let found = resolve("THUDM/CogVideoX-2b", &config).unwrap();
    assert_eq!(found.dir, snapshot);
    match found.source {
        ModelSource::Cache { id, commit } => {
            assert_eq!((id.to_string().as_str(), commit.as_str()), (ID, COMMIT));
        }
        ModelSource::Folder => panic!("not from the cache"),
    }
    let requests = server.file_requests();
    let none = AtomicBool::new(false);
    let again = pull("THUDM/CogVideoX-2b", &config, &mut |_| {}, &none).unwrap();
    assert_eq!((again, server.file_requests()), (snapshot, requests));
}

#[test]
fn the_cache_is_listed() {
    let cache = tempfile::tempdir().unwrap();
    assert!(list_local(&HubConfig::new(cache.path().join("none"), "http://x")).unwrap().is_empty());
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| repo.reply(request));
    let config = server.config(cache.path());
    let snapshot = pull_quietly(&config).unwrap();
    // Things that are no diffusers models.
    fs::create_dir_all(cache.path().join("models--a--b/snapshots").join(COMMIT)).unwrap();
    fs::create_dir_all(cache.path().join("datasets--a--b")).unwrap();
    fs::create_dir_all(cache.path().join("models--broken")).unwrap();

    let models = list_local(&config).unwrap();
    assert_eq!(models.len(), 1);
    let model = &models[0];
    assert_eq!((model.id.as_str(), model.commit.as_str()), (ID, COMMIT));
    assert_eq!(model.revisions, ["main"]);
    assert_eq!(model.dir, snapshot);
    assert_eq!(model.pipeline_class.as_deref(), Some("CogVideoXPipeline"));
    let repo = Repo::pipeline();
    let names = ["model_index.json", "transformer/config.json", WEIGHTS, "vae/config.json"];
    let mut bytes: usize = names.iter().map(|name| repo.content(name).len()).sum();
    bytes += repo.content("vae/diffusion_pytorch_model.safetensors").len();
    assert_eq!(model.bytes, bytes as u64);
}

#[test]
fn what_a_model_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let config = HubConfig::new(folder.path().join("cache"), "http://127.0.0.1:9");
    let path = folder.path().to_str().unwrap();
    let found = resolve(path, &config).unwrap();
    assert_eq!((found.dir.as_path(), found.source), (folder.path(), ModelSource::Folder));

    let message = |model: &str| resolve(model, &config).unwrap_err().to_string();
    for id in ["zai-org/CogVideoX-5b", "me/model@v1"] {
        assert!(message(id).contains(&format!("`vidfit models pull {id}`")), "{}", message(id));
    }
    for neither in ["", "CogVideoX", "./none", "/none/at/all", "../a", "a/../b", "a/b/c", "a\\b"] {
        let message = message(neither);
        assert!(message.contains("neither an existing folder nor a hub id"), "{message}");
        assert!(message.contains("model_index.json") && message.contains("OWNER/NAME"));
    }
    let file = folder.path().join("weights.safetensors");
    fs::write(&file, "").unwrap();
    assert!(message(file.to_str().unwrap()).contains("is a file"));
}

#[test]
fn a_reference_without_its_snapshot_is_not_cached() {
    let cache = tempfile::tempdir().unwrap();
    let config = HubConfig::new(cache.path(), "http://127.0.0.1:9");
    let refs = cache.path().join("models--a--b/refs");
    fs::create_dir_all(&refs).unwrap();
    for content in [COMMIT, "../../../etc", ""] {
        fs::write(refs.join("main"), content).unwrap();
        assert!(matches!(resolve("a/b", &config), Err(HubError::NotCached { .. })), "{content}");
    }
}
