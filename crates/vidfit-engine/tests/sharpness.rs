//! The comparison with the reference is sharp: deliberate mistakes miss it by ten times or more.

mod support;

use std::collections::BTreeMap;
use support::saboteur::{Mistake, Saboteur};
use support::{
    Case, distance, job, kept, largest_difference, prepare_job, run, run_prepared, tensor,
};
use vidfit_cogvideox::guidance::GuidanceCurve;
use vidfit_cogvideox::scheduler::{AddNoise, DpmStep, Update};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::generate::KeptTensors;
use vidfit_engine::request::Job;
use vidfit_tensor::DType;

/// What the parity tests compare, and how closely.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Embeddings,
    Latents,
    Frames,
}

impl Stage {
    fn tolerance(self) -> f64 {
        match self {
            Stage::Embeddings | Stage::Latents => 1e-4,
            Stage::Frames => 2e-3,
        }
    }

    /// How far a result is from the reference.
    fn distance(self, case: &Case, ours: &KeptTensors) -> f64 {
        let expected = |name| tensor(&case.expected(), name).1;
        match self {
            Stage::Embeddings => distance(&ours.prompt_embeds, &case.expected_embeds()),
            Stage::Latents => distance(&ours.latents, &expected("latents")),
            Stage::Frames => {
                f64::from(largest_difference(&case.stored(&ours.frames), &expected("frames")))
            }
        }
    }
}

/// Cases and checkpoints, each read once.
struct Bench {
    cases: BTreeMap<&'static str, (Case, Checkpoint)>,
    blunt: Vec<String>,
    mistakes: usize,
}

impl Bench {
    fn new() -> Bench {
        println!("mistake, case, stage: distance, times the tolerance");
        Bench { cases: BTreeMap::new(), blunt: Vec::new(), mistakes: 0 }
    }

    /// Makes the mistake in each case and notes where it is missed by less than ten times.
    fn make(
        &mut self,
        name: &str,
        stage: Stage,
        cases: &[&'static str],
        mistake: Option<Mistake>,
        spoil: &dyn Fn(&mut Job),
    ) {
        self.mistakes += 1;
        for &case in cases {
            let open = || {
                let case = Case::named(case);
                let checkpoint = case.open();
                (case, checkpoint)
            };
            let (case, checkpoint) = self.cases.entry(case).or_insert_with(open);
            let device = Saboteur::new(mistake);
            let mut job = job(checkpoint, &case.request(DType::F32));
            spoil(&mut job);
            let prepared = prepare_job(checkpoint, job, &*device);
            let generated = run_prepared(checkpoint, &prepared, device);
            let distance = stage.distance(case, kept(&generated));
            let times = distance / stage.tolerance();
            let row =
                format!("{name:28} {:36} {stage:10?} {distance:7.1e} {times:9.0}×", case.name);
            println!("{row}{}", if times < 10.0 { "  BLUNT" } else { "" });
            if times < 10.0 {
                self.blunt.push(row);
            }
        }
    }

    fn device(&mut self, mistake: Mistake, stage: Stage, cases: &[&'static str]) {
        self.make(&format!("{mistake:?}"), stage, cases, Some(mistake), &|_| {});
    }

    fn job(&mut self, name: &str, stage: Stage, cases: &[&'static str], spoil: impl Fn(&mut Job)) {
        self.make(name, stage, cases, None, &spoil);
    }

    fn end(self, mistakes: usize) {
        assert_eq!(self.mistakes, mistakes);
        assert!(self.blunt.is_empty(), "these mistakes hardly show: {:#?}", self.blunt);
    }
}

const PLAIN: &[&str] = &["2b-ddim", "5b-dpm", "1.5-dpm"];
const ROTARY: &[&str] = &["5b-dpm", "1.5-dpm"];
const DPM: &[&str] = &["5b-dpm", "1.5-dpm", "2b-dpm-negative"];
const TILED: &[&str] = &["5b-tiled", "1.5-tiled-dynamic"];
const FROM_IMAGES: &[&str] = &["5b-i2v-dpm", "1.5-i2v-dpm"];
const FROM_VIDEOS: &[&str] = &["5b-v2v-dpm", "5b-v2v-ddim-weak-dynamic", "1.5-v2v-13-frames"];
const CHUNKED: &[&str] = &["2b-17-frames-six-steps-long-prompt", "1.5-33-frames"];

/// The device of these tests is the CPU device, as long as it makes no mistake.
#[test]
fn without_a_mistake_the_bits_are_the_cpus() {
    for name in [PLAIN, TILED, CHUNKED].concat() {
        let case = Case::named(name);
        let checkpoint = case.open();
        let request = case.request(DType::F32);
        let (plan, honest) = run(&checkpoint, &request, 2);
        let device = Saboteur::new(None);
        let prepared = prepare_job(&checkpoint, job(&checkpoint, &request), &*device);
        assert_eq!(prepared.plan, plan, "{name}");
        let ours = run_prepared(&checkpoint, &prepared, device);
        assert_eq!(kept(&ours).prompt_embeds, kept(&honest).prompt_embeds, "{name}");
        assert_eq!(kept(&ours).latents, kept(&honest).latents, "{name}");
        assert_eq!(kept(&ours).frames, kept(&honest).frames, "{name}");
        for stage in [Stage::Embeddings, Stage::Latents, Stage::Frames] {
            assert!(stage.distance(&case, kept(&ours)) <= stage.tolerance(), "{name} {stage:?}");
        }
    }
}

#[test]
fn mistakes_of_the_text_encoder_show() {
    let mut bench = Bench::new();
    for mistake in [Mistake::TextBiasDropped, Mistake::TextBiasMirrored, Mistake::TextScaled] {
        bench.device(mistake, Stage::Embeddings, PLAIN);
    }
    bench.end(3);
}

#[test]
fn mistakes_of_the_transformer_show() {
    let mut bench = Bench::new();
    for mistake in [Mistake::RopeOff, Mistake::RopeOnText, Mistake::RopeLate] {
        bench.device(mistake, Stage::Latents, ROTARY);
    }
    bench.device(Mistake::PositionsDropped, Stage::Latents, &["2b-ddim"]);
    for mistake in [
        Mistake::GatesSwapped,
        Mistake::ShiftAndScaleSwapped,
        Mistake::FirstTailNormDropped,
        Mistake::SecondTailNormDropped,
        Mistake::QkNormDropped,
        Mistake::AttentionUnscaled,
        Mistake::TimeSiluDropped,
        Mistake::GuidanceSwapped,
    ] {
        bench.device(mistake, Stage::Latents, PLAIN);
    }
    bench.end(12);
}

#[test]
fn mistakes_of_the_decoder_show() {
    let mut bench = Bench::new();
    for mistake in [Mistake::BlendOrder, Mistake::BlendSkipped] {
        bench.device(mistake, Stage::Frames, TILED);
    }
    bench.job("tiles left out", Stage::Frames, TILED, |job| job.tiling = None);
    for mistake in [Mistake::ConvCacheDropped, Mistake::ConvCacheZeroed] {
        bench.device(mistake, Stage::Frames, CHUNKED);
    }
    for mistake in [
        Mistake::StatisticsOfFirstFrame,
        Mistake::SpatialModulationDropped,
        Mistake::GroupNormSiluDropped,
        Mistake::LatentsScaledUp,
    ] {
        bench.device(mistake, Stage::Frames, PLAIN);
    }
    bench.end(9);
}

/// Those of the order of draws, and of what the image is multiplied with, are among the tests of
/// beginnings.
#[test]
fn mistakes_of_the_encoder_show_in_the_end() {
    let mut bench = Bench::new();
    bench.device(Mistake::PosteriorMean, Stage::Latents, &[FROM_IMAGES, FROM_VIDEOS].concat());
    bench.job("noised for the next step", Stage::Latents, FROM_VIDEOS, |job| {
        let next = job.steps[1];
        job.noising = Some(AddNoise {
            sqrt_alpha: next.sqrt_alpha as f32,
            sqrt_one_minus_alpha: next.sqrt_beta as f32,
        });
    });
    bench.job("tiles left out", Stage::Latents, &["5b-v2v-tiled"], |job| job.encode_tiling = None);
    let dynamic = ["5b-v2v-ddim-weak-dynamic"];
    bench.job("guidance by step number", Stage::Latents, &dynamic, |job| {
        job.guidance.curve = GuidanceCurve::Smooth;
    });
    bench.end(4);
}

#[test]
fn mistakes_of_the_schedule_show() {
    let mut bench = Bench::new();
    let dpm = |job: &mut Job, change: &dyn Fn(&mut DpmStep)| {
        for step in &mut job.steps {
            if let Update::Dpm(dpm) = &mut step.update {
                change(dpm);
            }
        }
    };
    bench.job("DPM draw skipped", Stage::Latents, DPM, |job| dpm(job, &|step| step.draws = 1));
    bench.job("DPM of first order", Stage::Latents, DPM, |job| {
        dpm(job, &|step| step.second_order = None);
    });
    bench.job("DPM without noise", Stage::Latents, DPM, |job| dpm(job, &|step| step.sigma = 0.0));
    bench.job("timestep off by one", Stage::Latents, PLAIN, |job| {
        job.steps.iter_mut().for_each(|step| step.timestep -= 1);
    });
    let dynamic = ["2b-default-size-dynamic", "5b-default-size-one-frame-dynamic"];
    bench.job("guidance by step number", Stage::Latents, &dynamic, |job| {
        job.guidance.curve = GuidanceCurve::Smooth;
    });
    bench.job("guidance of another scale", Stage::Latents, PLAIN, |job| job.guidance.scale += 0.1);
    bench.job("padding tokens of another id", Stage::Latents, PLAIN, |job| {
        for id in job.prompts.iter_mut().flatten().filter(|id| **id == 0) {
            *id = 1;
        }
    });
    bench.end(7);
}
