//! Weights that stay on the device between jobs: they change no bit, are planned to the byte, are
//! brought once, and go when they should.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use support::card::{Bits, heavy, target};
use support::warm::{Bed, LARGE, TEXT, bytes_of, expected, keeps, options, parts, request};
use support::{Case, fixtures};
use vidfit_cpu::{CpuDevice, SimConfig, SimDevice};
use vidfit_engine::catalogue;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::pipelines::{JobAsk, Pipeline, Pipelines, Task, WarmSettings};
use vidfit_engine::placement::{Part, Parts};
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Offload, Target, plan_least, replan};
use vidfit_engine::request::{Request, Start, TilingChoice};
use vidfit_tensor::{DType, Device, Rates};

#[test]
fn nothing_stays_unless_that_is_asked_for() {
    let checkpoint = Arc::new(heavy(true));
    let mut bed = Bed::new(LARGE, WarmSettings::default());
    let pipeline = bed.adopt(&checkpoint);
    let bits = expected(&checkpoint, &request());
    for _ in 0..2 {
        let (planned, ran) = bed.run(&pipeline, &request());
        assert!(planned.planned.target.warm.is_empty());
        assert_eq!((bed.sim.held_bytes(), ran.loaded_bytes), (0, 0));
        Bits::of(&ran.generated).assert_same(&bits, "cold");
    }
    assert_eq!(bed.sim.counters().warm_reservations, [0; 0]);
}

#[test]
fn the_next_job_brings_nothing_again() {
    let checkpoint = Arc::new(heavy(true));
    let cold = Bed::new(LARGE, WarmSettings::default());
    let cold = cold.plan(&cold.adopt(&checkpoint), &request()).planned.plan;
    let uploaded =
        |plan: &Plan| -> u64 { plan.phases.iter().map(|phase| phase.uploaded_bytes).sum() };

    let mut bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    let (first, ran) = bed.run(&pipeline, &request());
    assert_eq!(parts(&first), [Part::TextEncoder, Part::Transformer, Part::Decoder]);
    let all = bytes_of(&checkpoint, TEXT);
    assert_eq!((ran.loaded_bytes, ran.generated.ran.target.warm_bytes), (all, all));
    let bits = expected(&checkpoint, &request());
    Bits::of(&ran.generated).assert_same(&bits, "the first");

    // Another prompt, seed and length: the same weights.
    let other = Request {
        prompt: "A panda.".into(),
        seed: 7,
        frames: Some(17),
        guidance: 1.0,
        ..request()
    };
    for request in [request(), other] {
        let (planned, ran) = bed.run(&pipeline, &request);
        assert_eq!(parts(&planned), parts(&first));
        assert_eq!(ran.loaded_bytes, 0);
        Bits::of(&ran.generated).assert_same(&expected(&checkpoint, &request), "the next");
    }
    assert_eq!(bed.sim.counters().warm_reservations.len(), 3, "each part once");
    // The weights are all that is spared; each of them was brought once, nothing being streamed.
    assert_eq!(uploaded(&cold) - uploaded(&first.planned.plan), all);
    assert!(first.planned.plan.seconds() < cold.seconds());

    bed.owner.unload(pipeline);
    assert_eq!((bed.sim.held_bytes(), bed.owner.warm_bytes()), (0, 0));
}

/// Cards from the smallest to one with room for everything: whatever is kept, plans hold, bits are
/// the same, and no job is refused or much slower for it.
#[test]
fn every_card_keeps_what_it_has_room_for() {
    let checkpoint = Arc::new(heavy(true));
    let request = Request { frames: Some(17), width: Some(32), ..request() };
    let job = support::job(&checkpoint, &request);
    let bits = expected(&checkpoint, &request);
    let least = plan_least(&checkpoint, &job, Offload::Auto, &target(LARGE, 1)).unwrap();
    let least = least.plan.device_bytes();
    let all = bytes_of(&checkpoint, TEXT);
    let mut kinds = BTreeSet::new();
    for twelfth in [0, 1, 3, 5, 7, 9, 11, 14] {
        let free_bytes = least + all * twelfth / 12;
        let mut bed = Bed::new(free_bytes, keeps(1));
        let pipeline = bed.adopt(&checkpoint);
        let cold = Bed::new(free_bytes, keeps(0));
        let cold = cold.plan(&cold.adopt(&checkpoint), &request).planned.plan.seconds();
        for time in ["first", "second"] {
            let (planned, ran) = bed.run(&pipeline, &request);
            let name = format!("{free_bytes} bytes, {:?}, {time} time", parts(&planned));
            Bits::of(&ran.generated).assert_same(&bits, &name);
            let seconds = planned.planned.plan.seconds();
            assert!(seconds <= cold * 1.03, "{name}: {seconds} s, and {cold} without");
            assert_eq!(
                ran.loaded_bytes > 0,
                time == "first" && !planned.planned.target.warm.is_empty()
            );
            kinds.insert(parts(&planned));
        }
        drop(pipeline);
        assert_eq!(bed.sim.held_bytes(), 0);
    }
    println!("{kinds:?}");
    assert!(kinds.len() >= 3 && kinds.contains(&vec![]) && kinds.contains(TEXT.as_slice()));
}

/// Where copies are slow, weights that stay can cost more than they spare: what they leave no room
/// for is streamed in every step.
#[test]
fn what_would_be_slower_is_not_kept() {
    let checkpoint = Arc::new(heavy(false));
    let request = Request { steps: 50, ..request() };
    let all = bytes_of(&checkpoint, TEXT);
    let job = support::job(&checkpoint, &request);
    let least = plan_least(&checkpoint, &job, Offload::Auto, &target(LARGE, 1)).unwrap();
    let mut would_fit = 0;
    for part in 0..24 {
        let mut bed = Bed::new(least.plan.device_bytes() + all * part / 24, keeps(1));
        let gpu = catalogue::find("RTX 3060 12GB").unwrap();
        bed.target.rates = Rates::of_card(gpu.tensor_flops, gpu.f32_flops, 1e12, 1e8);
        let planned = bed.plan(&bed.adopt(&checkpoint), &request);
        let (warm, cold) = (planned.planned.plan.seconds(), planned.cold.plan.seconds());
        assert!(warm <= cold * 1.03, "{:?}: {warm} s, and {cold} without", parts(&planned));
        let decoder = Target {
            warm: Parts::from_iter([Part::Decoder]),
            warm_bytes: bytes_of(&checkpoint, [Part::Decoder]),
            ..planned.cold.target.clone()
        };
        let fits = replan(&checkpoint, &job, Offload::Auto, &decoder, None).unwrap().is_ok();
        would_fit += usize::from(fits && planned.planned.target.warm.is_empty());
    }
    assert!(would_fit > 0, "nothing that would fit was slower");
}

/// Of 5b, with its own video, on cards that people have.
#[test]
fn cards_that_people_have_keep_what_they_can() {
    let checkpoint = Arc::new(Checkpoint::published(Variant::FiveB));
    let request = Request { dtype: DType::BF16, ..Request::new("A panda") };
    for (name, kept) in [
        ("RTX 3060 12GB", &[Part::Decoder][..]),
        ("RTX 4060 Ti 16GB", &[Part::Transformer, Part::Decoder]),
        ("RTX 4090", &TEXT),
    ] {
        let gpu = catalogue::find(name).unwrap();
        let config = SimConfig {
            overhead_bytes: gpu.overhead_bytes,
            threads: 1,
            ..SimConfig::new(gpu.memory_bytes)
        };
        let sim = Arc::new(SimDevice::new(config).unwrap());
        let target = Target { ram_bytes: Some(64 << 30), ..Target::of_card(gpu) };
        let bed = Bed { target, ..Bed::on(sim, keeps(1)) };
        let planned = bed.plan(&bed.adopt(&checkpoint), &request);
        assert_eq!(parts(&planned), kept, "{name}");
        assert!(planned.device_bytes() <= gpu.memory_bytes - gpu.overhead_bytes);
        assert!(planned.planned.plan.seconds() <= planned.cold.plan.seconds() * 1.03);
        assert_eq!(planned.planned.job.tiling, planned.cold.job.tiling);
    }
}

#[test]
fn the_cpu_keeps_what_it_had_to_convert() {
    let checkpoint = Arc::new(Case::named("5b-dpm").open());
    let request = Request { dtype: DType::BF16, ..request() };
    let bits = expected(&checkpoint, &request);
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(2).unwrap());
    let owner = Pipelines::new(device.clone(), keeps(1));
    let pipeline = owner.adopt(checkpoint.clone(), Task::TextToVideo).unwrap();
    let target = Target::of_device(&*device, LARGE);
    let ask = JobAsk { request: &request, offload: Offload::Auto, target: &target, state: None };
    let mut loaded = Vec::new();
    for _ in 0..2 {
        let ran = pipeline.run(&ask, options(&AtomicBool::new(false), None)).unwrap();
        Bits::of(&ran.generated).assert_same(&bits, "on the CPU");
        assert_eq!(owner.warm_bytes(), ran.generated.ran.target.warm_bytes);
        loaded.push(ran.loaded_bytes);
    }
    assert!(loaded[0] > 0 && loaded[1] == 0 && owner.warm_bytes() == loaded[0], "{loaded:?}");
    drop(pipeline);
    assert_eq!(owner.warm_bytes(), 0);
}

/// Text, image and video to video over published components: one copy of each on the card.
#[test]
fn three_tasks_have_one_copy_of_each_component() {
    let folder = |name: &str| fixtures().join("checkpoints").join(name);
    let mut bed = Bed::new(LARGE, keeps(3));
    let text = bed.owner.load_pipeline(&folder("5b"), Task::TextToVideo).unwrap();
    let video = bed.owner.load_shared_pipeline(&folder("5b"), Task::VideoToVideo, &text).unwrap();
    let image =
        bed.owner.load_shared_pipeline(&folder("5b-i2v"), Task::ImageToVideo, &text).unwrap();
    let of = |case| Request {
        steps: 3,
        tiling: TilingChoice::Off,
        ..Case::named(case).request(DType::F16)
    };
    let jobs = [(&text, of("5b-dpm")), (&video, of("5b-v2v-dpm")), (&image, of("5b-i2v-dpm"))];
    let (a, b) = (text.checkpoint().unwrap(), image.checkpoint().unwrap());
    let own = [
        bytes_of(&a, TEXT),
        // The decoder is there, the encoder is new.
        bytes_of(&a, [Part::Encoder]),
        bytes_of(&b, [Part::Transformer]),
    ];
    for ((pipeline, request), own) in jobs.iter().zip(own) {
        let (_, ran) = bed.run(pipeline, request);
        assert_eq!(ran.loaded_bytes, own);
        let checkpoint = pipeline.checkpoint().unwrap();
        Bits::of(&ran.generated).assert_same(&expected(&checkpoint, request), "shared");
    }
    let all: u64 = own.iter().sum();
    assert_eq!(bed.owner.warm_bytes(), all);
    for (pipeline, request) in &jobs {
        let (_, ran) = bed.run(pipeline, request);
        assert_eq!(ran.loaded_bytes, 0);
    }
    assert_eq!(bed.sim.counters().warm_reservations.len(), 5);
    assert_eq!(bed.sim.counters().warm_reservations.iter().sum::<u64>(), all);

    // Each takes with it what nobody else uses.
    drop((a, b));
    drop(jobs);
    bed.owner.unload(image);
    assert_eq!(bed.sim.held_bytes(), own[0] + own[1]);
    bed.owner.unload(text);
    assert_eq!(bed.sim.held_bytes(), own[0] + own[1], "all of it is the other's, too");
    bed.owner.unload(video);
    assert_eq!(bed.sim.held_bytes(), 0);
}

/// Weights are kept as the last job's type has them, and the other type's go.
#[test]
fn another_type_has_weights_of_its_own() {
    let checkpoint = Arc::new(heavy(true));
    let mut bed = Bed::new(LARGE, keeps(2));
    let pipeline = bed.adopt(&checkpoint);
    let all = bytes_of(&checkpoint, TEXT);
    for dtype in [DType::F16, DType::BF16, DType::BF16, DType::F16] {
        let request = Request { dtype, ..request() };
        let before = bed.sim.counters().warm_reservations.len();
        let (_, ran) = bed.run(&pipeline, &request);
        assert_eq!(bed.owner.warm_bytes(), all);
        Bits::of(&ran.generated).assert_same(&expected(&checkpoint, &request), "of its type");
        let brought = bed.sim.counters().warm_reservations.len() > before;
        assert_eq!(brought, ran.loaded_bytes == all);
    }
    assert_eq!(bed.sim.counters().warm_reservations.len(), 9, "for three changes of type");
}

#[test]
fn the_least_recently_used_goes_first() {
    let models: Vec<Arc<Checkpoint>> = (0..3).map(|_| Arc::new(heavy(true))).collect();
    let each = bytes_of(&models[0], TEXT);
    let mut bed = Bed::new(LARGE, keeps(2));
    let pipelines: Vec<Pipeline> = models.iter().map(|model| bed.adopt(model)).collect();
    let mut loads = |order: &[usize]| -> Vec<bool> {
        let mut run = |&n: &usize| bed.run(&pipelines[n], &request()).1.loaded_bytes > 0;
        let loads = order.iter().map(&mut run).collect();
        assert_eq!(bed.owner.warm_bytes(), 2 * each);
        loads
    };
    // 0 and 1 stay; 2 takes the place of 0, and then 0 that of 1.
    assert_eq!(loads(&[0, 1, 0, 1]), [true, true, false, false]);
    assert_eq!(loads(&[2, 1, 0, 2]), [true, false, true, true]);
    assert_eq!(loads(&[0, 2, 1]), [false, false, true]);
    drop(pipelines);
    assert_eq!(bed.sim.held_bytes(), 0);
}

/// Room for one model's weights and a job, not for two.
#[test]
fn another_models_job_takes_the_room() {
    let models: Vec<Arc<Checkpoint>> = (0..2).map(|_| Arc::new(heavy(true))).collect();
    let each = bytes_of(&models[0], TEXT);
    let warm = Bed::new(LARGE, keeps(2));
    let one = warm.plan(&warm.adopt(&models[0]), &request()).device_bytes();
    for (free_bytes, both_stay) in [(one + each - 256, false), (one + each, true)] {
        let mut bed = Bed::new(free_bytes, keeps(2));
        let pipelines: Vec<Pipeline> = models.iter().map(|model| bed.adopt(model)).collect();
        for (n, loads) in [(0, true), (1, true), (0, !both_stay), (1, !both_stay)] {
            let (planned, ran) = bed.run(&pipelines[n], &request());
            assert_eq!(parts(&planned), TEXT);
            assert_eq!(ran.loaded_bytes, if loads { each } else { 0 }, "{free_bytes} bytes");
            Bits::of(&ran.generated).assert_same(&expected(&models[n], &request()), "in turn");
        }
    }
}

/// A job that needs the whole card is not refused for what is kept there.
#[test]
fn a_large_job_takes_all_the_room() {
    let checkpoint = Arc::new(heavy(true));
    let large = Request { height: Some(64), width: Some(64), frames: Some(17), ..request() };
    let job = support::job(&checkpoint, &large);
    let least = plan_least(&checkpoint, &job, Offload::Auto, &target(LARGE, 1)).unwrap();
    let mut bed = Bed::new(least.plan.device_bytes(), keeps(2));
    let first = bed.adopt(&Arc::new(Case::named("5b-dpm").open()));
    let second = bed.adopt(&checkpoint);
    bed.run(&first, &request());
    assert!(bed.owner.warm_bytes() > 0);
    let (planned, _) = bed.run(&second, &large);
    assert!(planned.planned.target.warm.is_empty());
    assert_eq!(bed.owner.warm_bytes(), 0);
    bed.run(&first, &request());
    assert!(bed.owner.warm_bytes() > 0);
}

#[test]
fn what_is_idle_goes() {
    let models: Vec<Arc<Checkpoint>> = (0..2).map(|_| Arc::new(heavy(true))).collect();
    let each = bytes_of(&models[0], TEXT);
    let after = Duration::from_secs(600);
    let mut bed = Bed::new(LARGE, WarmSettings { pipelines: 2, idle_unload: Some(after) });
    let pipelines: Vec<Pipeline> = models.iter().map(|model| bed.adopt(model)).collect();
    assert_eq!(bed.owner.unload_idle(Instant::now() + after), None);
    let began = Instant::now();
    bed.run(&pipelines[0], &request());
    let between = Instant::now();
    bed.run(&pipelines[1], &request());
    let done = Instant::now();

    let next = bed.owner.unload_idle(began + after).unwrap();
    assert!(next > began + after && next <= between + after);
    assert_eq!(bed.owner.warm_bytes(), 2 * each);
    // The first has been idle for so long by then, the second has not.
    let next = bed.owner.unload_idle(between + after).unwrap();
    assert!(next > between + after && next <= done + after);
    assert_eq!(bed.sim.held_bytes(), each);
    assert_eq!(bed.owner.unload_idle(next), None);
    assert_eq!(bed.sim.held_bytes(), 0);

    // It comes again when it is used.
    let (_, ran) = bed.run(&pipelines[0], &request());
    assert_eq!(ran.loaded_bytes, each);
    // Without a time, nothing goes.
    let mut bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&models[0]);
    bed.run(&pipeline, &request());
    assert_eq!(bed.owner.unload_idle(Instant::now() + 1000 * after), None);
    assert_eq!(bed.owner.warm_bytes(), each);
}

#[test]
fn a_pipeline_outlives_its_owner() {
    let checkpoint = Arc::new(heavy(true));
    let mut bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    bed.run(&pipeline, &request());
    let sim = bed.sim.clone();
    drop(bed);
    assert!(sim.held_bytes() > 0);
    drop(pipeline);
    assert_eq!(sim.held_bytes(), 0);
}

#[test]
fn a_request_for_another_task_is_refused() {
    let bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&Arc::new(heavy(true)));
    let request = Request { start: Start::Video { strength: 0.5 }, ..request() };
    let ask =
        JobAsk { request: &request, offload: Offload::Auto, target: &bed.target, state: None };
    let error = pipeline.plan(&ask).map(drop).unwrap_err().to_string();
    assert_eq!(error, "this pipeline is for text to video, and the request is for video to video");
}

/// What asks for the least memory, or for shares of it, gets that.
#[test]
fn strategies_that_stream_keep_nothing() {
    let bed = Bed::new(LARGE, keeps(1));
    let pipeline = bed.adopt(&Arc::new(heavy(true)));
    for (offload, keeps) in [
        (Offload::Auto, true),
        (Offload::None, true),
        (Offload::Model, true),
        (Offload::Sequential, false),
        (Offload::Percent(50), false),
    ] {
        let ask = JobAsk { request: &request(), offload, target: &bed.target, state: None };
        let planned = pipeline.plan(&ask).unwrap().ok().unwrap();
        assert_eq!(planned.planned.target.warm != Parts::default(), keeps, "{offload}");
    }
}
