//! What stays beyond a job: regions of their own, counted, checked and computed with like the arena.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod sim_bed;
use sim_bed::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use vidfit_cpu::{CpuDevice, Faults, SimConfig, SimDevice};
use vidfit_tensor::*;

const MIB: u64 = 1 << 20;

/// A tensor of `count` f32 that fills a warm region of its own.
fn reserved(device: &dyn Device, count: usize) -> Result<(Region, Tensor), Error> {
    let dry = Arena::record(device.profile().alignment);
    drop(dry.alloc("weights", DType::F32, [count])?);
    let layout = solve(&dry.into_trace()?);
    let region = device.reserve_warm(layout.peak_bytes)?;
    let arena = Arena::replay_in(region, layout);
    Ok((region, arena.alloc("weights", DType::F32, [count])?))
}

/// As [`reserved`], with [`values`] in it.
fn loaded(device: &dyn Device, count: usize) -> Result<(Region, Tensor), Error> {
    let (region, tensor) = reserved(device, count)?;
    let fence = device.begin_upload(source(0, count), &tensor, &[device.fence()]);
    device.wait(fence)?;
    Ok((region, tensor))
}

/// Adds `weights` to as many values of its own.
fn sum(device: &dyn Device, arena: &Arena, weights: &Tensor) -> Result<Vec<f32>, Error> {
    let count = weights.shape().elements();
    let mut x = arena.alloc("x", DType::F32, [count])?;
    device.upload(&if arena.is_recording() { vec![] } else { values(3, count) }, &mut x);
    device.add(weights, &mut x);
    fetch(device, &x)
}

#[test]
fn the_limit_counts_every_region_and_a_job_leaves_warm_ones_alone() {
    let sim = card(SimConfig { memory_bytes: 8 * MIB, threads: 1, ..small() });
    let first = sim.reserve_warm(MIB).unwrap();
    assert_eq!((sim.held_bytes(), sim.free_bytes()), (MIB, 7 * MIB), "no scratch");
    sim.reserve(2 * MIB).unwrap();
    assert_eq!((sim.held_bytes(), sim.free_bytes()), (7 * MIB, MIB));
    let Err(Error::Device { what, .. }) = sim.reserve_warm(MIB + 256) else { panic!("granted") };
    assert!(what.starts_with("out of memory: 1048832 bytes asked for"), "{what}");
    let second = sim.reserve_warm(MIB).unwrap();
    assert_eq!((sim.held_bytes(), sim.free_bytes()), (8 * MIB, 0));
    assert!(sim.reserve(2 * MIB + 256).is_err(), "warm regions are not given up for an arena");
    assert_eq!(sim.held_bytes(), 2 * MIB, "the arena was given back first");
    sim.reserve(MIB).unwrap();
    sim.release();
    assert_eq!(sim.held_bytes(), 2 * MIB);
    sim.release_warm(first);
    sim.release_warm(second);
    sim.release_warm(second);
    let counters = sim.counters();
    assert_eq!((counters.held_bytes, counters.peak_held_bytes), (0, 8 * MIB));
    assert_eq!(counters.reservations, [2 * MIB, MIB]);
    assert_eq!(counters.warm_reservations, [MIB, MIB]);
    assert_ne!(first, second);
}

#[test]
fn more_than_the_host_has_leaves_nothing_held() {
    let sim = card(SimConfig { threads: 1, ..SimConfig::new(u64::MAX) });
    assert!(sim.reserve_warm(1 << 62).is_err());
    assert_eq!(sim.held_bytes(), 0);
    let cpu = CpuDevice::new(1).unwrap();
    assert!(cpu.reserve_warm(1 << 62).is_err());
}

fn weights_outlive_jobs(device: Arc<dyn Device>) {
    let (region, weights) = loaded(&*device, 1000).unwrap();
    let expected: Vec<f32> =
        values(0, 1000).iter().zip(values(3, 1000)).map(|(a, b)| a + b).collect();
    for _ in 0..3 {
        let dry = Arena::record(device.profile().alignment);
        let stand_in = DryDevice::new(device.profile().clone());
        sum(&stand_in, &dry, &Tensor::nowhere(DType::F32, [1000])).unwrap();
        let layout = solve(&dry.into_trace().unwrap());
        device.reserve(layout.peak_bytes).unwrap();
        let poisoner = device.clone();
        let arena =
            Arena::replay(layout).poison_with(move |offset, bytes| poisoner.poison(offset, bytes));
        assert_eq!(sum(&*device, &arena, &weights).unwrap(), expected);
        device.finish().unwrap();
        device.release();
    }
    assert_eq!(device.copied().uploaded_bytes, 4 * 4000, "one copy of the weights");
    device.release_warm(region);
}

#[test]
fn weights_outlive_jobs_on_the_cpu() {
    weights_outlive_jobs(Arc::new(CpuDevice::new(2).unwrap()));
}

#[test]
fn weights_outlive_jobs_on_a_card() {
    let sim = card(delayed(1, 200));
    weights_outlive_jobs(sim.clone());
    assert_eq!((sim.violations(), sim.held_bytes()), (vec![], 0));
}

#[test]
fn a_region_that_was_given_back_cannot_be_used() {
    for device in [Arc::new(CpuDevice::new(1).unwrap()) as Arc<dyn Device>, card(small())] {
        let (region, weights) = loaded(&*device, 64).unwrap();
        device.release_warm(region);
        // Another in its place has another name.
        let (_, _other) = loaded(&*device, 64).unwrap();
        device.reserve(4096).unwrap();
        let used = || device.download(&weights, &mut [0.0; 64]);
        assert!(catch_unwind(AssertUnwindSafe(used)).is_err());
    }
}

#[test]
fn destinations_and_operands_of_different_regions_are_apart() {
    let cpu = CpuDevice::new(1).unwrap();
    let (_, a) = loaded(&cpu, 64).unwrap();
    let (_, mut b) = loaded(&cpu, 64).unwrap();
    cpu.reserve(64).unwrap();
    // Both begin at offset 0, and would overlap in part in one region.
    cpu.cast(&a.slice(0..32), &mut b.slice(16..48));
    cpu.cast(&a, &mut b);
    assert_eq!(fetch(&cpu, &b).unwrap(), values(0, 64));
}

/// Begins an upload to a warm region, and uses the arena at the same offset meanwhile.
#[test]
fn the_checker_tells_regions_apart() {
    let sim = card(delayed(2, 500));
    let (_, weights) = reserved(&*sim, 64).unwrap();
    let job = |device: &dyn Device, arena: &Arena| -> Result<(), Error> {
        let mut x = arena.alloc("x", DType::F32, [64])?;
        if arena.is_recording() {
            return Ok(());
        }
        let fence = device.begin_upload(source(0, 64), &weights, &[]);
        device.upload(&values(9, 64), &mut x);
        assert_eq!(fetch(device, &x)?, values(9, 64));
        device.wait(fence)
    };
    play(&sim, &job).unwrap();
    assert_eq!(sim.violations(), [""; 0]);
}

#[test]
fn the_checker_looks_into_warm_regions() {
    // What nothing has written.
    let sim = card(small());
    let (_, weights) = reserved(&*sim, 64).unwrap();
    sim.reserve(256).unwrap();
    let error = fetch(&*sim, &weights).unwrap_err().to_string();
    assert!(
        error.contains("bytes 0..256 of what stays warm, which nothing has written"),
        "{error}"
    );

    // What a copy may still be writing.
    let sim = card(small());
    let (_, weights) = reserved(&*sim, 64).unwrap();
    sim.reserve(256).unwrap();
    let fence = sim.begin_upload(source(0, 64), &weights, &[]);
    assert!(fetch(&*sim, &weights).unwrap_err().to_string().contains("no fence orders the two"));
    let _ = sim.wait(fence);

    // What a failed copy should have brought, also after the next arena was reserved.
    let sim = card(SimConfig { faults: Faults::UploadsFrom(1), ..small() });
    let (_, weights) = reserved(&*sim, 64).unwrap();
    let fence = sim.begin_upload(source(0, 64), &weights, &[]);
    assert!(matches!(sim.wait(fence), Err(Error::Transfer { .. })));
    sim.reserve(256).unwrap();
    let error = fetch(&*sim, &weights).unwrap_err().to_string();
    assert!(error.contains("should have written, but failed"), "{error}");
}

#[test]
fn others_are_asked_before_a_warm_reservation_too() {
    let sim: Arc<SimDevice> = card(SimConfig { memory_bytes: 8 * MIB, threads: 1, ..small() });
    sim.use_by_others_at_reserve(|attempt| if attempt == 1 { 8 * MIB } else { 0 });
    assert!(sim.reserve_warm(256).is_err());
    sim.reserve_warm(256).unwrap();
}
