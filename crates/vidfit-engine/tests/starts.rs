//! What a video starts from: what is refused, in what order noise is drawn, and that each direction
//! is cut into tiles only if it has to be.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use support::bed::{compute_on, host};
use support::card::target;
use support::{Case, distance, job, kept, pixels_for, tensor};
use vidfit_cogvideox::noise::Generator;
use vidfit_cpu::CpuDevice;
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::pipeline::{self, Origin, Outputs, Reached};
use vidfit_engine::pixels::Pixels;
use vidfit_engine::plan::Plan;
use vidfit_engine::planner::{Ask, Offload, Planned, Target, plan_least};
use vidfit_engine::request::{Job, Request, Start, TilingChoice, tiles};
use vidfit_engine::schedule::Schedule;
use vidfit_engine::state::RunState;
use vidfit_tensor::{Context, DType, Device, Error, Tensor};

/// What the run could go on from before its first step.
#[derive(Default)]
struct Beginning(RunState);

impl Outputs for Beginning {
    fn prompt_embeds(&mut self, cx: &Context<'_>, embeds: &[Tensor]) -> Result<(), Error> {
        let values = embeds.iter().map(|embeds| host(cx, embeds)).collect::<Result<Vec<_>, _>>()?;
        self.0.embeds = values.concat();
        Ok(())
    }

    fn begun(
        &mut self,
        cx: &Context<'_>,
        reached: &Reached<'_>,
        image: Option<&Tensor>,
    ) -> Result<(), Error> {
        assert_eq!(reached.steps_done, 0);
        self.0.latents = host(cx, reached.latents)?;
        if let Some(image) = image {
            let all = host(cx, image)?;
            let (first, rest) = all.split_at(all.len() / image.dims()[0]);
            assert!(rest.iter().all(|&value| value == 0.0), "nothing is behind the image");
            self.0.image = first.to_vec();
        }
        self.0.generator = reached.generator.state();
        Ok(())
    }
}

fn beginning(checkpoint: &Checkpoint, job: &Job) -> RunState {
    let pixels = pixels_for(job).unwrap();
    let device = Arc::new(CpuDevice::new(2).unwrap());
    let (state, _) = compute_on(&device, |cx| {
        let mut beginning = Beginning::default();
        let origin = Origin { pixels: Some(&pixels), ..Origin::default() };
        pipeline::run(cx, checkpoint, job, &Schedule::in_place(), origin, &mut beginning)?;
        Ok(beginning.0)
    });
    RunState { job: RunState::key(job), pixels: pixels.digest(), ..state }
}

/// How far the last latents are from the reference's if the run begins with what `spoil` makes of
/// its state.
fn missed(case: &str, spoil: impl Fn(&Checkpoint, &Job, &mut RunState)) -> f64 {
    let case = Case::named(case);
    let checkpoint = case.open();
    let job = job(&checkpoint, &case.request(DType::F32));
    let mut state = beginning(&checkpoint, &job);
    spoil(&checkpoint, &job, &mut state);
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(2).unwrap());
    let schedule = Schedule::in_place();
    let plan = Plan::new(&checkpoint, &job, &schedule, Some(&state), device.profile()).unwrap();
    let target = Target::of_device(&*device, u64::MAX);
    let prepared = Planned::new(job, schedule, plan, Offload::Auto, &target);
    let options = RunOptions { state: Some(&state), ..options(None, &STOP) };
    let generated = generate::run(&checkpoint, &prepared, &device, options).unwrap();
    distance(&kept(&generated).latents, &tensor(&case.expected(), "latents").1)
}

static STOP: AtomicBool = AtomicBool::new(false);

fn options<'a>(pixels: Option<&'a Pixels>, stop: &'a AtomicBool) -> RunOptions<'a> {
    RunOptions {
        stop,
        listener: Box::new(|_| {}),
        keep_tensors: true,
        capacity_bytes: u64::MAX,
        poison: true,
        pixels,
        state: None,
        replan: false,
        keep: None,
    }
}

fn drawn(generator: &mut Generator, elements: usize) -> Vec<f32> {
    let mut values = vec![0.0; elements];
    generator.fill_normal_f32(&mut values);
    values
}

#[test]
fn mistakes_in_the_beginning_show() {
    const TOLERANCE: f64 = 1e-4;
    for case in ["5b-i2v-dpm", "1.5-i2v-dpm", "5b-v2v-dpm", "1.5-v2v-13-frames"] {
        let honest = missed(case, |_, _, _| {});
        assert!(honest <= TOLERANCE, "{case}: {honest:.1e}");
        let noise_first = missed(case, |_, job, state| {
            let elements = job.latent_elements();
            let given = if job.given_frames == 1 { state.image.len() } else { elements };
            let first = drawn(&mut Generator::seed(job.seed), elements);
            let mut generator = Generator::seed(job.seed);
            generator.skip_normal(given, false);
            let factor = job.noising.map_or(1.0, |noising| noising.sqrt_one_minus_alpha);
            for ((latent, first), own) in
                state.latents.iter_mut().zip(first).zip(drawn(&mut generator, elements))
            {
                *latent += factor * (first - own);
            }
        });
        println!("{case}: noise drawn before the posterior's {noise_first:.1e}");
        assert!(noise_first >= 10.0 * TOLERANCE, "{case}: {noise_first:.1e}");
    }
    for case in ["5b-i2v-dpm", "1.5-i2v-dpm"] {
        let otherwise_scaled = missed(case, |checkpoint, _, state| {
            let config = &checkpoint.vae.config;
            let (own, other) = (config.image_factor(), 1.0 / config.image_factor());
            state.image.iter_mut().for_each(|value| *value *= (other / own) as f32);
        });
        println!("{case}: image scaled the other way {otherwise_scaled:.1e}");
        assert!(otherwise_scaled >= 10.0 * TOLERANCE, "{case}: {otherwise_scaled:.1e}");
        let forgotten = missed(case, |_, _, state| state.image.fill(0.0));
        assert!(forgotten >= 10.0 * TOLERANCE, "{case}: {forgotten:.1e}");
    }
}

#[test]
fn what_a_model_cannot_start_from_is_refused() {
    let video = |strength| Start::Video { strength };
    let cases = [
        ("5b", Start::Image, 9, (48, 64), "zai-org/CogVideoX-5b-I2V"),
        ("2b", Start::Image, 9, (48, 64), "zai-org/CogVideoX-5b-I2V"),
        ("1.5", Start::Image, 9, (48, 64), "zai-org/CogVideoX1.5-5B-I2V"),
        ("5b-i2v", Start::Text, 9, (48, 64), "zai-org/CogVideoX-5b"),
        ("1.5-i2v", video(0.8), 13, (48, 64), "zai-org/CogVideoX1.5-5B"),
        ("5b-i2v", Start::Image, 9, (64, 64), "64×48 pixels alone"),
        ("5b", video(0.0), 9, (48, 64), "strength 0"),
        ("5b", video(0.01), 9, (48, 64), "strength 0.01"),
        ("5b", video(1.01), 9, (48, 64), "strength 1.01"),
        ("5b", video(f64::NAN), 9, (48, 64), "strength NaN"),
        ("5b", video(0.8), 13, (48, 64), "9 or 17"),
        ("1.5", video(0.8), 17, (48, 64), "13 or 21"),
        ("1.5", Start::Text, 13, (48, 64), "9 or 17"),
        ("5b", video(0.8), 0, (48, 64), "0 frames"),
    ];
    for (model, start, frames, (height, width), word) in cases {
        let checkpoint = Checkpoint::open(&support::fixtures().join("checkpoints").join(model));
        let checkpoint = checkpoint.unwrap();
        let (frames, height, width) = (Some(frames), Some(height), Some(width));
        let request = Request { start, frames, height, width, ..Request::new("A panda.") };
        let error = Job::new(&checkpoint, &request).unwrap_err().to_string();
        println!("{error}");
        assert!(error.contains(word), "{model} {start:?}: no {word:?} in {error}");
    }
}

#[test]
fn what_comes_out_otherwise_is_told() {
    let open = |case: &str| Case::named(case).open();
    let told = |case: &str, frames: usize| {
        let request = Case::named(case).request(DType::F32);
        let request = Request { frames: Some(frames), ..request };
        Job::new(&open(case), &request).unwrap()
    };
    let (job, warnings) = told("5b-i2v-dpm", 17);
    assert!(warnings.iter().any(|w| w.contains("learned positions for 9 frames")), "{warnings:?}");
    assert_eq!((job.frames, job.given_frames, job.phases().len()), (17, 1, 4));
    let (_, warnings) = told("5b-i2v-dpm", 9);
    assert!(!warnings.iter().any(|w| w.contains("positions")), "{warnings:?}");
    let (job, warnings) = told("1.5-v2v-13-frames", 13);
    assert!(warnings.iter().any(|w| w.contains("13 frames become 16")), "{warnings:?}");
    assert_eq!((job.asked_frames(), job.frames, job.padding_frames), (13, 16, 0));
    // Left to the model, it is a number that it takes.
    let request = Request { frames: None, ..Case::named("1.5-v2v-13-frames").request(DType::F32) };
    assert_eq!(Job::new(&open("1.5-v2v-13-frames"), &request).unwrap().0.given_frames, 77);
}

#[test]
fn other_pixels_than_the_jobs_are_refused_before_anything_runs() {
    let device: Arc<dyn Device> = Arc::new(CpuDevice::new(1).unwrap());
    let black = |height: usize, width: usize, frames: usize| {
        let frame: Arc<[u8]> = vec![0; height * width * 3].into();
        Some(Pixels::new(height, width, vec![frame; frames]).unwrap())
    };
    for (case, pixels, word) in [
        ("5b-i2v-dpm", None, "image to start from is missing"),
        ("5b-i2v-dpm", black(48, 64, 2), "2 frames were given"),
        ("5b-i2v-dpm", black(64, 48, 1), "48×64 pixels"),
        ("5b-v2v-dpm", None, "video of 9 frames to start from is missing"),
        ("5b-v2v-dpm", black(32, 48, 8), "8 frames were given"),
        ("5b-v2v-dpm", black(32, 32, 9), "32×32 pixels"),
        ("5b-dpm", black(32, 48, 1), "no use for pixels"),
    ] {
        let case = Case::named(case);
        let (checkpoint, request) = (case.open(), case.request(DType::F32));
        let prepared = generate::prepare(&checkpoint, &request, &*device, u64::MAX).unwrap();
        let listener = Box::new(|news| panic!("something has run: {news:?}"));
        let options = RunOptions { listener, ..options(pixels.as_ref(), &STOP) };
        match generate::run(&checkpoint, &prepared, &device, options) {
            Err(EngineError::Request(why)) => assert!(why.contains(word), "{why}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{}: it ran", case.name),
        }
    }
}

/// Between what encoding as a whole and decoding in tiles take together, and what both take as a
/// whole, there are tiles for decoding alone; below that, for both.
#[test]
fn each_direction_is_cut_into_tiles_only_if_it_has_to_be() {
    let case = Case::named("5b-v2v-dpm");
    let checkpoint = case.open();
    let request = Request {
        height: Some(160),
        width: Some(160),
        tiling: TilingChoice::Auto,
        ..case.request(DType::F32)
    };
    let (whole, _) = Job::new(&checkpoint, &request).unwrap();
    let both = whole.clone().with_tiles(tiles(&checkpoint, &request).unwrap());
    let decode_alone = Job { encode_tiling: None, ..both.clone() };
    let least = |job: &Job| {
        let least = plan_least(&checkpoint, job, Offload::Auto, &target(1 << 40, 2)).unwrap();
        least.plan.device_bytes()
    };
    let [all, alone, tiled] = [&whole, &decode_alone, &both].map(least);
    println!("whole {all}, decoding in tiles {alone}, both in tiles {tiled}");
    assert!(tiled * 17 / 16 < alone && alone * 17 / 16 < all, "they lie too close together");
    for (budget, expected) in [
        (all, (None, None)),
        (alone, (None, both.tiling)),
        (tiled, (both.encode_tiling, both.tiling)),
    ] {
        let target = target(budget, 2);
        let offload = Offload::Auto;
        let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
        let prepared = generate::prepare_for(&ask).unwrap();
        let Job { encode_tiling, tiling, .. } = prepared.job;
        assert_eq!((encode_tiling, tiling), expected, "within {budget}");
        let told = |verb: &str| prepared.warnings.iter().any(|w| w.starts_with(verb));
        assert_eq!(told("encoding in tiles"), encode_tiling.is_some(), "{:?}", prepared.warnings);
        assert_eq!(told("decoding in tiles"), tiling.is_some(), "{:?}", prepared.warnings);
    }
    let target = target(tiled / 2, 2);
    let offload = Offload::Auto;
    let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
    assert!(matches!(generate::prepare_for(&ask), Err(EngineError::DoesNotFit { .. })));
}
