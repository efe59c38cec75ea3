//! The checker of the simulated card: every forgotten fence is found, whenever it did no harm, and
//! a program that forgets none has nothing to fear.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod sim_bed;
use sim_bed::*;
use std::cell::RefCell;
use std::sync::Arc;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

/// What a program may forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    Nothing,
    /// To wait for a block's weights.
    Upload,
    /// To let the computing leave a slot before the next upload to it.
    SlotInUse,
    /// To let the computing end before its result is paged out.
    Computing,
    /// To wait for the page-out before its memory is written again.
    PageOutBeforeWrite,
    /// To wait for the page-out before its memory is freed.
    PageOutBeforeFree,
    /// To let the page-in wait for the page-out.
    PageInBeforePageOut,
    /// To let the page-in wait for those who had its memory before.
    PageInBeforeFree,
    /// To wait for the page-in before its host buffer is written again.
    BufferInUse,
}

use Forgets::*;

const BLOCKS: usize = 6;
const SLOTS: usize = 2;
const WIDTH: usize = 48;
const ROWS: usize = 32;

/// Streams blocks of weights through slots while it computes, and pages its state out and in after
/// each. Leaves the state in `out`.
fn job(
    device: &dyn Device,
    arena: &Arena,
    forgets: Forgets,
    out: &RefCell<Vec<f32>>,
) -> Result<(), Error> {
    let weights = |block| source(block, WIDTH * WIDTH);
    let slots: Vec<Tensor> = (0..SLOTS)
        .map(|_| arena.alloc("slot", DType::F32, [WIDTH, WIDTH]))
        .collect::<Result<_, _>>()?;
    let buffer = arena.host_buffer("state", (ROWS * WIDTH * 4) as u64)?;
    let mut state = arena.alloc("state", DType::F32, [ROWS, WIDTH])?;
    device.upload(&values(5, ROWS * WIDTH), &mut state);
    let begin = device.fence();
    let mut uploads: Vec<Fence> = (0..SLOTS)
        .map(|block| device.begin_upload(weights(block), &slots[block], &[begin]))
        .collect();
    for block in 0..BLOCKS {
        let (slot, upload) = (&slots[block % SLOTS], uploads[block % SLOTS]);
        if forgets != Upload {
            device.wait(upload)?;
        }
        let mut result = arena.alloc("result", DType::F32, [ROWS, WIDTH])?;
        let op = Linear { x: &state, weight: slot, bias: None, activation: Activation::Silu };
        device.linear(op, &mut result);
        let computed = device.fence();
        if block + SLOTS < BLOCKS {
            let after: &[Fence] = if forgets == SlotInUse { &[] } else { &[computed] };
            uploads[block % SLOTS] = device.begin_upload(weights(block + SLOTS), slot, after);
        }

        let after: &[Fence] = if forgets == Computing { &[] } else { &[computed] };
        let page_out = device.begin_download(&result, &buffer, after);
        if forgets == PageOutBeforeWrite {
            device.silu(&state, &mut result);
        }
        if forgets == PageOutBeforeFree {
            drop(result);
        } else {
            if forgets != PageInBeforePageOut {
                device.wait(page_out)?;
            }
            drop(result);
        }
        drop(state);
        let between = arena.alloc("between", DType::F32, [2, ROWS, WIDTH])?;
        device.upload(&values(block, 2 * ROWS * WIDTH), &mut between.clone());
        drop(between);
        state = arena.alloc("state", DType::F32, [ROWS, WIDTH])?;
        let freed = device.fence();
        let after = match forgets {
            PageInBeforePageOut => vec![freed],
            PageInBeforeFree => vec![page_out],
            _ => vec![page_out, freed],
        };
        let page_in = device.begin_upload(Arc::new(buffer.clone()), &state, &after);
        if forgets == BufferInUse {
            let spare = arena.alloc("spare", DType::F32, [ROWS, WIDTH])?;
            device.upload(&values(block, ROWS * WIDTH), &mut spare.clone());
            let other = device.begin_download(&spare, &buffer, &[device.fence()]);
            device.wait(other)?;
        }
        device.wait(page_in)?;
    }
    *out.borrow_mut() = fetch(device, &state)?;
    Ok(())
}

fn run<D: Device + 'static>(device: &Arc<D>, forgets: Forgets) -> (Result<(), Error>, Vec<f32>) {
    let out = RefCell::default();
    let result = play(device, &|device, arena| job(device, arena, forgets, &out));
    (result, out.into_inner())
}

#[test]
fn a_program_that_forgets_nothing_passes_whatever_the_delays() {
    let (result, expected) = run(&Arc::new(CpuDevice::new(1).unwrap()), Nothing);
    result.unwrap();
    assert!(expected.iter().all(|value| value.is_finite()) && expected[0] != expected[1]);
    for seed in 0..200 {
        let sim = card(delayed(seed, 300));
        let (result, state) = run(&sim, Nothing);
        result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(sim.violations(), [""; 0], "seed {seed}");
        assert!(state.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{seed}");
        assert_eq!(sim.held_bytes(), 0);
    }
}

#[test]
fn whatever_is_forgotten_is_found_whenever_the_copies_are_made() {
    let cases = [
        (Upload, "linear (operation 6) reads bytes", "which upload 1 writes"),
        (SlotInUse, "upload 3 writes bytes", "which linear (operation 6) reads"),
        (Computing, "download 1 reads bytes", "which linear (operation 6) writes"),
        (PageOutBeforeWrite, "silu (operation 7) writes bytes", "which download 1 reads"),
        (PageOutBeforeFree, "poison (operation 7) writes bytes", "which download 1 reads"),
        (PageInBeforePageOut, "upload 4 reads a host buffer", "which download 1 writes"),
        (PageInBeforeFree, "upload 4 writes bytes", "which poison (operation"),
        (BufferInUse, "download 2 writes a host buffer", "which upload 4 reads"),
    ];
    for (forgets, new, earlier) in cases {
        for (seed, micros) in [(1, 0), (2, 500), (3, 500)] {
            let sim = card(delayed(seed, micros));
            let (result, _) = run(&sim, forgets);
            let Err(Error::Device { device, what }) = result else { panic!("{forgets:?}") };
            assert_eq!(device, "sim");
            // A freed tensor may be poisoned before what should have waited is caught.
            let violations = sim.violations();
            let found = violations.iter().find(|found| found.starts_with(new));
            let found = found.unwrap_or_else(|| panic!("{forgets:?}: {violations:#?}"));
            assert!(found.contains(earlier), "{forgets:?}: {found}");
            assert!(found.ends_with("no fence orders the two"), "{found}");
            assert!(what.starts_with(&violations[0]), "{forgets:?}: {what}");
        }
    }
}

/// The violations of a job that ends as it should for all that the device says before the end.
fn violations_of(job: Job<'_>) -> Vec<String> {
    let sim = card(delayed(7, 100));
    let _ = play(&sim, job);
    sim.violations()
}

fn tensor(arena: &Arena) -> Tensor {
    arena.alloc("t", DType::F32, [64]).unwrap()
}

#[test]
fn a_copy_that_nobody_waits_for_is_found() {
    // Held by the test until the arena is gone, so that its death is no second mistake.
    let keep = RefCell::new(Vec::new());
    let sim = card(small());
    let result = play(&sim, &|device, arena| {
        let t = tensor(arena);
        for _ in 0..2 {
            device.begin_upload(source(0, 64), &t, &[device.fence()]);
        }
        keep.borrow_mut().push(t);
        Ok(())
    });
    keep.borrow_mut().drain(..).for_each(std::mem::forget);
    assert!(result.is_err(), "the second upload writes what the first wrote for nobody");
    let found = sim.violations();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        found[0],
        "upload 2 writes bytes 0..256, which upload 1 has written, and nobody waited for that"
    );
    assert_eq!(found[1], "nobody waited for upload 1 and 1 after it before the arena went");
}

#[test]
fn a_copy_may_be_waited_for_by_another_copy() {
    for seed in 0..30 {
        let sim = card(delayed(seed, 300));
        play(&sim, &|device, arena| {
            let (first, second) = (tensor(arena), tensor(arena));
            let buffer = arena.host_buffer("buffer", 256)?;
            let born = device.fence();
            let up = device.begin_upload(source(0, 64), &first, &[born]);
            let down = device.begin_download(&first, &buffer, &[up]);
            let again = device.begin_upload(Arc::new(buffer), &second, &[down, born]);
            device.wait(again)?;
            let fetched = fetch(device, &second)?;
            assert!(arena.is_recording() || fetched == values(0, 64), "seed {seed}");
            Ok(())
        })
        .unwrap();
        assert_eq!(sim.violations(), [""; 0]);
    }
}

#[test]
fn to_wait_for_a_later_copy_is_to_wait_for_those_before_it() {
    let found = violations_of(&|device, arena| {
        let (first, second) = (tensor(arena), tensor(arena));
        device.begin_upload(source(0, 64), &first, &[device.fence()]);
        let fence = device.begin_upload(source(0, 64), &second, &[]);
        device.wait(fence)?;
        fetch(device, &first).map(drop)
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn an_old_fence_does_not_cover_what_came_later() {
    let found = violations_of(&|device, arena| {
        let t = tensor(arena);
        let early = device.fence();
        device.upload(&values(0, 64), &mut t.clone());
        let fence = device.begin_upload(source(0, 64), &t, &[early]);
        device.wait(fence)
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("upload 1 writes bytes 0..256, which upload by hand"), "{found:?}");
}

#[test]
fn neighbours_are_no_concern() {
    let found = violations_of(&|device, arena| {
        let t = arena.alloc("t", DType::F32, [3, 10])?;
        let born = device.fence();
        let fence = device.begin_upload(source(0, 10), &t.at(1), &[born]);
        device.upload(&values(0, 10), &mut t.at(0));
        device.upload(&values(0, 10), &mut t.at(2));
        device.silu(&t.at(0), &mut t.at(2));
        device.wait(fence)?;
        fetch(device, &t).map(drop)
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn two_may_read_at_once() {
    let found = violations_of(&|device, arena| {
        let (t, buffer) = (tensor(arena), arena.host_buffer("buffer", 256)?);
        device.upload(&values(0, 64), &mut t.clone());
        let fence = device.begin_download(&t, &buffer, &[device.fence()]);
        fetch(device, &t)?;
        device.wait(fence)
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn after_finish_everything_before_it_is_in_order() {
    let found = violations_of(&|device, arena| {
        let (t, buffer) = (tensor(arena), arena.host_buffer("buffer", 256)?);
        let up = device.begin_upload(source(0, 64), &t, &[device.fence()]);
        device.finish()?;
        fetch(device, &t)?;
        let down = device.begin_download(&t, &buffer, &[]);
        device.finish()?;
        device.upload(&values(0, 64), &mut t.clone());
        // Only so that somebody has asked for their failures.
        device.wait(up).and(device.wait(down))
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_long_run_without_mistakes_gives_none() {
    let sim = card(delayed(1, 0));
    play(&sim, &|device, arena| {
        let table = arena.alloc("table", DType::F32, [1000, 64])?;
        let slot = tensor(arena);
        device.upload(&values(0, 64_000), &mut table.clone());
        let (passes, rows) = if arena.is_recording() { (1, 1) } else { (100, 1000) };
        for pass in 0..passes {
            let fence = device.begin_upload(source(pass, 64), &slot, &[device.fence()]);
            device.wait(fence)?;
            for row in 0..rows {
                device.add(&slot, &mut table.at(row));
            }
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(sim.violations(), [""; 0]);
}
