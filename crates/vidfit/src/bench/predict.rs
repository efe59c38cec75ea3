//! `vidfit bench predict`: what a dry run says a job takes, and what it takes.

use super::cases::{self, Work};
use crate::exit::Failure;
use crate::say::{line, note};
use serde::Deserialize;
use std::path::Path;
use vidfit_cogvideox::transformer::TransformerConfig;
use vidfit_cogvideox::vae::Piece;
use vidfit_cpu::CpuDevice;
use vidfit_engine::calibration::{self, Certainty};
use vidfit_engine::checkpoint::Checkpoint;
use vidfit_engine::pipeline::{self, Origin, Outputs};
use vidfit_engine::request::{Job, Request, TilingChoice};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::{Context, DType, Error, Rates};

/// Makes a job when it is its turn: weights take memory.
type Make<'a> = Box<dyn Fn() -> Result<Work, Failure> + 'a>;

/// Predicts and runs each job, and prints a table.
pub fn run(
    threads: usize,
    repeat: usize,
    only: Option<&str>,
    fixtures: &Path,
) -> Result<(), Failure> {
    let mut warnings = Vec::new();
    let (rates, certainty) = calibration::rates(threads, &mut warnings);
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    if certainty != Certainty::Measured {
        note!("no calibration of this machine: {certainty}");
    }
    line!(
        "| f32 unless said otherwise, {threads} threads | predicted | measured | ratio | runs \
         | on the wall |"
    );
    line!("|---|---:|---:|---:|---|---:|");
    for (name, make) in jobs(fixtures) {
        if only.is_none_or(|only| name.contains(only)) {
            line!("{}", row(name, threads, repeat, &rates, &make()?)?);
        }
    }
    Ok(())
}

fn row(
    name: &str,
    threads: usize,
    repeat: usize,
    rates: &Rates,
    work: &Work,
) -> Result<String, Failure> {
    let (_, tally) = cases::plan(&CpuDevice::profile_of(threads), *rates, work)?;
    let mut laps = cases::time(threads, repeat, work)?;
    laps.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let (first, median, last) = (laps[0], laps[laps.len() / 2], laps[laps.len() - 1]);
    Ok(format!(
        "| {name} | {:.3} s | {:.3} s | **{:.2}** | {:.3} to {:.3} s | {:.3} s |",
        tally.seconds,
        median.seconds,
        tally.seconds / median.seconds,
        first.seconds,
        last.seconds,
        median.wall_seconds,
    ))
}

fn jobs(fixtures: &Path) -> Vec<(&'static str, Make<'_>)> {
    let two_b = TransformerConfig { num_layers: 2, ..TransformerConfig::default() };
    let five_b = TransformerConfig {
        num_layers: 1,
        num_attention_heads: 48,
        use_rotary_positional_embeddings: true,
        ..TransformerConfig::default()
    };
    let (f16, bf16) = (DType::F16, DType::BF16);
    vec![
        ("T5 XXL, 2 layers, 226 tokens", Box::new(|| Ok(cases::text_encoder()))),
        (
            "2b, 2 layers, 1,216 tokens, 2 steps, 2 halves",
            Box::new(move || {
                let shape = [5, 16, 22, 36];
                Ok(cases::transformer(two_b.clone(), f16, DType::F32, shape, 2, 2)?)
            }),
        ),
        (
            "5b, 1 layer, 4,276 tokens, bf16",
            Box::new(move || {
                Ok(cases::transformer(five_b.clone(), bf16, bf16, [3, 16, 60, 90], 1, 1)?)
            }),
        ),
        ("VAE, 9 frames of 192×128", Box::new(|| Ok(cases::vae_decode([3, 16, 16, 24])))),
        (
            "small 2b, 17 frames of 32×32, 6 steps, whole pipeline",
            Box::new(|| pipeline(fixtures, "2b-17-frames-six-steps-long-prompt", DType::F32)),
        ),
        (
            "small 5b, 17 frames of 16×32, 6 steps, whole pipeline",
            Box::new(|| pipeline(fixtures, "5b-17-frames-six-steps-empty-prompt", DType::F32)),
        ),
        (
            "small 5b, 9 frames of 80×96, bf16, whole pipeline",
            Box::new(move || {
                let change = |request: Request| Request {
                    frames: Some(9),
                    height: Some(80),
                    width: Some(96),
                    ..request
                };
                let name = "5b-17-frames-six-steps-empty-prompt";
                changed_pipeline(fixtures, name, bf16, change)
            }),
        ),
    ]
}

/// What a fixture's case asks for.
#[derive(Deserialize)]
struct Case {
    checkpoint: String,
    prompt: String,
    negative_prompt: String,
    num_frames: usize,
    height: usize,
    width: usize,
    steps: usize,
    guidance: f64,
    seed: u64,
}

fn pipeline(fixtures: &Path, case: &str, dtype: DType) -> Result<Work, Failure> {
    changed_pipeline(fixtures, case, dtype, |request| request)
}

fn changed_pipeline(
    fixtures: &Path,
    case: &str,
    dtype: DType,
    change: impl Fn(Request) -> Request,
) -> Result<Work, Failure> {
    let path = fixtures.join("cases").join(format!("{case}.json"));
    let cannot = |what: &dyn std::fmt::Display| {
        let path = path.display();
        Failure::input(format!("cannot read {path}: {what}; name the folder with --fixtures"))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| cannot(&error))?;
    let case: Case = serde_json::from_str(&text).map_err(|error| cannot(&error))?;
    let checkpoint = Checkpoint::open(&fixtures.join("checkpoints").join(&case.checkpoint))?;
    let request = change(Request {
        negative_prompt: case.negative_prompt,
        frames: Some(case.num_frames),
        height: Some(case.height),
        width: Some(case.width),
        steps: case.steps,
        guidance: case.guidance,
        seed: case.seed,
        dtype,
        tiling: TilingChoice::Off,
        ..Request::new(case.prompt)
    });
    let (job, _) = Job::new(&checkpoint, &request)?;
    Ok(Box::new(move |cx| {
        let (schedule, origin) = (Schedule::in_place(), Origin::default());
        pipeline::run(cx, &checkpoint, &job, &schedule, origin, &mut Fetching)
    }))
}

/// Brings the frames to the host, as a run does.
struct Fetching;

impl Outputs for Fetching {
    fn piece(&mut self, cx: &Context<'_>, piece: Piece<'_>) -> Result<(), Error> {
        let mut values = vec![0.0; piece.pixels.shape().elements()];
        cx.device.download(piece.pixels, &mut values)
    }
}
