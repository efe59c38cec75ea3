//! The simulated card's memory: a hard limit, others who use it, and nobody else's.

mod sim_bed;
use sim_bed::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use vidfit_cpu::{CpuDevice, SimConfig, SimDevice};
use vidfit_tensor::*;

const MIB: u64 = 1 << 20;

fn refusal(sim: &SimDevice, bytes: u64) -> String {
    match sim.reserve(bytes) {
        Err(Error::Device { device, what }) => format!("{device}: {what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_limit_is_hard_and_the_refusal_says_what_is_free() {
    let config = SimConfig { name: "RTX 0".into(), overhead_bytes: 3 * MIB, threads: 1, ..small() };
    let sim = card(SimConfig { memory_bytes: 8 * MIB, ..config });
    assert_eq!(sim.profile().scratch_bytes, 4 * MIB);
    assert_eq!((sim.memory_bytes(), sim.free_bytes(), sim.held_bytes()), (8 * MIB, 5 * MIB, 0));
    sim.reserve(MIB).unwrap();
    assert_eq!((sim.free_bytes(), sim.held_bytes()), (0, 5 * MIB));
    // What is held is given back first.
    sim.reserve(MIB - 256).unwrap();
    assert_eq!((sim.free_bytes(), sim.held_bytes()), (256, 5 * MIB - 256));
    assert_eq!(
        refusal(&sim, MIB + 256),
        "RTX 0: out of memory: 5243136 bytes asked for (1048832 for tensors, 4194304 for \
         scratch), 5242880 free of 8388608 (0 used by others, 3145728 by the card itself)"
    );
    assert_eq!(sim.held_bytes(), 0, "refused, it holds nothing");
    assert!(refusal(&sim, u64::MAX - 255).contains("out of memory"));
    let counters = sim.counters();
    assert_eq!(counters.reservations, [MIB, MIB - 256]);
    assert_eq!((counters.held_bytes, counters.peak_held_bytes), (0, 5 * MIB));
}

#[test]
fn a_card_larger_than_the_host_is_no_promise() {
    let sim = card(SimConfig { threads: 1, ..SimConfig::new(u64::MAX) });
    let what = refusal(&sim, 1 << 62);
    assert!(what.contains("the host cannot simulate 4611686018427387904 bytes"), "{what}");
    assert_eq!(sim.held_bytes(), 0);
}

#[test]
fn others_may_take_memory_between_planning_and_reserving() {
    let sim = card(SimConfig { memory_bytes: 8 * MIB, threads: 1, ..small() });
    let planned = sim.free_bytes() - sim.profile().scratch_bytes;
    sim.set_used_by_others(256);
    assert!(refusal(&sim, planned).contains("(256 used by others, 0 by the card itself)"));
    sim.reserve(planned - 256).unwrap();
    sim.set_used_by_others(9 * MIB);
    assert_eq!((sim.free_bytes(), sim.held_bytes()), (0, 8 * MIB - 256), "what is held stays");
    sim.release();

    sim.use_by_others_at_reserve(|attempt| if attempt < 3 { MIB } else { 0 });
    sim.set_used_by_others(0);
    assert!(refusal(&sim, planned).contains("1048576 used by others"), "at the first attempt");
}

#[test]
fn others_are_asked_at_each_attempt() {
    let sim = card(SimConfig { memory_bytes: 8 * MIB, threads: 1, ..small() });
    let free: Arc<SimDevice> = sim.clone();
    sim.use_by_others_at_reserve(move |attempt| {
        assert!(free.free_bytes() <= 8 * MIB, "the card may be asked meanwhile");
        (2 - attempt.min(2)) * MIB
    });
    refusal(&sim, 4 * MIB);
    sim.reserve(4 * MIB).unwrap();
    sim.use_by_others_at_reserve(|_| 0);
}

#[test]
fn the_profile_is_a_cards() {
    let config = SimConfig { threads: 3, ..small() };
    let sim = card(config.clone());
    assert_eq!(*sim.profile(), SimDevice::profile_of(&config));
    let scratch_bytes = CpuDevice::profile_of(3).scratch_bytes;
    let expected =
        Profile { name: "sim".into(), alignment: 256, scratch_bytes, reads_host_memory: false };
    assert_eq!(*sim.profile(), expected);
}

#[test]
fn nothing_of_the_host_is_read_in_place() {
    let sim = card(small());
    let bytes: Arc<dyn HostBytes> = Arc::new(vec![0; 64]);
    let on_host = Tensor::from_host(bytes, 0, DType::F32, [16]);
    let job: Job<'_> = &|device, arena| {
        let mut t = arena.alloc("t", DType::F32, [16])?;
        device.cast(&on_host, &mut t);
        Ok(())
    };
    let panic = catch_unwind(AssertUnwindSafe(|| play(&sim, job))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("cast: f32[16] lies in host memory"), "{message}");
}

#[test]
fn fresh_and_freed_memory_is_garbage() {
    let sim = card(SimConfig { checks_garbage: false, ..small() });
    play(&sim, &|device, arena| {
        let mut t = arena.alloc("t", DType::F32, [1000])?;
        let fresh = fetch(device, &t)?;
        device.upload(&values(0, 1000), &mut t);
        let written = fetch(device, &t)?;
        drop(t);
        let t = arena.alloc("t", DType::F32, [1000])?;
        let again = fetch(device, &t)?;
        if !arena.is_recording() {
            assert!(fresh.iter().all(|value| value.is_nan()));
            assert_eq!(written, values(0, 1000));
            assert!(again.iter().all(|value| value.is_nan()));
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(sim.violations(), [""; 0]);
}

#[test]
fn what_is_read_must_have_been_written() {
    let sim = card(small());
    let job: Job<'_> = &|device, arena| {
        let t = arena.alloc("t", DType::F32, [2, 64])?;
        device.upload(&values(0, 64), &mut t.at(1));
        let mut sum = arena.alloc("sum", DType::F32, [64])?;
        device.cast(&t.at(1), &mut sum);
        device.add(&t.at(0), &mut sum);
        Ok(())
    };
    let error = play(&sim, job).unwrap_err().to_string();
    let expected = "sim: add (operation 5) reads bytes 0..256, which nothing has written since \
                    their tensor was born";
    assert_eq!(error, expected);
    assert_eq!(sim.violations().len(), 1);
    // The next reservation begins with a clean slate.
    play(&sim, &|_, arena| arena.alloc("t", DType::F32, [1]).map(drop)).unwrap();
    assert_eq!(sim.violations().len(), 1);
    let unchecked = card(SimConfig { checks_garbage: false, ..small() });
    play(&unchecked, job).unwrap();
}

#[test]
fn bytes_are_counted() {
    let sim = card(small());
    play(&sim, &|device, arena| {
        let mut low = arena.alloc("low", DType::F32, [100])?;
        let high = arena.alloc("high", DType::F32, [50])?;
        let buffer = arena.host_buffer("buffer", 400)?;
        device.upload(&values(0, 100), &mut low);
        device.wait(device.begin_upload(source(0, 50), &high, &[device.fence()]))?;
        device.wait(device.begin_download(&low, &buffer, &[device.fence()]))?;
        device.wait(device.begin_download(&high, &buffer, &[device.fence()]))?;
        fetch(device, &high).map(drop)
    })
    .unwrap();
    let counters = sim.counters();
    assert_eq!((counters.uploads, counters.uploaded_bytes), (1, 200));
    assert_eq!((counters.downloads, counters.downloaded_bytes), (2, 600));
    assert_eq!((sim.uploaded_bytes(), sim.downloaded_bytes()), (200, 600));
    assert_eq!(counters.directly_uploaded_bytes, 400);
    assert_eq!(counters.directly_downloaded_bytes, 200);
    assert_eq!((counters.highest_byte, &counters.reservations[..]), (512 + 200, &[768][..]));
    let held_bytes = 768 + sim.profile().scratch_bytes;
    assert_eq!((counters.held_bytes, counters.peak_held_bytes), (0, held_bytes));
}
