//! A file of weights that shrinks while a run reads it ends the run with an error, not the program.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use support::{Case, fixtures};
use vidfit_cpu::{SimConfig, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::planner::{Ask, Offload, Target};
use vidfit_tensor::{DType, Device};

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

/// Shrinks every file of weights in `folder` to its header and a little more.
fn shrink(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 4).unwrap();
        }
    }
}

#[test]
fn weights_that_vanish_are_an_error_of_the_run() {
    let case = Case::named("5b-dpm");
    for component in ["text_encoder", "transformer", "vae"] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("checkpoint");
        copy(&fixtures().join("checkpoints").join(&case.checkpoint), &dir);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let device = Arc::new(SimDevice::new(SimConfig::new(1 << 30)).unwrap());
        let target = Target::of_device(&*device, 1 << 30);
        let request = case.request(DType::F32);
        let offload = Offload::Sequential;
        let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
        let prepared = generate::prepare_for(&ask).unwrap();
        shrink(&dir.join(component));
        let options = RunOptions {
            stop: &AtomicBool::new(false),
            listener: Box::new(|_| {}),
            keep_tensors: false,
            capacity_bytes: u64::MAX,
            poison: true,
            pixels: None,
            state: None,
            replan: false,
            keep: None,
        };
        let on: Arc<dyn Device> = device.clone();
        let error = match generate::run(&checkpoint, &prepared, &on, options) {
            Err(error) => error,
            Ok(_) => panic!("{component} was not needed"),
        };
        assert!(error.to_string().contains(component), "{component}: {error}");
        match (&error, component) {
            // All steps are done by the time that the decoder is missed.
            (EngineError::Stopped { state, .. }, "vae") => {
                assert_eq!(state.as_ref().unwrap().steps_done, prepared.job.steps.len());
            }
            // The text encoder has done its work.
            (EngineError::Stopped { state, .. }, "transformer") => {
                assert_eq!(state.as_ref().unwrap().steps_done, 0);
            }
            (EngineError::Stopped { state, .. }, _) => assert!(state.is_none()),
            // Rows of the embedding are read by the host itself.
            (EngineError::Run(_), "text_encoder") => {}
            _ => panic!("{component}: {error}"),
        }
        assert_eq!(device.held_bytes(), 0);
        assert_eq!(device.violations(), Vec::<String>::new());
    }
}
