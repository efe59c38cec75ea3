//! LoRAs: as the reference, the same bits wherever weights are, as planned, and refused where they
//! do not fit.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::card::{
    Bits, Extra, assert_as_planned, assert_copied_as_planned, card, config, run, target,
    with_schedule,
};
use support::{distance, fixtures, job, kept, largest_difference, tensor};
use vidfit_cpu::{CpuDevice, Direction, Faults, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::checkpoint::{Checkpoint, Variant};
use vidfit_engine::generate;
use vidfit_engine::lora::LoraChoice;
use vidfit_engine::placement::{Part, Streaming};
use vidfit_engine::planner::{Ask, Offload, SavedPlan, Target};
use vidfit_engine::request::{Job, Request, TilingChoice};
use vidfit_engine::safetensors::{SafetensorsFile, StoredDtype, write_safetensors};
use vidfit_engine::schedule::Schedule;
use vidfit_engine::state::RunState;
use vidfit_tensor::{DType, Device};

/// As for whole pipelines.
const TENSOR_TOLERANCE: f64 = 1e-4;
const FRAME_TOLERANCE: f32 = 2e-3;

#[derive(Clone, Deserialize)]
struct LoraCase {
    checkpoint: String,
    prompt: String,
    num_frames: usize,
    height: usize,
    width: usize,
    steps: usize,
    seed: u64,
    loras: Vec<Used>,
}

#[derive(Clone, Deserialize)]
struct Used {
    file: String,
    scale: f64,
}

fn folder() -> PathBuf {
    fixtures().join("loras")
}

fn case(name: &str) -> LoraCase {
    let text = std::fs::read_to_string(folder().join("index.json")).unwrap();
    let cases: BTreeMap<String, LoraCase> = serde_json::from_str(&text).unwrap();
    cases[name].clone()
}

fn choice(path: PathBuf, scale: f64) -> LoraChoice {
    LoraChoice { path, scale, is_lenient: false }
}

impl LoraCase {
    fn open(&self) -> Checkpoint {
        Checkpoint::open(&fixtures().join("checkpoints").join(&self.checkpoint)).unwrap()
    }

    fn request(&self, dtype: DType) -> Request {
        let used = self.loras.iter();
        Request {
            frames: Some(self.num_frames),
            height: Some(self.height),
            width: Some(self.width),
            steps: self.steps,
            seed: self.seed,
            dtype,
            tiling: TilingChoice::Off,
            loras: used.map(|used| choice(folder().join(&used.file), used.scale)).collect(),
            ..Request::new(self.prompt.clone())
        }
    }

    /// With other LoRAs.
    fn with(&self, loras: &[(&Path, f64)], dtype: DType) -> Request {
        let loras = loras.iter().map(|&(path, scale)| choice(path.to_owned(), scale)).collect();
        Request { loras, ..self.request(dtype) }
    }
}

/// What the reference makes of a case.
fn expected(name: &str) -> SafetensorsFile {
    SafetensorsFile::open(folder().join(format!("case-{name}.safetensors"))).unwrap()
}

/// How far the CPU's latents of a request are from the reference's of a case.
fn latents_miss(checkpoint: &Checkpoint, request: &Request, name: &str) -> f64 {
    let (_, generated) = support::run(checkpoint, request, 2);
    distance(&kept(&generated).latents, &tensor(&expected(name), "latents").1)
}

#[test]
fn every_format_equals_the_reference() {
    for name in ["peft", "plain", "two", "sat"] {
        let case = case(name);
        let miss = latents_miss(&case.open(), &case.request(DType::F32), name);
        println!("{name}: latents {miss:.1e}");
        assert!(miss <= TENSOR_TOLERANCE, "{name}: {miss:.2e}");
    }
    let two = case("two");
    let (_, generated) = support::run(&two.open(), &two.request(DType::F32), 2);
    let frames = tensor(&expected("two"), "frames").1;
    assert!(largest_difference(&kept(&generated).frames, &frames) <= FRAME_TOLERANCE);
    // The same factors under other names. SAT's own say that their alpha is 1.
    for (name, file, scale) in
        [("peft", "5b-kohya.safetensors", 0.75), ("sat", "2b-sat-raw.safetensors", 1.0)]
    {
        let case = case(name);
        let request = case.with(&[(&folder().join(file), scale)], DType::F32);
        let miss = latents_miss(&case.open(), &request, name);
        println!("{file}: latents {miss:.1e}");
        assert!(miss <= TENSOR_TOLERANCE, "{file}: {miss:.2e}");
    }
}

/// A file's tensors, widened, to be written otherwise.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn tensors_of(file: &str) -> Tensors {
    let file = SafetensorsFile::open(folder().join(file)).unwrap();
    let names: Vec<String> = file.tensors().map(|info| info.name.clone()).collect();
    let of = |name: String| {
        let (shape, values) = tensor(&file, &name);
        (name, shape, values)
    };
    names.into_iter().map(of).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let all: Vec<_> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (&**name, StoredDtype::F32, &shape[..], &bytes[..]))
        .collect();
    write_safetensors(path, &all).unwrap();
}

/// Exchanges two parts of every name.
fn swap(tensors: &mut Tensors, one: &str, other: &str) {
    for (name, _, _) in tensors {
        *name =
            if name.contains(one) { name.replace(one, other) } else { name.replace(other, one) };
    }
}

#[test]
fn mistakes_show() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("wrong.safetensors");
    let case = case("sat");
    let checkpoint = case.open();
    let scale = case.loras[0].scale;
    let mistake = |what: &str, scale: f64, tensors: &Tensors| {
        write(&path, tensors);
        let request = case.with(&[(&path, scale)], DType::F32);
        let times = latents_miss(&checkpoint, &request, "sat") / TENSOR_TOLERANCE;
        println!("{what:30} {times:6.0}×");
        times
    };
    let right = tensors_of("2b-sat.safetensors");
    assert!(mistake("none", scale, &right) <= 1.0);
    let mut wrong = Vec::new();
    wrong.push(mistake("alpha over rank left out", 1.0, &right));
    wrong.push(mistake("a scale that is a little off", scale * 1.1, &right));
    let mut swapped = right.clone();
    swap(&mut swapped, "to_q", "to_k");
    wrong.push(mistake("queries for keys", scale, &swapped));
    let mut swapped = right.clone();
    swap(&mut swapped, "blocks.0", "blocks.1");
    wrong.push(mistake("one block for another", scale, &swapped));
    // (B·A)ᵀ = Aᵀ·Bᵀ.
    let mut transposed = right.clone();
    swap(&mut transposed, "lora_A", "lora_B");
    for (_, shape, values) in &mut transposed {
        let [rows, columns] = **shape else { panic!("{shape:?}") };
        *values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
        shape.reverse();
    }
    wrong.push(mistake("the product transposed", scale, &transposed));
    let mut partial = right.clone();
    partial.retain(|(name, _, _)| !name.contains("to_out.0"));
    wrong.push(mistake("a layer left out", scale, &partial));
    assert!(wrong.iter().all(|&times| times >= 10.0), "{wrong:?}");
}

/// Ways to place the transformer's weights: all resident, none through 1, 2 or 3 slots, and half.
fn schedules(checkpoint: &Checkpoint) -> Vec<(&'static str, Schedule)> {
    let of = |denoise: Streaming, slots: usize| Schedule {
        conditioning: Streaming { resident_bytes: 0, slots, keeps_converted: false },
        denoise,
        ..Schedule::resident()
    };
    let half = checkpoint.transformer.weights.all_bytes() / 3;
    let kept = |slots| Streaming { keeps_converted: true, ..Streaming::through(slots) };
    vec![
        ("resident", of(Streaming::RESIDENT, 2)),
        ("one slot", of(Streaming::through(1), 1)),
        ("two slots", of(kept(2), 2)),
        ("three slots", of(Streaming::through(3), 3)),
        ("half", of(Streaming { resident_bytes: half, ..Streaming::through(2) }, 2)),
    ]
}

#[test]
fn neither_placement_nor_threads_change_a_bit() {
    for name in ["two", "sat"] {
        let case = case(name);
        let checkpoint = case.open();
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let job = job(&checkpoint, &case.request(dtype));
            let expected = Bits::on_cpu(&checkpoint, &job);
            let without = case.with(&[], dtype);
            let bare = Bits::on_cpu(&checkpoint, &support::job(&checkpoint, &without));
            assert!(expected != bare, "{name} {dtype}: it changes nothing");
            for threads in [1, 3] {
                let (plan, generated) = support::run(&checkpoint, &case.request(dtype), threads);
                assert_eq!(generated.measured.peak_bytes, plan.layout.peak_bytes, "{name}");
                Bits::of(&generated).assert_same(&expected, name);
            }
            for (index, (what, schedule)) in schedules(&checkpoint).into_iter().enumerate() {
                let threads = 1 + index % 3;
                let what = format!("{name} {dtype}, {what}, {threads} threads");
                let prepared = with_schedule(&checkpoint, &job, schedule, threads);
                let card = card(prepared.plan.device_bytes(), threads, index as u64);
                let generated = run(&checkpoint, &prepared, &card, Extra::default());
                let generated = generated
                    .unwrap_or_else(|error| panic!("{what}: {error}; {:?}", card.violations()));
                assert_as_planned(&what, &prepared.plan, &generated, &card);
                assert_copied_as_planned(&what, &prepared.plan, &generated, &card);
                Bits::of(&generated).assert_same(&expected, &what);
            }
        }
    }
}

#[test]
fn every_strategy_of_the_planner_gives_the_same_bits() {
    let case = case("two");
    let checkpoint = case.open();
    let request = case.request(DType::BF16);
    let expected = Bits::on_cpu(&checkpoint, &job(&checkpoint, &request));
    let target = target(1 << 40, 2);
    for offload in [Offload::None, Offload::Model, Offload::Sequential, Offload::Percent(40)] {
        let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
        let prepared = generate::prepare_for(&ask).unwrap();
        let card = card(prepared.plan.device_bytes(), 2, 5);
        let generated = run(&checkpoint, &prepared, &card, Extra::default()).unwrap();
        let name = offload.to_string();
        assert_as_planned(&name, &prepared.plan, &generated, &card);
        Bits::of(&generated).assert_same(&expected, &name);
    }
}

#[test]
fn a_scale_of_nothing_is_no_lora() {
    let case = case("two");
    let checkpoint = case.open();
    for dtype in [DType::F32, DType::BF16] {
        let nothing: Vec<PathBuf> =
            case.loras.iter().map(|used| folder().join(&used.file)).collect();
        let nothing = [(&*nothing[0], 0.0), (&*nothing[1], 0.0)];
        let (plan, with) = support::run(&checkpoint, &case.with(&nothing, dtype), 2);
        let (bare_plan, without) = support::run(&checkpoint, &case.with(&[], dtype), 2);
        assert_eq!(plan, bare_plan);
        Bits::of(&with).assert_same(&Bits::of(&without), "scale 0");
    }
}

/// A copy that fails is made again, and brings the weight as it is stored: nothing is added twice.
#[test]
fn copies_that_fail_add_nothing_twice() {
    let case = case("two");
    let checkpoint = case.open();
    let job = job(&checkpoint, &case.request(DType::BF16));
    let expected = Bits::on_cpu(&checkpoint, &job);
    for (what, schedule) in schedules(&checkpoint) {
        let prepared = with_schedule(&checkpoint, &job, schedule, 1);
        for every in [2, 3] {
            let mut config = config(prepared.plan.device_bytes(), 1, every);
            // Never the one that is made in its place.
            config.faults = Faults::Chosen(Arc::new(move |direction, number| {
                direction == Direction::Upload && number % every == 0
            }));
            let card = Arc::new(SimDevice::new(config).unwrap());
            let generated = run(&checkpoint, &prepared, &card, Extra::default());
            let generated = generated.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(card.violations(), [""; 0], "{what}");
            assert!(card.uploaded_bytes() > prepared.plan.phases[1].uploaded_bytes, "{what}");
            Bits::of(&generated).assert_same(&expected, what);
        }
    }
}

/// The least of a plan grows by what a slot holds more, that of resident weights by all factors.
#[test]
fn factors_are_planned_with_the_weights_that_they_change() {
    let case = case("peft");
    let checkpoint = case.open();
    let with = job(&checkpoint, &case.request(DType::BF16));
    let without = job(&checkpoint, &case.with(&[], DType::BF16));
    // Ranks 2, 3, 2, 2 of two blocks, 128 wide, in f32.
    let (block, blocks) = (2 * 128 * (2 + 3 + 2 + 2) * 4, 2);
    let schedules = schedules(&checkpoint);
    let bytes = |job: &Job, schedule| {
        let plan = with_schedule(&checkpoint, job, schedule, 1).plan;
        (plan.phases.iter().map(|phase| phase.uploaded_bytes).sum::<u64>(), plan)
    };
    let (uploaded, plan) = bytes(&with, schedules[0].1);
    let (bare_uploaded, bare_plan) = bytes(&without, schedules[0].1);
    assert_eq!(uploaded - bare_uploaded, block * blocks);
    let product = |rank: f64| 2.0 * 128.0 * 128.0 * rank;
    let flops: f64 = [2.0, 3.0, 2.0, 2.0].into_iter().map(product).sum();
    let more = plan.phases[1].flops - bare_plan.phases[1].flops;
    assert_eq!(more, flops * blocks as f64);
    let (uploaded, plan) = bytes(&with, schedules[3].1);
    let (bare_uploaded, bare_plan) = bytes(&without, schedules[3].1);
    assert_eq!(uploaded - bare_uploaded, block * blocks * case.steps as u64);
    let more = plan.phases[1].flops - bare_plan.phases[1].flops;
    assert_eq!(more, flops * (blocks * case.steps as u64) as f64);
}

fn refusal(result: Result<impl Sized, EngineError>) -> String {
    match result {
        Err(EngineError::Request(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[test]
fn states_and_saved_plans_of_other_loras_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("style.safetensors");
    let case = case("sat");
    let checkpoint = case.open();
    let mut tensors = tensors_of("2b-sat.safetensors");
    write(&path, &tensors);
    let request = case.with(&[(&path, 0.5)], DType::F32);
    let one = job(&checkpoint, &request);
    let device = SimDevice::new(config(1 << 30, 1, 0)).unwrap();
    let of_device = Target::of_device(&device, 1 << 30);
    let target = target(1 << 30, 1);
    let ask =
        Ask { checkpoint: &checkpoint, request: &request, offload: Offload::Auto, target: &target };
    let planned = ask.plan().unwrap().unwrap();
    let saved = SavedPlan::of(&checkpoint, "2b", &request, &planned);
    let file = temporary.path().join("plan.json");
    saved.save(&file).unwrap();
    let saved = SavedPlan::load(&file).unwrap();
    assert_eq!(saved.run.request.loras, request.loras);
    saved.prepare(&checkpoint, &of_device).unwrap();

    let key = RunState::key(&one);
    let others = [
        case.with(&[], DType::F32),
        case.with(&[(&path, 0.25)], DType::F32),
        case.with(&[(&folder().join("2b-sat.safetensors"), 0.5)], DType::F32),
        case.with(&[(&path, 0.5), (&path, 0.5)], DType::F32),
    ];
    for other in others {
        assert_ne!(RunState::key(&job(&checkpoint, &other)), key);
    }
    assert_eq!(RunState::key(&job(&checkpoint, &request)), key);
    // Another file in the same place, of the same length.
    tensors[0].2[0] += 1.0;
    std::thread::sleep(std::time::Duration::from_millis(20));
    write(&path, &tensors);
    assert_ne!(RunState::key(&job(&checkpoint, &request)), key);
    let why = refusal(saved.prepare(&checkpoint, &of_device));
    assert!(why.contains("other LoRAs"), "{why}");
}

/// What is wrong with a file is said with the file's name, before anything is reserved.
#[test]
fn each_file_that_cannot_be_used_has_an_error_of_its_own() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("style.safetensors");
    let case = case("sat");
    let checkpoint = case.open();
    let refused = |scale: f64| {
        let why = refusal(Job::new(&checkpoint, &case.with(&[(&path, scale)], DType::F32)));
        assert!(why.contains("style.safetensors"), "{why}");
        why
    };
    let says = |why: String, words: &str| assert!(why.contains(words), "no {words:?} in {why}");

    says(refused(1.0), "cannot open");
    std::fs::write(&path, "no safetensors").unwrap();
    says(refused(1.0), "not a valid safetensors file");
    let right = tensors_of("2b-sat.safetensors");
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = right.clone();
        change(&mut tensors);
        write(&path, &tensors);
        refused(0.5)
    };
    says(with(&|tensors| tensors.clear()), "holds no LoRA");
    says(with(&|tensors| _ = tensors.pop()), "is missing");
    says(with(&|tensors| tensors[0].0 = "unet.lora_A.weight".into()), "is missing");
    says(
        with(&|tensors| tensors.push(("unet.x".into(), vec![1], vec![0.0]))),
        "no place for: unet.x",
    );
    write(&path, &right);
    for scale in [f64::NAN, f64::INFINITY, 1e9] {
        says(refused(scale), "makes no sense");
    }
    // One of the model that the checkpoint is like, and one of another width.
    let other = Checkpoint::published(Variant::FiveB);
    let request =
        Request { loras: case.with(&[(&path, 1.0)], DType::F32).loras, ..Request::new("") };
    says(refusal(Job::new(&other, &request)), "for a model of width 128; this one has 3072");

    let whole = write_as(&path, StoredDtype::I8);
    assert!(whole);
    says(refused(1.0), "has the type I8");

    // Values are looked at before a run, not for a plan.
    for value in [f32::NAN, f32::INFINITY] {
        let mut tensors = right.clone();
        *tensors[1].2.last_mut().unwrap() = value;
        write(&path, &tensors);
        let request = case.with(&[(&path, 0.5)], DType::F32);
        let device: Arc<dyn Device> = Arc::new(CpuDevice::new(1).unwrap());
        let prepared = generate::prepare(&checkpoint, &request, &*device, u64::MAX).unwrap();
        let why = refusal(prepared.job.check_runnable(&checkpoint));
        says(why.clone(), "no finite numbers");
        says(why, &tensors[1].0);
    }
}

/// Writes a LoRA of one layer with elements of a byte.
fn write_as(path: &Path, dtype: StoredDtype) -> bool {
    let names = ["A", "B"]
        .map(|factor| format!("transformer.transformer_blocks.0.attn1.to_q.lora_{factor}.weight"));
    let bytes = [0; 256];
    let tensors =
        [(&*names[0], dtype, &[2, 128][..], &bytes[..]), (&*names[1], dtype, &[128, 2], &bytes)];
    write_safetensors(path, &tensors).is_ok()
}

#[test]
fn what_is_not_known_is_left_out_where_that_is_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    // A folder with the file that diffusers saves.
    let path = temporary.path().join("pytorch_lora_weights.safetensors");
    let case = case("sat");
    let mut tensors = tensors_of("2b-sat.safetensors");
    tensors.push(("transformer.other.lora_A.weight".into(), vec![1, 1], vec![0.0]));
    write(&path, &tensors);
    let mut request = case.with(&[(temporary.path(), 0.5)], DType::F32);
    request.loras[0].is_lenient = true;
    let checkpoint = case.open();
    let (_, warnings) = Job::new(&checkpoint, &request).unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("transformer.other")), "{warnings:?}");
    let miss = latents_miss(&checkpoint, &request, "sat");
    assert!(miss <= TENSOR_TOLERANCE, "{miss:.2e}");
}

/// Weights that stay on the device between jobs stay as they are stored: a job with a LoRA brings
/// its own, and neither it nor the plain jobs around it notice.
#[test]
fn warm_weights_know_no_loras() {
    let case = case("two");
    let checkpoint = Arc::new(case.open());
    let mut bed = support::warm::Bed::new(support::warm::LARGE, support::warm::keeps(1));
    let pipeline = bed.adopt(&checkpoint);
    let (with, without) = (case.request(DType::BF16), case.with(&[], DType::BF16));
    for request in [&without, &with, &without, &with] {
        let (planned, ran) = bed.run(&pipeline, request);
        let has_transformer = support::warm::parts(&planned).contains(&Part::Transformer);
        assert_eq!(has_transformer, request.loras.is_empty());
        let bits = Bits::on_cpu(&checkpoint, &job(&checkpoint, request));
        Bits::of(&ran.generated).assert_same(&bits, "with warm weights");
    }
}
