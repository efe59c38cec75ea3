//! The card that this machine has, if it has one; and, on Linux, a driver over the emulation, which shows
//! at least that the driver is called as it asks to be (`emulation/driver.cpp`).

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod bed;
mod copies_bed;

use copies_bed::*;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vidfit_cuda::{Cuda, CudaDevice, Driver, check_up};
use vidfit_tensor::*;

/// Set where the driver is the emulation's, which takes its time.
const IS_EMULATED: &str = "VIDFIT_TEST_EMULATED_DRIVER";

fn is_emulated() -> bool {
    std::env::var_os(IS_EMULATED).is_some()
}

/// One test at a time has the card, so that each knows what is free.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The card, if there is one. It is let go before the turn is.
fn card() -> Option<(MutexGuard<'static, ()>, Cuda)> {
    let turn = turn();
    bed::machine::card().map(|card| (turn, card))
}

#[test]
fn what_is_missing_is_said() {
    let _turn = turn();
    let found = check_up();
    println!("{found:#?}");
    match Cuda::open(0) {
        Ok(_) => assert_eq!(found.missing, [""; 0]),
        Err(Error::Device { device, what }) => {
            assert_eq!(device, "cuda:0");
            let said = found.missing.first().or_else(|| found.cards[0].1.as_ref());
            assert_eq!(said, Some(&what));
        }
        Err(other) => panic!("{other:?}"),
    }
    let Err(Error::Device { device, .. }) = Cuda::open(1000) else { panic!("card 1000") };
    assert_eq!(device, "cuda:1000");
}

#[test]
fn a_card_is_opened_and_described() {
    let Some((_turn, card)) = card() else { return };
    println!("{:?}, {} bytes of overhead", card.card(), card.overhead_bytes());
    for (name, kernel) in card.kernels() {
        println!("{name}: {kernel:?}");
    }
    assert!(card.free_bytes() <= card.card().memory_bytes);
    assert!((1..2 << 30).contains(&card.overhead_bytes()));
    if is_emulated() {
        // There is no NVML that knows the card, and so the context is not in it. All the rest is.
        let taken = card.card().memory_bytes - card.free_bytes();
        assert_eq!(taken, (300 << 20) + card.overhead_bytes());
    }
}

#[test]
fn copies_are_those_of_any_card() {
    let Some((_turn, first)) = card() else { return };
    long_copies_arrive(first);
    let again = || Cuda::open(0).unwrap();
    let long = if is_emulated() { 1000 } else { LONG };
    for count in [100, long] {
        slots_are_used_again(again(), count);
        pages_go_and_come(again(), count);
    }
    failures_are_told_once(again());
    warm_regions_are_copied_to(again());
    finish_waits_for_copies(again());
    many_launches_are_asked_for(again(), || {});
}

#[test]
fn nothing_is_allocated_beside_the_arena() {
    let Some((_turn, card)) = card() else { return };
    let device = CudaDevice::new(card).unwrap();
    let bytes = 256 << 20;
    let before = device.free_bytes().unwrap();
    device.reserve(bytes).unwrap();
    let reserved = device.free_bytes().unwrap();
    // The driver gives memory in pages of 2 MiB.
    assert!((before - reserved).abs_diff(bytes) <= 2 << 20, "{before} {reserved}");
    device.poison(0, bytes);
    device.poison(2, 1021);
    for _ in 0..1000 {
        device.wait(device.fence()).unwrap();
    }
    device.finish().unwrap();
    assert_eq!(device.free_bytes(), Some(reserved));
    // Nor by the first use of anything.
    let dry = Arena::record(device.profile().alignment);
    let alloc = |arena: &Arena| arena.alloc("t", DType::F32, [1 << 16]).unwrap();
    drop(alloc(&dry));
    let mut tensor = alloc(&Arena::replay(solve(&dry.into_trace().unwrap())));
    device.wait(device.begin_upload(source(1, 1 << 16), &tensor, &[])).unwrap();
    device.silu(&tensor.clone(), &mut tensor);
    device.upload(&values(2, 1 << 16), &mut tensor);
    assert_eq!(fetch(&device, &tensor), values(2, 1 << 16));
    device.finish().unwrap();
    assert_eq!(device.free_bytes(), Some(reserved));
    device.release();
    assert_eq!(device.free_bytes(), Some(before));
}

#[test]
fn more_than_there_is_is_refused_and_what_follows_works() {
    let Some((_turn, card)) = card() else { return };
    let device = CudaDevice::new(card).unwrap();
    let Err(Error::Device { what, .. }) = device.reserve(1 << 45) else { panic!("32 TiB") };
    assert!(what.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{what}");
    device.reserve(1 << 20).unwrap();
    device.finish().unwrap();
}

/// Runs these tests on the emulation's driver.
#[cfg(target_os = "linux")]
fn on_emulated_driver(settings: &[(&str, &str)]) -> (bool, String) {
    let library = bed::driver();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--skip", "driver_over_the_emulation", "--skip", "another_library"])
        .env("LD_LIBRARY_PATH", library.parent().unwrap())
        .env(IS_EMULATED, "1")
        // A library that this machine may have would ask that driver for more than it has.
        .env("VIDFIT_CUBLASLT", "off")
        .env("RUST_BACKTRACE", "0")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (ran.status.success(), said.concat())
}

#[test]
#[cfg(target_os = "linux")]
fn a_driver_over_the_emulation_is_called_as_it_asks_to_be() {
    // It does its work in other orders with other seeds.
    for seed in ["1", "2", "3", "4"] {
        let (passed, said) = on_emulated_driver(&[("DRIVER_SEED", seed)]);
        assert!(passed && said.contains("5 passed") && !said.contains("skipped"), "{said}");
    }
    for (settings, expected) in [
        (("DRIVER_VERSION", "11080"), "the driver is for CUDA 11.8, and the kernels need 12.0"),
        (("CAPABILITY", "61"), "Emulated card has compute capability 6.1; vidfit needs 7.5"),
    ] {
        let (passed, said) = on_emulated_driver(&[settings]);
        assert!(passed && said.contains("skipped: cuda:0: ") && said.contains(expected), "{said}");
    }
    let (passed, said) = on_emulated_driver(&[("COMPILER_SAYS", "ptxas fatal: line 3")]);
    assert!(
        !passed && said.contains("525.60.13") && said.contains("ptxas fatal: line 3"),
        "{said}"
    );
}

/// What is called like the driver's library and is none, or is one of which a function is missing.
#[test]
#[cfg(target_os = "linux")]
fn another_library_of_that_name_is_no_driver() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("other.cpp");
    for (text, missing) in [
        ("extern \"C\" int something() { return 0; }", "it has no cuInit"),
        ("extern \"C\" int cuInit(unsigned) { return 9999; }", "it has no cuDriverGetVersion"),
    ] {
        std::fs::write(&source, text).unwrap();
        let built = Command::new("g++")
            .args(["-shared", "-fPIC", "-o"])
            .arg(folder.path().join("libcuda.so.1"))
            .arg(&source)
            .status()
            .unwrap();
        assert!(built.success());
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--nocapture", "what_is_missing_is_said"])
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
        assert!(
            said.contains("is not an NVIDIA driver's library") && said.contains(missing),
            "{said}"
        );
    }
}
