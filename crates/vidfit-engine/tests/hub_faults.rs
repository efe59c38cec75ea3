//! Pulls from hubs and over networks that fail.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod hub_mock;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hub_mock::*;
use vidfit_engine::hub::{HubConfig, HubError, PullEvent, pull, resolve};

fn partial_of_weights(cache: &Path) -> std::path::PathBuf {
    let blobs = cache.join("models--zai-org--CogVideoX-2b/blobs");
    blobs.join(format!("{}.incomplete", Repo::pipeline().etag(WEIGHTS)))
}

#[test]
fn cut_connections_are_continued() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, nth, reply| match nth {
        0 => reply.cut_after(100_000),
        1..=8 => reply.cut_after(7_000),
        _ => reply,
    });
    let mut config = server.config(cache.path());
    // More cuts than failures in a row are allowed, but each gains something.
    config.max_failures = 3;
    let (outcome, events) = pull_watched(&config);
    assert_complete(&Repo::pipeline(), &outcome.unwrap());
    let ranges = server.ranges(WEIGHTS);
    assert_eq!(ranges[0], None);
    for (i, range) in ranges[1..].iter().enumerate() {
        assert_eq!(range.as_deref().unwrap(), format!("bytes={}-", 100_000 + 7_000 * i));
    }
    let retries = events.iter().filter(|e| matches!(e, PullEvent::Retrying { .. })).count();
    assert_eq!((retries, ranges.len()), (9, 10));
    assert!(!partial_of_weights(cache.path()).exists());
}

#[test]
fn a_server_without_ranges_starts_over() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, nth, _| {
        let whole = Reply::new(200, Repo::pipeline().content(WEIGHTS));
        if nth < 3 { whole.cut_after(100_000 + nth) } else { whole }
    });
    let snapshot = pull_quietly(&server.config(cache.path())).unwrap();
    assert_complete(&Repo::pipeline(), &snapshot);
    assert_eq!(server.ranges(WEIGHTS)[1].as_deref(), Some("bytes=100000-"));
}

#[test]
fn a_server_that_continues_elsewhere_is_not_believed() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, nth, reply| match nth {
        0 => reply.cut_after(50_000),
        1 => Reply::new(206, "x").with("Content-Range", "bytes 7-7/300000"),
        2 => reply.cut_after(50_000),
        3 => Reply::new(416, ""),
        _ => reply,
    });
    let snapshot = pull_quietly(&server.config(cache.path())).unwrap();
    assert_complete(&Repo::pipeline(), &snapshot);
    let ranges = server.ranges(WEIGHTS);
    assert_eq!((&ranges[2], &ranges[4]), (&None, &None));
}

#[test]
fn an_aborted_pull_is_resumed() {
    let cache = tempfile::tempdir().unwrap();
    let server =
        server_with(|_, nth, reply| if nth == 0 { reply.stall_after(120_000) } else { reply });
    let config = server.config(cache.path());
    let cancel = AtomicBool::new(false);
    let start = Instant::now();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            let partial = partial_of_weights(cache.path());
            while fs::metadata(&partial).map_or(0, |about| about.len()) < 120_000 {
                assert!(start.elapsed() < Duration::from_secs(10));
                thread::sleep(Duration::from_millis(5));
            }
            cancel.store(true, Ordering::Relaxed);
        });
        pull(ID, &config, &mut |_| {}, &cancel)
    });
    assert!(matches!(outcome, Err(HubError::Cancelled)), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "it waited for the silent connection");
    assert_eq!(fs::metadata(partial_of_weights(cache.path())).unwrap().len(), 120_000);
    assert!(matches!(resolve(ID, &config), Err(HubError::NotCached { .. })));

    let (outcome, events) = pull_watched(&config);
    assert_complete(&Repo::pipeline(), &outcome.unwrap());
    assert_eq!(server.ranges(WEIGHTS)[1].as_deref(), Some("bytes=120000-"));
    let cached = events.iter().find_map(|event| match event {
        PullEvent::Planned { cached_bytes, .. } => Some(*cached_bytes),
        _ => None,
    });
    assert!(cached.unwrap() > 120_000);
}

#[test]
fn a_silent_connection_counts_as_cut() {
    let cache = tempfile::tempdir().unwrap();
    let server =
        server_with(|_, nth, reply| if nth == 0 { reply.stall_after(1000) } else { reply });
    let mut config = server.config(cache.path());
    config.stall_timeout = Duration::from_millis(300);
    let start = Instant::now();
    assert_complete(&Repo::pipeline(), &pull_quietly(&config).unwrap());
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(server.ranges(WEIGHTS)[1].as_deref(), Some("bytes=1000-"));
}

#[test]
fn damaged_contents_are_tried_once_more() {
    let cache = tempfile::tempdir().unwrap();
    let spoil = |mut reply: Reply| {
        reply.body[1234] ^= 1;
        reply
    };
    let server = server_with(move |_, nth, reply| if nth == 0 { spoil(reply) } else { reply });
    let (outcome, events) = pull_watched(&server.config(cache.path()));
    assert_complete(&Repo::pipeline(), &outcome.unwrap());
    let told = |event: &PullEvent| match event {
        PullEvent::Retrying { reason, .. } => reason.contains("its checksum is"),
        _ => false,
    };
    assert!(events.iter().any(told), "{events:?}");
    assert_eq!(server.ranges(WEIGHTS), [None, None]);

    let cache = tempfile::tempdir().unwrap();
    let server = server_with(move |_, _, reply| spoil(reply));
    let config = server.config(cache.path());
    let error = pull_quietly(&config).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(WEIGHTS), "{error}");
    assert_eq!(server.ranges(WEIGHTS).len(), 2);
    assert!(!partial_of_weights(cache.path()).exists());
    assert!(matches!(resolve(ID, &config), Err(HubError::NotCached { .. })));
}

#[test]
fn small_files_are_checked_as_git_names_them() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, _| {
        let mut reply = repo.reply(request);
        if request.is_for("vae/config.json") {
            reply.body[0] ^= 1;
        }
        reply
    });
    let error = pull_quietly(&server.config(cache.path())).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { file, .. } if file == "vae/config.json"));
}

#[test]
fn too_much_is_damage() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, nth, mut reply| {
        if nth == 0 {
            reply.body.extend([0; 10]);
        }
        reply
    });
    assert_complete(&Repo::pipeline(), &pull_quietly(&server.config(cache.path())).unwrap());
}

#[test]
fn what_an_earlier_run_left_is_not_believed() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, _, reply| reply);
    let partial = partial_of_weights(cache.path());
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    for left in [vec![1; 1000], vec![1; 300_000], vec![1; 300_001]] {
        fs::write(&partial, left).unwrap();
        let snapshot = pull_quietly(&server.config(cache.path())).unwrap();
        assert_complete(&Repo::pipeline(), &snapshot);
        fs::remove_file(snapshot.join(WEIGHTS)).unwrap();
        fs::remove_file(partial.with_extension("")).unwrap();
    }
}

#[test]
fn busy_servers_are_given_time() {
    let cache = tempfile::tempdir().unwrap();
    let repo = Repo::pipeline();
    let server = Server::start(move |request, nth| match nth {
        0 => Reply::new(429, "").with("Retry-After", 1),
        1 => Reply::new(503, ""),
        // Longer than anyone waits.
        2 if request.is_for(WEIGHTS) => Reply::new(500, "").with("Retry-After", 999_999),
        _ => repo.reply(request),
    });
    let mut config = server.config(cache.path());
    config.retry_after_cap = Duration::from_millis(20);
    let (outcome, events) = pull_watched(&config);
    assert_complete(&Repo::pipeline(), &outcome.unwrap());
    let waits: Vec<Duration> = events
        .iter()
        .filter_map(|event| match event {
            PullEvent::Retrying { wait, .. } => Some(*wait),
            _ => None,
        })
        .collect();
    assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(20)), "{waits:?}");
    assert!(waits.contains(&Duration::from_millis(20)), "{waits:?}");
}

#[test]
fn broken_servers_are_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, _, _| Reply::new(502, ""));
    let mut config = server.config(cache.path());
    config.max_failures = 4;
    let error = pull_quietly(&config).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(error.to_string().contains("status 502"), "{error}");
    assert_eq!(server.ranges(WEIGHTS).len(), 4);

    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = HubConfig::new(cache.path(), format!("http://{closed}"));
    config.first_backoff = Duration::from_millis(1);
    let error = pull_quietly(&config).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
}

#[test]
fn two_pulls_at_once_download_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = server_with(|_, _, reply| {
        thread::sleep(Duration::from_millis(500));
        reply
    });
    let config = Arc::new(server.config(cache.path()));
    let pulls: Vec<_> = (0..3)
        .map(|_| {
            let config = config.clone();
            thread::spawn(move || pull_watched(&config))
        })
        .collect();
    let mut waited = false;
    for pull in pulls {
        let (outcome, events) = pull.join().unwrap();
        assert_complete(&Repo::pipeline(), &outcome.unwrap());
        waited |= events.iter().any(|e| matches!(e, PullEvent::Waiting { .. }));
    }
    assert!(waited);
    assert_eq!(server.ranges(WEIGHTS), [None]);
}
