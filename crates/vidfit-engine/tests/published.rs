//! The five published checkpoints: accepted whole, refused with anything amiss, and planned, all
//! without a single weight.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Instant;
use support::published::{Published, PublishedComponent, VARIANTS, write_json};
use support::sparse::{occupied_bytes, supports_holes};
use vidfit_cogvideox::vae::Tiling;
use vidfit_cogvideox::weights::Manifest;
use vidfit_cpu::CpuDevice;
use vidfit_engine::checkpoint::{
    Checkpoint, CheckpointError, ComponentState, ModelConfig, Variant, inspect,
};
use vidfit_engine::plan::Plan;
use vidfit_engine::request::{Job, Request, Tiles};
use vidfit_engine::safetensors::{HeaderFault, SafetensorsError, StoredDtype};
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::Event;

/// Parameters of the transformers, from the model cards and counted on the reference.
const TRANSFORMER_PARAMETERS: [(&str, Variant, u64, usize); 5] = [
    ("2b", Variant::TwoB, 1_693_783_872, 736),
    ("5b", Variant::FiveB, 5_570_283_072, 1024),
    ("5b-i2v", Variant::FiveBI2v, 5_570_479_680 + 54_607_872, 1025),
    ("1.5", Variant::OneFive, 5_570_676_352, 1024),
    ("1.5-i2v", Variant::OneFiveI2v, 5_571_594_880, 1028),
];
const VAE: (u64, usize) = (215_583_907, 436);
const TEXT_ENCODER: (u64, usize) = (4_762_310_656, 219);

/// Holds the manifest that follows from a configuration against the reference's.
fn assert_manifest(ours: &Manifest, theirs: &PublishedComponent) {
    let shapes: BTreeMap<&str, &[usize]> =
        ours.weights().map(|spec| (spec.key.as_str(), spec.stored.as_slice())).collect();
    assert_eq!(shapes.len(), ours.weights().count(), "a key stands twice");
    let expected: BTreeMap<&str, &[usize]> =
        theirs.tensors.iter().map(|(name, _, shape)| (name.as_str(), shape.as_slice())).collect();
    assert_eq!(shapes, expected, "{}", theirs.folder);
    assert_eq!(ours.parameters(), theirs.parameters, "{}", theirs.folder);
    for spec in ours.weights() {
        let stored: usize = spec.stored.iter().product();
        assert_eq!(spec.shape.elements(), stored, "{}", spec.key);
    }
}

#[test]
fn every_published_checkpoint_is_accepted_and_counted() {
    let temporary = tempfile::tempdir().unwrap();
    if !supports_holes(temporary.path()) {
        return;
    }
    assert_eq!(VARIANTS, TRANSFORMER_PARAMETERS.map(|(name, ..)| name));
    for (name, variant, parameters, tensors) in TRANSFORMER_PARAMETERS {
        let dir = temporary.path().join(name);
        let published = Published::read(name);
        published.write(&dir);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert_eq!(checkpoint.variant, variant);
        assert_manifest(&checkpoint.text_encoder.weights.manifest, &published.text_encoder);
        assert_manifest(&checkpoint.transformer.weights.manifest, &published.transformer);
        assert_manifest(&checkpoint.vae.weights.manifest, &published.vae);
        assert_manifest(&ModelConfig::manifest(&checkpoint.vae.config), &published.vae);

        let inspection = inspect(&dir).unwrap();
        assert!(inspection.is_complete() && inspection.variant == Some(variant));
        assert_eq!(
            inspection.differences,
            Some(Vec::new()),
            "{variant}: the built-in configuration"
        );
        let counts =
            [("text_encoder", TEXT_ENCODER), ("transformer", (parameters, tensors)), ("vae", VAE)];
        for ((component, counts), published) in counts.into_iter().zip(published.components()) {
            let report = inspection.components.iter().find(|report| report.name == component);
            let ComponentState::Weights { parameters, bytes, tensors, dtypes, shards } =
                &report.unwrap().state
            else {
                panic!("{name}: {report:?}")
            };
            assert_eq!((*parameters, *tensors), counts, "{name} {component}");
            assert_eq!(*bytes, 2 * counts.0, "{name} {component}");
            let dtype = if name == "2b" { "F16" } else { "BF16" };
            assert_eq!(*dtypes, BTreeMap::from([(dtype.to_owned(), counts.1)]));
            assert_eq!(*shards, published.files(), "{name} {component}");
            for file in shards {
                let path = dir.join(component).join(file);
                assert!(occupied_bytes(&path).is_none_or(|bytes| bytes < 1 << 20), "{path:?}");
            }
        }
    }
}

/// Opens the checkpoint, which must fail with a message that has all these words, and makes sure
/// that `inspect` puts it down to the same component.
fn refusal(dir: &Path, component: &str, words: &[&str]) -> CheckpointError {
    let Err(error) = Checkpoint::open(dir) else { panic!("accepted; {words:?} was to be noticed") };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    let inspection = inspect(dir).unwrap();
    assert!(!inspection.is_complete());
    for report in &inspection.components {
        match &report.state {
            ComponentState::Broken(error) => {
                assert_eq!((report.name, error.to_string()), (component, message.clone()));
            }
            _ => assert_ne!(report.name, component, "{words:?}"),
        }
    }
    error
}

#[test]
fn anything_amiss_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    if !supports_holes(temporary.path()) {
        return;
    }
    let dir = temporary.path();
    let published = Published::read("1.5");
    published.write(dir);
    Checkpoint::open(dir).unwrap();
    let key = "transformer_blocks.17.attn1.to_k.weight";
    let at = published.transformer.tensors.iter().position(|(name, ..)| name == key).unwrap();

    published.transformer.with(|tensors| drop(tensors.remove(at))).write(dir);
    let error = refusal(dir, "transformer", &[key, "transformer", "lacks 1"]);
    assert!(matches!(error, CheckpointError::MissingWeights { count: 1, .. }));

    let extra = ("lora_A.weight".to_owned(), StoredDtype::F32, vec![4, 4]);
    published.transformer.with(|tensors| tensors.push(extra)).write(dir);
    let error = refusal(dir, "transformer", &["lora_A.weight", "transformer", "config.json"]);
    assert!(matches!(error, CheckpointError::UnknownWeights { count: 1, .. }));

    published.transformer.with(|tensors| tensors[at].2 = vec![3072, 1536]).write(dir);
    let error = refusal(dir, "transformer", &[key, "[3072, 1536]", "[3072, 3072]"]);
    assert!(matches!(error, CheckpointError::WrongShape { .. }));

    published.transformer.with(|tensors| tensors[at].1 = StoredDtype::I64).write(dir);
    let error = refusal(dir, "transformer", &[key, "I64", "BF16"]);
    assert!(matches!(error, CheckpointError::WrongType { .. }));

    published.transformer.write(dir);
    let shard = &published.transformer.files()[1];
    fs::remove_file(dir.join("transformer").join(shard)).unwrap();
    let error =
        refusal(dir, "transformer", &[shard, "missing", "index.json", "vidfit models pull"]);
    assert!(matches!(error, CheckpointError::Weights(SafetensorsError::MissingShard { .. })));
    published.transformer.write(dir);

    let file = &published.vae.files()[0];
    let path = dir.join("vae").join(file);
    let handle = OpenOptions::new().write(true).open(&path).unwrap();
    handle.set_len(handle.metadata().unwrap().len() - 1).unwrap();
    let last = &published.vae.tensors.last().unwrap().0;
    let error = refusal(dir, "vae", &[file, last, "truncated", "download it again"]);
    let CheckpointError::Weights(SafetensorsError::Invalid { fault, .. }) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(fault, HeaderFault::BeyondFile { .. }));
    published.vae.write(dir);

    for (component, what) in [
        ("text_encoder", "the text encoder"),
        ("transformer", "the transformer"),
        ("vae", "the VAE"),
        ("scheduler", "the scheduler"),
        ("tokenizer", "the tokenizer"),
    ] {
        fs::rename(dir.join(component), dir.join("elsewhere")).unwrap();
        let error = refusal(dir, component, &[what, component, "vidfit models pull"]);
        assert!(matches!(error, CheckpointError::Missing { .. }), "{component}");
        fs::rename(dir.join("elsewhere"), dir.join(component)).unwrap();
    }

    let mut scheduler = published.scheduler.clone();
    scheduler["_class_name"] = "EulerDiscreteScheduler".into();
    write_json(&dir.join("scheduler/scheduler_config.json"), &scheduler);
    let error = refusal(dir, "scheduler", &["EulerDiscreteScheduler", "scheduler_config.json"]);
    assert!(matches!(error, CheckpointError::Scheduler { .. }));
    write_json(&dir.join("scheduler/scheduler_config.json"), &published.scheduler);
    Checkpoint::open(dir).unwrap();

    fs::remove_file(dir.join("model_index.json")).unwrap();
    assert!(matches!(Checkpoint::open(dir), Err(CheckpointError::NotACheckpoint { .. })));
    assert!(matches!(inspect(dir), Err(CheckpointError::NotACheckpoint { .. })));
}

/// The one matrix of T5 that has two names is accepted under either.
#[test]
fn the_embedding_may_have_its_other_name() {
    let temporary = tempfile::tempdir().unwrap();
    if !supports_holes(temporary.path()) {
        return;
    }
    let published = Published::read("5b");
    published.write(temporary.path());
    let other = "encoder.embed_tokens.weight";
    let renamed = published.text_encoder.with(|tensors| {
        let embedding = tensors.iter_mut().find(|(name, ..)| name == "shared.weight");
        embedding.unwrap().0 = other.to_owned();
    });
    renamed.write(temporary.path());
    let checkpoint = Checkpoint::open(temporary.path()).unwrap();
    assert!(checkpoint.text_encoder.weights.files().unwrap().contains(other));
}

#[test]
fn the_published_models_are_planned_in_seconds_without_weights() {
    let temporary = tempfile::tempdir().unwrap();
    if !supports_holes(temporary.path()) {
        return;
    }
    const GB: f64 = (1u64 << 30) as f64;
    let (mut took, profile) = (0.0, CpuDevice::profile_of(2));
    for name in ["2b", "5b"] {
        let dir = temporary.path().join(name);
        Published::read(name).write(&dir);
        let began = Instant::now();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let (job, warnings) = Job::new(&checkpoint, &Request::new("A panda.")).unwrap();
        assert_eq!((job.frames, job.height, job.width, warnings.len()), (49, 480, 720, 0));
        assert_eq!(job.grid.tokens(), 17_550);
        let plan = Plan::new(&checkpoint, &job, &Schedule::in_place(), None, &profile).unwrap();
        let seconds = began.elapsed().as_secs_f64();
        took += seconds;

        let peaks: Vec<u64> = plan.layout.phases.iter().map(|phase| phase.peak_bytes).collect();
        let waste = plan.layout.peak_bytes as f64 / plan.layout.most_live_bytes as f64;
        println!(
            "{name}: text {:.2} GB, denoise {:.2} GB, decode {:.2} GB; {waste:.3} of the live \
             bytes; {} tensors, planned in {seconds:.2} s",
            peaks[0] as f64 / GB,
            peaks[1] as f64 / GB,
            peaks[2] as f64 / GB,
            plan.layout.trace.requests.len(),
        );
        // One half's hidden state, normed rows, queries, keys and values, at least; as much again
        // is plenty. Weights of 16 bits are used where they lie.
        let hidden = 17_776 * checkpoint.transformer.config.inner_dim() as u64 * 4;
        assert!((5 * hidden..10 * hidden).contains(&peaks[1]), "{}", peaks[1] / hidden);
        // Eight frames of the widest layer at full size, at least.
        let frame = 480 * 720 * 256 * 4;
        assert!((8 * frame..32 * frame).contains(&peaks[2]), "{}", peaks[2] / frame);
        assert!(peaks[0] < peaks[1] && (1.0..=1.1).contains(&waste));
        if name == "2b" {
            let job = job.with_tiles(Tiles::both(Tiling::reference(&checkpoint.vae.config)));
            let tiled =
                Plan::new(&checkpoint, &job, &Schedule::in_place(), None, &profile).unwrap();
            let tiles = tiled.layout.phases[2].peak_bytes;
            println!("{name} in tiles: decode {:.2} GB", tiles as f64 / GB);
            assert!(tiles < peaks[2] / 3 && tiled.layout.phases[0].peak_bytes == peaks[0]);
        }
        let flops = [("text", 1e12, 1e13), ("denoise", 1e15, 1e17), ("decode", 1e13, 1e15)];
        for (phase, (name, least, most)) in plan.phases.iter().zip(flops) {
            assert_eq!(phase.name, name);
            assert!((least..most).contains(&phase.flops), "{name}: {:.1e}", phase.flops);
        }
    }
    assert!(took < 5.0, "planning took {took:.1} s");
}

/// The largest job: all the decoder's layers for every chunk of every tile. What planning it
/// takes grows with the tensors and with how many are alive at once, so both are bounded.
#[test]
fn the_longest_and_widest_video_is_planned_in_tiles() {
    let temporary = tempfile::tempdir().unwrap();
    if !supports_holes(temporary.path()) {
        return;
    }
    Published::read("1.5").write(temporary.path());
    let checkpoint = Checkpoint::open(temporary.path()).unwrap();
    let request = Request {
        frames: Some(161),
        height: Some(768),
        width: Some(1360),
        ..Request::new("A panda.")
    };
    let (job, _) = Job::new(&checkpoint, &request).unwrap();
    assert_eq!((job.frames, job.height, job.width), (161, 768, 1360));
    let job = job.with_tiles(Tiles::both(Tiling::reference(&checkpoint.vae.config)));
    let began = Instant::now();
    let plan = Plan::new(&checkpoint, &job, &Schedule::in_place(), None, &CpuDevice::profile_of(2))
        .unwrap();
    let seconds = began.elapsed().as_secs_f64();

    let layout = &plan.layout;
    let (mut alive, mut most_alive) = (0, 0);
    for event in &layout.trace.events {
        match event {
            Event::Birth(_) => alive += 1,
            Event::Death(_) => alive -= 1,
            _ => {}
        }
        most_alive = most_alive.max(alive);
    }
    let tensors = layout.trace.requests.len();
    let waste = layout.peak_bytes as f64 / layout.most_live_bytes as f64;
    println!(
        "1.5, 161 frames of 768 by 1360 in tiles: {:.2} GB, {waste:.3} of the live bytes; \
         {tensors} tensors, at most {most_alive} at once, planned in {seconds:.2} s",
        layout.peak_bytes as f64 / (1u64 << 30) as f64,
    );
    assert!(tensors < 260_000 && most_alive < 200 && waste <= 1.1);
}
