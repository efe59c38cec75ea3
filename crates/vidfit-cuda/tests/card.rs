//! The card that this machine has, if it has one; and, on Linux, a driver over the emulation, which shows
//! at least that the driver is called as it asks to be (`emulation/driver.cpp`).

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod bed;
mod copies_bed;
mod memory_bed;

use copies_bed::*;
use memory_bed::{Card, hold, still, taken, took};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vidfit_cuda::{Cuda, CudaDevice, Driver, check_up};
use vidfit_tensor::*;

/// Set where the driver is the emulation's, which takes its time.
const IS_EMULATED: &str = "VIDFIT_TEST_EMULATED_DRIVER";

fn is_emulated() -> bool {
    std::env::var_os(IS_EMULATED).is_some()
}

fn computes() -> bool {
    std::env::var_os(ONLY_OPENED.0).is_none()
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
    let overhead = card.overhead_bytes();
    assert!(overhead < 2 << 30, "{overhead}");
    let is_told = card.taken_bytes().is_some();
    let has_neighbours = std::env::var_os("NEIGHBOURS").is_some();
    if is_emulated() && (is_told || !has_neighbours) {
        // Without an NVML that knows the card, the context is not in it. All the rest is.
        let context = if is_told { 0 } else { 300 << 20 };
        assert_eq!(taken(&card), context + overhead);
    }
    assert!(overhead > 0 || !is_told);
}

/// Two blocks of the kernels that are made for it find room on a multiprocessor, as the driver itself counts.
#[test]
fn kernels_find_the_room_that_they_are_made_for() {
    let Some((_turn, card)) = card() else { return };
    let packed = card.kernels().iter().filter_map(|(name, kernel)| Some((name, kernel.packing?)));
    let mut packed: Vec<_> = packed.collect();
    packed.sort_by_key(|(name, _)| *name);
    for (name, packing) in &packed {
        println!("{name}: {packing:?}");
        assert!(packing.held >= packing.wanted, "{name}: {packing:?}");
    }
    let wanted = packed.iter().filter(|(_, packing)| packing.wanted == 2).count();
    // Cards before sm_80 have no tensor cores for bf16, and less shared memory.
    let (kernels, with_room) = if card.architecture() >= 800 { (9, 9) } else { (5, 3) };
    assert_eq!((packed.len(), wanted), (kernels, with_room), "{packed:#?}");
}

#[test]
fn copies_are_those_of_any_card() {
    let Some((_turn, first)) = card().filter(|_| computes()) else { return };
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
    let Some((_turn, card)) = card().filter(|_| computes()) else { return };
    hold(&Card::new(card), |device| {
        let bytes = 256 << 20;
        let before = taken(device.driver());
        device.reserve(bytes).unwrap();
        let reserved = taken(device.driver());
        took(before, reserved, bytes)?;
        device.poison(0, bytes);
        device.poison(2, 1021);
        for _ in 0..1000 {
            device.wait(device.fence()).unwrap();
        }
        device.finish().unwrap();
        still(device.driver(), reserved, "by fences and fills")?;
        let dry = Arena::record(device.profile().alignment);
        let alloc = |arena: &Arena| arena.alloc("t", DType::F32, [1 << 16]).unwrap();
        drop(alloc(&dry));
        let mut tensor = alloc(&Arena::replay(solve(&dry.into_trace().unwrap())));
        device.wait(device.begin_upload(source(1, 1 << 16), &tensor, &[])).unwrap();
        device.silu(&tensor.clone(), &mut tensor);
        device.upload(&values(2, 1 << 16), &mut tensor);
        assert_eq!(fetch(&**device, &tensor), values(2, 1 << 16));
        device.finish().unwrap();
        still(device.driver(), reserved, "by the first use of something")?;
        device.release();
        still(device.driver(), before, "after all")
    });
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

/// Set where the emulation's driver is NVML as well.
const WITH_NVML: &str = "VIDFIT_TEST_NVML";

/// Where nothing is computed: the emulation's kernels are those for sm_80 and newer.
const ONLY_OPENED: (&str, &str) = ("VIDFIT_TEST_ONLY_OPENED", "1");

/// Runs these tests on the emulation's driver.
#[cfg(target_os = "linux")]
fn on_emulated_driver(settings: &[(&str, &str)], left_out: &[&str]) -> (bool, String) {
    let driver = bed::driver();
    let mut folders = vec![driver.parent().unwrap().to_owned()];
    if settings.iter().any(|(name, _)| *name == WITH_NVML) {
        folders.push(memory_bed::nvml(&driver));
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--skip", "driver_over_the_emulation", "--skip", "another_library"])
        .args(left_out.iter().flat_map(|test| ["--skip", test]))
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap())
        .env(IS_EMULATED, "1")
        // A library that this machine may have would ask that driver for more than it has.
        .env("VIDFIT_CUBLASLT", "off")
        .env("RUST_BACKTRACE", "0")
        // What is given back does not look as it did, so that a driver which still uses it notices.
        .env("MALLOC_PERTURB_", "165")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (ran.status.success(), said.concat())
}

#[cfg(target_os = "linux")]
fn passes_on_emulated_driver(settings: &[(&str, &str)], left_out: &[&str]) {
    let (passed, said) = on_emulated_driver(settings, left_out);
    let count = format!("{} passed", 6 - left_out.len());
    assert!(passed && said.contains(&count) && !said.contains("skipped"), "{settings:?} {said}");
}

/// Has nothing to do with what is free.
#[cfg(target_os = "linux")]
const COPIES: &str = "copies_are_those_of_any_card";

/// A card on which a desktop is, that NVML knows all about, or nothing.
#[cfg(target_os = "linux")]
const DESKTOPS: [&[(&str, &str)]; 4] = [
    &[("NEIGHBOURS", "30"), (WITH_NVML, "1")],
    &[("NEIGHBOURS", "8")],
    &[("NEIGHBOURS", "8"), (WITH_NVML, "1"), ("NVML_HIDES", "pids")],
    &[("NEIGHBOURS", "8"), (WITH_NVML, "1"), ("NVML_HIDES", "bytes")],
];

#[test]
#[cfg(target_os = "linux")]
fn a_driver_over_the_emulation_tells_neighbours_from_vidfit() {
    passes_on_emulated_driver(&[(WITH_NVML, "1")], &[COPIES]);
    for desktop in DESKTOPS {
        for seed in ["1", "2", "3"] {
            let settings = [desktop, &[("NEIGHBOURS_SEED", seed)]].concat();
            passes_on_emulated_driver(&settings, &[COPIES]);
        }
    }
}

/// Whatever neighbours do meanwhile, and at the first use already.
#[test]
#[cfg(target_os = "linux")]
fn what_a_driver_over_the_emulation_takes_beside_the_arena_is_noticed() {
    let quiet: [&[(&str, &str)]; 2] = [&[], &[(WITH_NVML, "1")]];
    for desktop in quiet.into_iter().chain(DESKTOPS) {
        for takes in ["once", "always"] {
            let (passed, said) =
                on_emulated_driver(&[desktop, &[("DRIVER_TAKES", takes)]].concat(), &[COPIES]);
            let is_noticed = said.contains("memory moves beside the arena, by the first use");
            assert!(
                !passed && is_noticed && said.contains("4 passed; 1 failed"),
                "{desktop:?} {said}"
            );
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_driver_over_the_emulation_is_called_as_it_asks_to_be() {
    // It does its work in other orders with other seeds.
    for seed in ["1", "2", "3", "4"] {
        passes_on_emulated_driver(&[("DRIVER_SEED", seed)], &[]);
    }
    for capability in ["75", "80", "90", "120"] {
        passes_on_emulated_driver(&[("CAPABILITY", capability), ONLY_OPENED], &[]);
    }
    for (settings, expected) in [
        (("DRIVER_VERSION", "11080"), "the driver is for CUDA 11.8, and the kernels need 12.0"),
        (("CAPABILITY", "61"), "Emulated card has compute capability 6.1; vidfit needs 7.5"),
    ] {
        let (passed, said) = on_emulated_driver(&[settings], &[]);
        assert!(passed && said.contains("skipped: cuda:0: ") && said.contains(expected), "{said}");
    }
    let (passed, said) = on_emulated_driver(&[("COMPILER_SAYS", "ptxas fatal: line 3")], &[]);
    assert!(
        !passed && said.contains("525.60.13") && said.contains("ptxas fatal: line 3"),
        "{said}"
    );
}

/// Who opens the card hears that its driver compiles while it does, not afterwards, and only then.
#[test]
#[cfg(target_os = "linux")]
fn who_waits_for_a_driver_over_the_emulation_is_told() {
    if is_emulated() {
        let began = Instant::now();
        let open =
            || Cuda::open_telling(0, &|compiling| println!("{:?}: {compiling}", began.elapsed()));
        drop(open().unwrap());
        println!("ready after {} ms", began.elapsed().as_millis());
        return;
    }
    let open = |milliseconds: &str| {
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "who_waits_for_a_driver_over_the_emulation_is_told", "--nocapture"])
            .env("LD_LIBRARY_PATH", bed::driver().parent().unwrap())
            .env(IS_EMULATED, "1")
            .env("VIDFIT_CUBLASLT", "off")
            .env("COMPILER_MS", milliseconds)
            .env("CUDA_CACHE_PATH", env!("CARGO_TARGET_TMPDIR"))
            .output()
            .unwrap();
        assert!(ran.status.success());
        String::from_utf8(ran.stdout).unwrap()
    };
    let said = open("2500");
    let (told, ready) =
        (said.find("is compiling the kernels for Emulated card"), said.find("ready"));
    assert!(told.is_some() && told < ready, "{said}");
    assert!(said.contains(&format!("in {} for the next", env!("CARGO_TARGET_TMPDIR"))), "{said}");
    // After a second, and not when it is over.
    assert!(said.lines().any(|line| line.starts_with("1.")), "{said}");
    let said = open("0");
    assert!(said.contains("ready") && !said.contains("compiling"), "{said}");
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
