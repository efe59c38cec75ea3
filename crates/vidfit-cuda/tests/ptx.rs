//! The PTX that is part of the program is that of the sources.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MADE: &str = "run `python3 crates/vidfit-cuda/kernels/make_ptx.py`";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder with one of these endings, by name.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let is_meant = |path: &PathBuf| {
        path.extension().is_some_and(|ending| endings.iter().any(|other| ending == *other))
    };
    let mut files: Vec<PathBuf> = entries.filter(is_meant).collect();
    files.sort();
    files
}

/// Of all sources, as `make_ptx.py` does it.
fn digest() -> String {
    let mut whole = Sha256::new();
    for path in files("kernels", &["cu", "cuh"]) {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        whole.update(format!("{name} {}\n", bytes.len()));
        whole.update(&bytes);
    }
    hex(whole.finalize().as_slice())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernels in PTX.
fn entries(ptx: &str) -> BTreeSet<&str> {
    ptx.split(".visible .entry ").skip(1).map(|text| text.split('(').next().unwrap()).collect()
}

#[test]
fn it_was_made_after_the_last_change_of_a_kernel() {
    let digest = digest();
    let made = files("ptx", &["ptx"]);
    assert_eq!(made.len(), 2, "{made:?}");
    for path in made {
        let ptx = std::fs::read_to_string(&path).unwrap();
        let (first, below) = ptx.split_once('\n').unwrap();
        let (_, said) = first.split_once("SHA-256 of the sources: ").unwrap();
        let (of_sources, of_below) = said.split_once(", of what is below: ").unwrap();
        assert_eq!(of_sources, digest, "{}: a kernel changed; {MADE}", path.display());
        let is_whole = of_below == hex(Sha256::digest(below).as_slice());
        assert!(is_whole, "{}: it is not what was made; {MADE}", path.display());
        assert!(ptx.contains("\n.version 8.0\n"), "{}: drivers from 525.60.13 on", path.display());
    }
}

#[test]
fn every_kernel_is_there_and_launched() {
    let mut ops = String::new();
    for path in files("src/ops", &["rs"]) {
        ops += &std::fs::read_to_string(path).unwrap();
    }
    let named: BTreeSet<&str> = ops.split('"').skip(1).step_by(2).collect();
    let mut unlaunched = Vec::new();
    for path in files("ptx", &["ptx"]) {
        let ptx = std::fs::read_to_string(&path).unwrap();
        let kernels = entries(&ptx);
        assert!(!kernels.is_empty());
        unlaunched.extend(kernels.difference(&named).map(|kernel| (*kernel).to_owned()));
        // What is launched is the first argument of `launch`, or of a function that passes it on.
        for text in ops.split("launch(").skip(1) {
            let Some(name) = text.trim_start().strip_prefix('"') else { continue };
            let name = name.split('"').next().unwrap();
            assert!(kernels.contains(name), "{} has no kernel {name}; {MADE}", path.display());
        }
    }
    assert_eq!(unlaunched, [""; 0], "nobody launches these kernels");
}
