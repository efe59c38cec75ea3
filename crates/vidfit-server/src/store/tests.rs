//! Tests of the database by itself.

use super::*;
use crate::order::Task;
use tempfile::TempDir;

fn folders() -> (TempDir, Folders) {
    let folder = TempDir::new().unwrap();
    let folders = Folders { root: folder.path().into() };
    (folder, folders)
}

fn new(id: &str) -> NewJob {
    NewJob {
        id: id.into(),
        key: None,
        digest: "d".into(),
        order: Order { prompt: "p".into(), guidance_scale: Some(0.1 + 0.2), ..Order::default() },
        settled: Settled {
            task: Task::T2v,
            model: "demo".into(),
            width: 64,
            height: 64,
            num_frames: 17,
            fps: 8.0,
            num_inference_steps: 4,
            guidance_scale: 6.0,
            seed: u64::MAX,
            warnings: vec![],
            plan: None,
        },
        reference: None,
    }
}

#[test]
fn what_is_written_is_read() {
    let (_folder, folders) = folders();
    let wanted = new("video_1");
    let store = Store::open(&folders, None).unwrap();
    store.accept(&wanted, 1).unwrap();
    drop(store);
    let job = Store::open(&folders, None).unwrap().job("video_1").unwrap().unwrap();
    assert_eq!((job.order, job.settled), (wanted.order, wanted.settled));
    assert_eq!((job.status, job.crashes, job.cancel), (Status::Queued, 0, false));
}

#[test]
fn what_is_committed_has_reached_the_disk() {
    let (_folder, folders) = folders();
    let store = Store::open(&folders, None).unwrap();
    let ask = |pragma: &str| -> String {
        let database = store.database();
        let value = database
            .query_row(&format!("PRAGMA {pragma}"), [], |row| Ok(format!("{:?}", row.get_ref(0)?)));
        value.unwrap()
    };
    assert_eq!(ask("synchronous"), "Integer(2)");
    assert!(ask("journal_mode").contains("[119, 97, 108]"), "{}", ask("journal_mode"));
}

#[test]
fn a_database_of_a_newer_program_is_refused() {
    let (_folder, folders) = folders();
    drop(Store::open(&folders, None).unwrap());
    let database = Connection::open(folders.database()).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(database);
    let error = Store::open(&folders, None).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }));
    assert!(error.to_string().contains("newer vidfit"));
}

#[test]
fn what_is_no_queue_is_left_alone() {
    let (_folder, folders) = folders();
    let database = Connection::open(folders.database()).unwrap();
    database.execute_batch("CREATE TABLE cakes (name TEXT)").unwrap();
    drop(database);
    assert!(matches!(Store::open(&folders, None), Err(StoreError::Foreign { .. })));
    std::fs::write(folders.database(), "these are my notes, not a database".repeat(99)).unwrap();
    assert!(matches!(Store::open(&folders, None), Err(StoreError::Foreign { .. })));
}

#[test]
fn a_job_ends_once() {
    let (_folder, folders) = folders();
    let store = Store::open(&folders, None).unwrap();
    store.accept(&new("video_1"), 1).unwrap();
    assert!(store.start("video_1").unwrap());
    assert!(!store.start("video_1").unwrap());
    let outcome = Outcome::default();
    assert!(store.finish("video_1", Status::Completed, &outcome).unwrap());
    assert!(!store.finish("video_1", Status::Failed, &outcome).unwrap());
    store.requeue("video_1", true).unwrap();
    assert_eq!(store.cancel("video_1").unwrap(), Cancelled::Over);
    assert_eq!(store.job("video_1").unwrap().unwrap().status, Status::Completed);
}

#[test]
fn what_was_to_be_cancelled_when_all_ended_is_cancelled() {
    let (_folder, folders) = folders();
    let store = Store::open(&folders, None).unwrap();
    for id in ["video_1", "video_2", "video_3"] {
        store.accept(&new(id), 9).unwrap();
        store.start(id).unwrap();
    }
    assert_eq!(store.cancel("video_1").unwrap(), Cancelled::Running);
    store.delete("video_3").unwrap();
    assert_eq!(store.recover().unwrap(), ["video_3"]);
    let status = |id| store.any_job(id).unwrap().unwrap().status;
    assert_eq!((status("video_1"), status("video_2")), (Status::Cancelled, Status::Queued));
    assert_eq!(store.queue().unwrap(), ["video_2"]);
    // A crash is no reason to begin what is not wanted either.
    store.start("video_2").unwrap();
    store.cancel("video_2").unwrap();
    store.requeue("video_2", true).unwrap();
    assert_eq!(status("video_2"), Status::Cancelled);
}

#[test]
fn what_has_begun_goes_before_what_is_urgent() {
    let (_folder, folders) = folders();
    let store = Store::open(&folders, None).unwrap();
    let mut urgent = new("video_2");
    urgent.order.priority = 9;
    store.accept(&new("video_1"), 9).unwrap();
    store.start("video_1").unwrap();
    store.accept(&urgent, 9).unwrap();
    store.requeue("video_1", false).unwrap();
    assert_eq!(store.queue().unwrap(), ["video_1", "video_2"]);
}
