//! What the tests run on: this machine's card; or the emulation's programs and libraries, compiled by g++
//! when a test first needs them. Tests of other crates use this file, too.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use vidfit_cuda::{Cuda, check_up};

/// The machine's first card; or nothing, and it is said why, where also a test that passes is heard.
pub fn card() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(card) => Some(card),
        Err(error) => {
            // A machine with a card that works must not pass by skipping.
            let found = check_up();
            let is_usable = found.cards.iter().any(|(_, problem)| problem.is_none());
            assert!(!is_usable || !found.missing.is_empty(), "{error}\n{found:#?}");
            let _ = writeln!(std::io::stderr(), "skipped: {error}");
            None
        }
    }
}

/// A `libcuda.so` over the emulation, in a folder of its own.
pub fn driver() -> PathBuf {
    let flags = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden"];
    compiled("driver.cpp", "driver/libcuda.so", &flags)
}

/// A file of the emulation, compiled once for all tests, as long as no source changes.
pub fn compiled(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vidfit-cuda");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(name);
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    // One test program compiles, the others wait.
    let lock = File::create(folder.join(format!("{}.lock", name.replace('/', "-")))).unwrap();
    lock.lock().unwrap();
    if newest(&[crate_root.join("kernels"), crate_root.join("emulation")])
        > modified(&program).unwrap_or(std::time::UNIX_EPOCH)
    {
        let part = folder.join(format!("{}.part", name.replace('/', "-")));
        let done = Command::new("g++")
            .args(["-std=c++17", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
            .args(flags)
            .args(["-DKERNELS=\"../kernels/all.cu\"", "-o"])
            .arg(&part)
            .arg(crate_root.join("emulation").join(source))
            .output()
            .expect("g++, which also the build of the program needs");
        assert!(done.status.success(), "g++: {}", String::from_utf8_lossy(&done.stderr));
        std::fs::rename(part, &program).unwrap();
    }
    program
}

fn newest(folders: &[PathBuf]) -> std::time::SystemTime {
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    files.map(|file| modified(&file.unwrap().path()).unwrap()).max().unwrap()
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}
