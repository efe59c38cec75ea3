//! `kill -9`, at any moment.

use crate::jobs::{
    Moment, STEPS, begin, events, generate, is_half_written, kill, made, only_run, resume, spawn,
    succeeds,
};
use crate::support::{checkpoint, command, files, json, json_file, stderr, vidfit};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use vidfit_engine::safetensors::SafetensorsFile;

/// Numbers that look random and are the same in every run: splitmix64 (Steele et al. 2014).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }
}

/// Holds the steps that a run has computed, by its log, to what kills may cost: one each.
fn assert_at_most_one_again(run: &Path, name: &str) {
    let (mut last, mut is_fresh) = (0, true);
    for event in events(run) {
        match event["event"].as_str().unwrap() {
            "resumed" => is_fresh = true,
            "step" => {
                let step = event["steps_done"].as_u64().unwrap();
                let again = is_fresh && step == last && last > 0;
                assert!(step == last + 1 || again, "{name}: step {step} after {last}");
                (last, is_fresh) = (step, false);
            }
            _ => {}
        }
    }
    assert_eq!(last, json_file(run.join("request.json"))["steps"], "{name}");
}

/// Devices that a run goes on with: its own, a smaller card, a larger one, none.
const DEVICES: [Option<&str>; 5] = [None, None, Some("sim:6MB"), Some("sim:1GB"), Some("cpu")];

/// `kill -9` at 50 moments, some of them while a state is written, and some of them again while the run
/// goes on: it always goes on, does at most one step again, and comes to the same bytes.
#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes() {
    const KILLS: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    succeeds(&generate(folder.path(), &["-o", "v.gif"]));
    let takes = began.elapsed();
    let expected = made(folder.path());
    let latents = |folder: &Path| {
        let state = only_run(folder).unwrap().join("state.safetensors");
        SafetensorsFile::open(state).unwrap().bytes("latents").unwrap().to_vec()
    };
    assert!(latents(folder.path()).iter().any(|&byte| byte != 0));

    let (next, half_written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (never_begun, planned_again) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let one = |number: usize| {
        let mut draw = Draw(number as u64);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let moment = |draw: &mut Draw| match draw.below(3) {
            0 => Moment::InSave(1 + draw.below(STEPS as u64)),
            _ => Moment::After(takes.mul_f64(draw.below(1100) as f64 / 1000.0)),
        };
        kill(spawn(begin(folder, &["-o", "v.gif"])), folder, &moment(&mut draw));
        let count = |run: &Path| {
            half_written.fetch_add(usize::from(is_half_written(run)), Ordering::Relaxed);
        };
        let run = match only_run(folder) {
            Some(run) => run,
            None => {
                // It had no name yet: it begins anew.
                never_begun.fetch_add(1, Ordering::Relaxed);
                kill(spawn(begin(folder, &["-o", "v.gif"])), folder, &Moment::InSave(1));
                only_run(folder).unwrap()
            }
        };
        count(&run);
        while draw.below(3) == 0 {
            let again = command(folder, &["resume", "last", "--runs", "runs"]);
            kill(spawn(again), folder, &moment(&mut draw));
            count(&run);
        }
        let device = DEVICES[draw.below(DEVICES.len() as u64) as usize];
        let device: Vec<&str> = device.iter().flat_map(|device| ["--device", device]).collect();
        let output = resume(folder, &device);
        let name = format!("kill {number}, {device:?}");
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let was_again = stderr(&output).contains("planned again, with the same picture");
        planned_again.fetch_add(usize::from(was_again), Ordering::Relaxed);
        assert!(made(folder) == expected, "{name}: other bytes");
        assert_at_most_one_again(&run, &name);
        let left = files(&run);
        assert!(!left.iter().any(|file| file.starts_with('.')), "{name}: {left:?}");
        assert_eq!(
            json(&vidfit(folder, &["runs", "--runs", "runs", "--json"]))[0]["status"],
            "done"
        );
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let number @ ..KILLS = next.fetch_add(1, Ordering::Relaxed) {
                    one(number);
                }
            });
        }
    });
    println!(
        "a run takes {takes:?}; of {KILLS}, {never_begun:?} had not begun; {half_written:?} kills \
         left half a state; {planned_again:?} were planned again; all took {:?}",
        began.elapsed()
    );
    assert!(planned_again.into_inner() > 0);
    assert!(half_written.into_inner() > 0, "no kill came while a state was written");
}

/// What starts from an image or a video is killed before, between and after its phases, and goes on
/// without the file that it started from.
#[test]
fn what_starts_from_pixels_goes_on_without_their_file() {
    let source = tempfile::tempdir().unwrap();
    succeeds(&generate(source.path(), &["-o", "clip/", "--no-keep"]));
    let place = || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("clip")).unwrap();
        for frame in files(&source.path().join("clip")) {
            let name = Path::new("clip").join(frame);
            std::fs::copy(source.path().join(&name), folder.path().join(&name)).unwrap();
        }
        folder
    };
    let model = checkpoint("5b-i2v");
    let image = ["--model", model.to_str().unwrap(), "--image", "clip/frame_00000.png"];
    let moments = || {
        let phases = ["text", "encode", "encode", "denoise", "decode"].map(Moment::Began);
        phases.into_iter().chain([1, 3].map(Moment::InSave)).enumerate()
    };
    for start in [image, ["--video", "clip", "--strength", "0.7"]] {
        let more = [&start[..], &["-o", "v.gif"]].concat();
        let whole = place();
        succeeds(&generate(whole.path(), &more));
        let expected = made(whole.path());
        let (mut before_encoding, mut after_encoding) = (0, 0);
        for (number, moment) in moments() {
            let name = format!("{start:?}, kill {number}");
            let folder = place();
            let folder = folder.path();
            kill(spawn(begin(folder, &more)), folder, &moment);
            std::fs::remove_dir_all(folder.join("clip")).unwrap();
            let run = only_run(folder).unwrap();
            let has_state = run.join("state.safetensors").exists();
            match run.join("input").exists() {
                true => before_encoding += usize::from(has_state),
                false => after_encoding += 1,
            }
            let output = resume(folder, &[]);
            assert!(output.status.success(), "{name}: {}", stderr(&output));
            assert!(made(folder) == expected, "{name}: other bytes");
            assert_at_most_one_again(&run, &name);
            assert!(!run.join("input").exists(), "{name}");
        }
        assert!(before_encoding > 0, "{start:?}: no kill came between text and encode");
        assert!(after_encoding > 0, "{start:?}: all kills came before it was encoded");
    }
}
