//! What the arena records, it holds runs to.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};
use vidfit_tensor::{Arena, DType, Error, Event, Layout, Tensor, solve};

/// Three passes over a body with two temporaries, around a tensor that lives throughout.
fn job(arena: &Arena, width: usize) -> Result<(), Error> {
    arena.phase("first")?;
    let kept = arena.alloc("kept", DType::F32, [100])?;
    arena.repeat(3, |_| {
        let a = arena.scope("body", || arena.alloc("a", DType::BF16, [width]))?;
        let _b = arena.alloc("b", DType::BF16, [10])?;
        drop(a);
        Ok::<(), Error>(())
    })?;
    arena.phase("second")?;
    drop(kept);
    arena.alloc("tail", DType::F32, [10]).map(drop)
}

fn plan(width: usize) -> Layout {
    let arena = Arena::record(64);
    job(&arena, width).unwrap();
    solve(&arena.into_trace().unwrap())
}

#[test]
fn a_replay_uses_exactly_the_planned_bytes() {
    let layout = plan(200);
    assert_eq!(layout.trace.requests.len(), 4, "a loop's body is recorded once");
    assert_eq!(layout.trace.requests[1].label, "body/a");
    assert_eq!(layout.peak_bytes, 448 + 448 + 64);
    let arena = Arena::replay(layout.clone());
    job(&arena, 200).unwrap();
    let measured = arena.finish().unwrap();
    assert_eq!(measured.peak_bytes, layout.peak_bytes);
    let planned: Vec<_> =
        layout.phases.iter().map(|phase| (phase.name.clone(), phase.peak_bytes)).collect();
    assert_eq!(measured.phase_peak_bytes, planned);
}

#[test]
fn a_layout_survives_json() {
    let layout = plan(200);
    let text = serde_json::to_string(&layout).unwrap();
    assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), layout);
}

#[test]
fn any_deviation_is_an_error() {
    let wider = job(&Arena::replay(plan(200)), 300);
    assert!(matches!(wider, Err(Error::Deviation { event: 3, .. })), "{wider:?}");

    let arena = Arena::replay(plan(200));
    arena.phase("first").unwrap();
    drop(arena.alloc("kept", DType::F32, [100]).unwrap());
    let early = arena.phase("second");
    assert!(early.unwrap_err().to_string().contains("kept ended"));

    let arena = Arena::replay(plan(200));
    assert!(matches!(arena.finish(), Err(Error::Deviation { .. })), "nothing was run");
}

/// What a body may do with tensors beyond its pass.
type Loop<'a> = &'a dyn Fn(&Arena, &mut Vec<Tensor>, usize) -> Result<(), Error>;

/// Three passes of `body`, over a list that holds one tensor before the first.
fn with_list(arena: &Arena, body: Loop<'_>) -> Result<usize, Error> {
    let mut list = vec![arena.alloc("before", DType::F32, [16])?];
    let mut begun = 0;
    arena.repeat(3, |pass| {
        begun += 1;
        body(arena, &mut list, pass)
    })?;
    Ok(begun)
}

fn alloc(arena: &Arena) -> Result<Tensor, Error> {
    arena.alloc("inner", DType::F32, [16])
}

#[test]
fn a_pass_that_leaves_a_tensor_alive_is_an_error() {
    let push: Loop<'_> = &|arena, list, _| {
        list.push(alloc(arena)?);
        Ok(())
    };
    let recorded = with_list(&Arena::record(64), push).unwrap_err();
    assert!(recorded.to_string().contains("inner outlives the pass"), "{recorded}");

    let exchange: Loop<'_> = &|arena, list, _| {
        list[0] = alloc(arena)?;
        Ok(())
    };
    assert!(with_list(&Arena::record(64), exchange).is_err());

    let end: Loop<'_> = &|_, list, _| {
        list.clear();
        Ok(())
    };
    let recorded = with_list(&Arena::record(64), end).unwrap_err();
    assert!(recorded.to_string().contains("before ended in a loop"), "{recorded}");
}

#[test]
fn a_recorded_loop_is_held_to_its_first_pass() {
    let passes = [
        // Another size, another order, one more, one less.
        [16, 16, 1, 32, 16, 1],
        [16, 32, 1, 32, 16, 1],
        [16, 16, 1, 16, 16, 2],
        [16, 16, 2, 16, 16, 1],
    ];
    for [a, b, times, later_a, later_b, later_times] in passes {
        let body: Loop<'_> = &|arena, _, pass| {
            let (a, b, times) =
                if pass == 0 { (a, b, times) } else { (later_a, later_b, later_times) };
            for _ in 0..times {
                arena.alloc("a", DType::F32, [a])?;
                arena.alloc("b", DType::F32, [b])?;
            }
            Ok(())
        };
        let result = with_list(&Arena::record(64), body);
        assert!(matches!(result, Err(Error::Deviation { .. })), "{result:?}");
    }
}

#[test]
fn host_buffers_are_counted_where_they_live() {
    let hold = |arena: &Arena| {
        let first = arena.host_buffer("first", 100)?;
        drop(arena.host_buffer("second", 50)?);
        drop(arena.host_buffer("third", 30)?);
        Ok::<u64, Error>(first.lock().len() as u64)
    };
    let dry = Arena::record(64);
    assert_eq!(hold(&dry).unwrap(), 0, "a dry run has no memory");
    let trace = dry.into_trace().unwrap();
    assert_eq!(trace.host_peak_bytes, 150);
    let real = Arena::replay(solve(&trace));
    assert_eq!(hold(&real).unwrap(), 100);
    assert_eq!(real.finish().unwrap().host_peak_bytes, 150);
}

#[test]
fn a_replayed_pass_that_leaves_a_tensor_alive_is_the_last() {
    let tidy: Loop<'_> = &|arena, _, _| alloc(arena).map(drop);
    let arena = Arena::record(64);
    with_list(&arena, tidy).unwrap();
    let layout = solve(&arena.into_trace().unwrap());
    assert_eq!(with_list(&Arena::replay(layout.clone()), tidy).unwrap(), 3);

    let passes = std::cell::Cell::new(0);
    let late: Loop<'_> = &|arena, list, pass| {
        passes.set(pass + 1);
        let tensor = alloc(arena)?;
        if pass == 1 {
            list.push(tensor);
        }
        Ok(())
    };
    let result = with_list(&Arena::replay(layout.clone()), late);
    assert!(matches!(result, Err(Error::Deviation { .. })), "{result:?}");
    assert_eq!(passes.get(), 2, "the next pass would have had its memory");

    // Nor does it help that the plan says the same, as one from elsewhere may.
    let mut crooked = layout;
    let death = crooked.trace.events.iter().position(|event| *event == Event::Death(1));
    crooked.trace.events.remove(death.unwrap());
    passes.set(0);
    let push: Loop<'_> = &|arena, list, pass| {
        passes.set(pass + 1);
        list.push(alloc(arena)?);
        Ok(())
    };
    let replayed = with_list(&Arena::replay(crooked), push).unwrap_err();
    assert!(replayed.to_string().contains("inner outlives the pass"), "{replayed}");
    assert_eq!(passes.get(), 1);
}

#[test]
fn poison_covers_every_birth_and_death() {
    static BYTES: AtomicU64 = AtomicU64::new(0);
    let arena = Arena::replay(plan(200)).poison_with(|_, bytes| {
        BYTES.fetch_add(bytes, Ordering::Relaxed);
    });
    job(&arena, 200).unwrap();
    assert_eq!(BYTES.load(Ordering::Relaxed), 2 * (448 + 3 * (448 + 64) + 64));
}
