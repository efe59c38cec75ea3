//! Directories of runs: whatever is in one, it is listed, opened or refused, and can be taken away.
#![no_main]

mod file;

use file::Kept;
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::planner::SavedPlan;
use vidfit_engine::request::{Job, Request};
use vidfit_engine::runs::{INPUT, LOG, PLAN, REPORT, REQUEST, RunId, Runs, STATE};

/// The files of a run, in the order that a fuzzer's bytes are cut up for them.
const FILES: [&str; 6] = [REQUEST, REPORT, LOG, "lock", PLAN, STATE];

/// What the run starts from: the bytes of the state again, as zeros are a part of both.
const PIXELS: &str = "input/pixels.safetensors";

/// Values of the prompts' embeddings of [`job`].
const EMBEDS: usize = 2 * 226 * 4096;

/// Some job, to hold states to.
fn job() -> &'static Job {
    static JOB: OnceLock<Job> = OnceLock::new();
    JOB.get_or_init(|| {
        let request = Request { frames: Some(9), ..Request::new("") };
        Job::new(&Checkpoint::published(Variant::TwoB), &request).expect("a job").0
    })
}

fuzz_target!(|bytes: &[u8]| {
    let kept = Kept::new();
    let runs = Runs::in_folder(kept.folder());
    let id = RunId::parse("20261123-181530-k3f").expect("a name");
    let folder = runs.folder_of(&id);
    std::fs::create_dir(&folder).expect("a folder in the folder");
    std::fs::create_dir(folder.join(INPUT)).expect("a folder in the folder");
    // Each but the last ends at a zero, or is not there.
    let parts = bytes.splitn(FILES.len(), |&byte| byte == 0);
    for (name, part) in FILES.into_iter().zip(parts).filter(|(_, part)| !part.is_empty()) {
        std::fs::write(folder.join(name), part).expect("a file in the folder");
        if name == STATE {
            std::fs::write(folder.join(PIXELS), part).expect("a file in the folder");
        }
    }
    let looked = runs.look(&id);
    assert_eq!(runs.list().expect("a folder of runs").len(), 1);
    assert_eq!(runs.find("2026").expect("the only run"), id);
    let _ = SavedPlan::load(&folder.join(PLAN));
    if let Ok(run) = runs.open(&id) {
        assert_eq!(Some(run.record()), looked.record.as_ref());
        let _ = run.state(job(), EMBEDS);
        let _ = run.pixels();
        run.go_on();
        assert!(!run.is_done());
    } else {
        assert!(looked.record.is_none());
    }
    runs.remove(&id).expect("a run that nobody works on");
    assert!(!folder.exists());
});
