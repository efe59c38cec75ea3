//! What operations cost on this machine: measured once, kept, and believed as long as the machine
//! is the same.
//!
//! - [`measure`] times a few operations of each class (`cases`) and fits the formula of
//!   [`vidfit_tensor::rates`] to them (`fit`).
//! - [`store`] keeps the result, one file for each number of threads. [`rates`] finds it again.

mod cases;
mod fit;
mod measure;

use crate::folders::Folders;
use crate::machine;
use crate::request::Warnings;
use crate::whole_file::write_whole;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use vidfit_tensor::Rates;

pub use measure::{ClassFit, Measured, ROUNDS, measure};

/// How much a predicted time is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// From rates measured on this machine.
    Measured,
    /// From what a card's maker publishes, and assumptions of what programs reach of it.
    Catalogue,
    /// From what such a device usually does.
    Guess,
}

impl std::fmt::Display for Certainty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Certainty::Measured => "calibrated on this machine",
            Certainty::Catalogue => "estimated from the card's published rates",
            Certainty::Guess => "a guess: `vidfit calibrate` measures this machine",
        })
    }
}

/// What a calibration holds for: the same processor, threads, instructions and program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What the processor calls itself.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Threads that compute.
    pub threads: usize,
    /// The widest instructions that the processor has.
    pub instructions: String,
    /// The program's version: kernels change.
    pub vidfit: String,
}

impl Machine {
    /// This machine, computing on `threads` threads; 0 means one for each core.
    pub fn this(threads: usize) -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            processor: machine::processor_name().unwrap_or_else(|| "unknown".into()),
            cores,
            threads: if threads == 0 { cores } else { threads },
            instructions: instructions().into(),
            vidfit: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") {
            return "x86-64 with AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return "x86-64 with AVX2";
        }
    }
    std::env::consts::ARCH
}

/// A calibration as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What it holds for.
    pub machine: Machine,
    /// The rates.
    pub rates: Rates,
}

/// A calibration could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}; set XDG_STATE_HOME to a folder that can be written to")]
pub struct CannotStore {
    path: PathBuf,
    source: std::io::Error,
}

/// The rates of the CPU device on `threads` threads (0: one for each core): those of a calibration
/// of this machine, or a guess. A file that cannot be read is a warning and counts as none.
pub fn rates(threads: usize, warnings: &mut Warnings) -> (Rates, Certainty) {
    let machine = Machine::this(threads);
    match load(&Folders::from_env().state, &machine, warnings) {
        Some(rates) => (rates, Certainty::Measured),
        None => (Rates::of_processor(machine.threads), Certainty::Guess),
    }
}

fn file(dir: &Path, threads: usize) -> PathBuf {
    dir.join(format!("calibration-cpu-{threads}-threads.json"))
}

/// The rates kept in `dir` for `machine`. Those of another machine, or of another version, are
/// silently not believed; a damaged file is a warning.
pub fn load(dir: &Path, machine: &Machine, warnings: &mut Warnings) -> Option<Rates> {
    let path = file(dir, machine.threads);
    let mut damaged = |why: String| {
        warnings.push(format!(
            "the calibration in {} cannot be used ({why}); `vidfit calibrate` makes a new one",
            path.display()
        ));
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            damaged(error.to_string());
            return None;
        }
    };
    // Whose it is comes first: another version's rates may have another form.
    #[derive(Deserialize)]
    struct Whose {
        machine: Machine,
    }
    match serde_json::from_str::<Whose>(&text) {
        Ok(whose) if whose.machine != *machine => return None,
        Ok(_) => {}
        Err(error) => {
            damaged(error.to_string());
            return None;
        }
    }
    match serde_json::from_str::<Calibration>(&text) {
        Ok(kept) if kept.rates.is_possible() => return Some(kept.rates),
        Ok(_) => damaged("its rates are no rates".into()),
        Err(error) => damaged(error.to_string()),
    }
    None
}

/// Keeps a calibration in `dir`, whole or not at all, and returns its path.
///
/// # Errors
/// [`CannotStore`] if the folder or the file cannot be written.
pub fn store(dir: &Path, calibration: &Calibration) -> Result<PathBuf, CannotStore> {
    let path = file(dir, calibration.machine.threads);
    let written = fs::create_dir_all(dir).and_then(|()| {
        write_whole(&path, |file| {
            serde_json::to_writer_pretty(&mut *file, calibration)?;
            file.write_all(b"\n")
        })
    });
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(CannotStore { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        let mut rates = Rates::of_processor(3);
        rates.linear.bf16.seconds_per_flop = 1.234_567_890_123e-12;
        Calibration { machine: Machine::this(3), rates }
    }

    #[test]
    fn what_was_kept_is_found_again_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("not/yet/there");
        let kept = calibration();
        store(&dir, &kept).unwrap();
        store(&dir, &kept).unwrap();
        let mut warnings = Warnings::new();
        assert_eq!(load(&dir, &kept.machine, &mut warnings), Some(kept.rates));
        assert_eq!(warnings, Warnings::new());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn another_machine_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = calibration();
        store(dir.path(), &kept).unwrap();
        let same = &kept.machine;
        let others = [
            Machine { processor: "another".into(), ..same.clone() },
            Machine { cores: same.cores + 1, ..same.clone() },
            Machine { threads: same.threads + 1, ..same.clone() },
            Machine { instructions: "another".into(), ..same.clone() },
            Machine { vidfit: "0.0.0".into(), ..same.clone() },
        ];
        let mut warnings = Warnings::new();
        for other in others {
            assert_eq!(load(dir.path(), &other, &mut warnings), None, "{other:?}");
        }
        assert_eq!(warnings, Warnings::new(), "nothing is wrong with it");
    }

    #[test]
    fn a_damaged_file_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = calibration();
        let path = store(dir.path(), &kept).unwrap();
        let good = fs::read(&path).unwrap();
        let warns = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let mut warnings = Warnings::new();
            assert_eq!(load(dir.path(), &kept.machine, &mut warnings), None, "{what}");
            assert_eq!(warnings.len(), 1, "{what}");
            assert!(warnings[0].contains("vidfit calibrate"), "{warnings:?}");
        };
        warns(&good[..good.len() / 2], "cut short");
        warns(b"", "empty");
        warns(&[0xff, 0xfe, 0x00], "no text");
        warns(b"{\"machine\": 3}", "another form");
        let negative =
            String::from_utf8(good.clone()).unwrap().replace("1.234567890123e-12", "-1.0");
        warns(negative.as_bytes(), "a negative rate");
        kept.rates.linear.f32.seconds_per_call = 0.0;
        store(dir.path(), &kept).unwrap();
        assert_eq!(load(dir.path(), &kept.machine, &mut Warnings::new()), Some(kept.rates));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = store(&file, &calibration()).unwrap_err();
        assert!(error.to_string().contains("XDG_STATE_HOME"), "{error}");
    }
}
