//! The published models at their largest sizes, on a card that computes nothing: every launch is within what
//! all cards allow, within the memory that was reserved, and within half a second.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use support::{pixels_for, prepare_job};
use vidfit_cuda::{CudaDevice, Driver, Event, Launch, Queue, Speed, Unit};
use vidfit_engine::catalogue::{self, Gpu};
use vidfit_engine::checkpoint::{Checkpoint, Component, Variant};
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::request::{Job, Request, Start, TilingChoice};
use vidfit_tensor::*;

/// Grids of all cards (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const MOST_THREADS: u32 = 1024;
/// Along z alone.
const MOST_THREADS_DEEP: u32 = 64;
const MOST_ARGUMENT_BYTES: usize = 4096;

/// Where the only allocation that there is at a time begins.
const BASE: u64 = 1 << 44;

/// What a launch may take where the card reaches half of its rates, in seconds: a desktop stands still
/// meanwhile, and Windows ends what takes two.
const LONGEST_LAUNCH: f64 = 0.5;

/// A card of the catalogue that computes nothing.
struct Null {
    gpu: &'static Gpu,
    reserved: Mutex<u64>,
    launches: Mutex<Launches>,
}

/// What was launched.
#[derive(Clone, Debug, Default)]
struct Launches {
    /// How often each kernel was.
    counts: BTreeMap<&'static str, usize>,
    /// Multiply-adds of all.
    work: u64,
    /// What the longest takes at half of the card's rates, in seconds.
    longest: f64,
}

impl Null {
    fn new(gpu: &'static Gpu) -> Null {
        Null { gpu, reserved: Mutex::default(), launches: Mutex::default() }
    }

    /// Of the cards of an architecture the least.
    fn most_shared_bytes(&self) -> u32 {
        if self.architecture() < 800 { 64 << 10 } else { 99 << 10 }
    }

    /// What a launch takes at half of the card's rates, in seconds. What it touches, it reads or writes
    /// once at least; the tensors are counted as a whole, though many launches may have parts of them.
    fn seconds(&self, launch: &Launch<'_>) -> f64 {
        let (multiply_adds, unit) = launch.work;
        let flops = match unit {
            Unit::Tensor => self.gpu.tensor_flops,
            Unit::F32 => self.gpu.f32_flops,
        };
        let bytes: u64 = launch.touched.iter().map(|range| range.end - range.start).sum();
        let arithmetic = 2.0 * multiply_adds as f64 / (flops / 2.0);
        arithmetic.max(bytes as f64 / (self.gpu.memory_bytes_per_second / 2.0))
    }

    fn check(&self, launch: &Launch<'_>) -> Result<(), String> {
        let Launch { kernel, grid, block, shared_bytes, arguments, touched, .. } = *launch;
        for (blocks, most) in grid.into_iter().zip(MOST_BLOCKS) {
            assert!((1..=most).contains(&blocks), "{kernel}: a grid of {grid:?}");
        }
        let threads: u32 = block.iter().product();
        assert!((1..=MOST_THREADS).contains(&threads), "{kernel}: a block of {block:?}");
        assert!(block[2] <= MOST_THREADS_DEEP, "{kernel}: a block of {block:?}");
        assert!(shared_bytes <= self.most_shared_bytes(), "{kernel}: {shared_bytes} shared bytes");
        assert!(arguments.len() <= MOST_ARGUMENT_BYTES, "{kernel}: {} bytes", arguments.len());
        let end = BASE + *self.reserved.lock().unwrap();
        for range in touched {
            assert!(BASE <= range.start && range.end <= end, "{kernel}: {range:x?}");
        }
        let seconds = self.seconds(launch);
        assert!(
            seconds <= LONGEST_LAUNCH,
            "{kernel} takes {seconds:.2} s at half the rate of {}: {grid:?}",
            self.gpu.name
        );
        let mut launches = self.launches.lock().unwrap();
        *launches.counts.entry(kernel).or_default() += 1;
        launches.work += launch.work.0;
        launches.longest = launches.longest.max(seconds);
        Ok(())
    }

    fn inside(&self, address: u64, bytes: u64) -> Result<(), String> {
        let end = BASE + *self.reserved.lock().unwrap();
        assert!(BASE <= address && address + bytes <= end, "{bytes} bytes at {address:x}");
        Ok(())
    }
}

fn pinned(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, 64).unwrap()
}

impl Driver for Null {
    fn name(&self) -> &str {
        "nothing"
    }

    fn architecture(&self) -> u32 {
        if self.gpu.native_bf16 { 800 } else { 750 }
    }

    fn speed(&self) -> Speed {
        let Gpu { model, compute_capability, multiprocessors, clock_hz, .. } = self.gpu;
        Speed::of(&format!("NVIDIA {model}"), *compute_capability, *multiprocessors, *clock_hz)
    }

    fn free_bytes(&self) -> u64 {
        1 << 40
    }

    fn allocate(&self, bytes: u64) -> Result<u64, String> {
        let mut reserved = self.reserved.lock().unwrap();
        assert_eq!(*reserved, 0, "a second reservation");
        *reserved = bytes;
        Ok(BASE)
    }

    fn free(&self, _: u64) {
        *self.reserved.lock().unwrap() = 0;
    }

    fn launch(&self, launch: Launch<'_>) -> Result<(), String> {
        self.check(&launch)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.inside(address, bytes.len() as u64)
    }

    fn fill(&self, address: u64, bytes: u64, _: u8) -> Result<(), String> {
        self.inside(address, bytes)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), String> {
        self.inside(address, bytes.len() as u64)
    }

    fn finish(&self) -> Result<(), String> {
        Ok(())
    }

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>, String> {
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(pinned(bytes)) }).ok_or("no memory".into())
    }

    unsafe fn unpin(&self, first: NonNull<u8>, bytes: usize) {
        // SAFETY: from `pin`, with this layout.
        unsafe { std::alloc::dealloc(first.as_ptr(), pinned(bytes)) }
    }

    unsafe fn begin_write(&self, address: u64, _: NonNull<u8>, bytes: usize) -> Result<(), String> {
        self.inside(address, bytes as u64)
    }

    unsafe fn begin_read(&self, address: u64, _: NonNull<u8>, bytes: usize) -> Result<(), String> {
        self.inside(address, bytes as u64)
    }

    fn record(&self, _: Queue) -> Result<Event, String> {
        Ok(Event(0))
    }

    fn hold_back(&self, _: Queue, _: Event) -> Result<(), String> {
        Ok(())
    }

    fn is_passed(&self, _: Event) -> Result<bool, String> {
        Ok(true)
    }

    fn wait_for(&self, _: Event) -> Result<(), String> {
        Ok(())
    }

    fn forget(&self, _: Event) {}
}

/// A published model of one layer of each kind.
fn shallow(variant: Variant, dtype: DType) -> Checkpoint {
    let mut checkpoint = Checkpoint::published(variant);
    let mut text = checkpoint.text_encoder.config.clone();
    let mut transformer = checkpoint.transformer.config.clone();
    (text.num_layers, transformer.num_layers) = (1, 1);
    let vae = checkpoint.vae.config.clone();
    checkpoint.text_encoder = Arc::new(Component::with_pooled_weights(text, dtype));
    checkpoint.transformer = Arc::new(Component::with_pooled_weights(transformer, dtype));
    checkpoint.vae = Arc::new(Component::with_pooled_weights(vae, dtype));
    checkpoint
}

/// Runs the whole pipeline on a card of the catalogue, and returns what it launched.
fn launches(gpu: &str, variant: Variant, dtype: DType, frames: usize) -> Launches {
    let checkpoint = shallow(variant, dtype);
    let request = Request {
        start: if variant.needs_image() { Start::Image } else { Start::Text },
        frames: Some(frames),
        steps: 1,
        dtype,
        tiling: TilingChoice::Off,
        ..Request::new("A panda")
    };
    let (job, _) = Job::new(&checkpoint, &request).unwrap();
    let card = Arc::new(CudaDevice::new(Null::new(catalogue::find(gpu).unwrap())).unwrap());
    let prepared = prepare_job(&checkpoint, job, &*card);
    let pixels = pixels_for(&prepared.job);
    let options = RunOptions {
        stop: &AtomicBool::new(false),
        listener: Box::new(|_| {}),
        keep_tensors: false,
        capacity_bytes: u64::MAX,
        poison: false,
        pixels: pixels.as_ref(),
        state: None,
        replan: false,
        keep: None,
    };
    let device: Arc<dyn Device> = card.clone();
    let generated = generate::run(&checkpoint, &prepared, &device, options).unwrap();
    assert_eq!(generated.frames.len(), frames);
    let launches = card.driver().launches.lock().unwrap().clone();
    // Nothing that a plan counts was left out of a launch's work.
    let planned: f64 = prepared.plan.phases.iter().map(|phase| phase.flops).sum();
    let launched = 2.0 * launches.work as f64;
    assert!((launched / planned - 1.0).abs() < 1e-12, "{launched} of {planned}");
    println!("{gpu}: {variant}, {dtype}: the longest launch takes {:.3} s", launches.longest);
    launches
}

#[test]
fn the_largest_videos_are_within_the_limits_of_all_cards() {
    let launched = launches("A100 40GB", Variant::OneFiveI2v, DType::BF16, 161).counts;
    for kernel in
        ["linear_bf16", "attention_bf16", "attention_bf16_biased", "conv_bf16", "conv_halving_bf16"]
    {
        assert!(launched.contains_key(kernel), "{kernel}: {launched:?}");
    }
}

/// The slowest with tensor cores for bf16.
#[test]
fn so_they_are_on_the_slowest_card_with_tensor_cores() {
    let bf16 = catalogue::all().iter().filter(|gpu| gpu.native_bf16);
    let slowest = bf16.min_by(|a, b| a.tensor_flops.total_cmp(&b.tensor_flops)).unwrap();
    launches(&slowest.name, Variant::OneFiveI2v, DType::BF16, 161);
}

/// Which is the slowest of all, and has no tensor cores.
#[test]
fn so_they_are_on_the_oldest_cards() {
    let slowest = catalogue::all().iter().min_by(|a, b| a.f32_flops.total_cmp(&b.f32_flops));
    let slowest = &slowest.unwrap().name;
    let launched = launches(slowest, Variant::TwoB, DType::F16, 49).counts;
    assert!(launched.contains_key("attention_f16"), "{launched:?}");
    // Tensor cores do not multiply bf16 there.
    let launched = launches(slowest, Variant::OneFiveI2v, DType::BF16, 161).counts;
    assert!(launched.contains_key("attention_exact_64"), "{launched:?}");
    assert!(launched.keys().all(|kernel| !kernel.contains("bf16")), "{launched:?}");
}

/// The operations that take longest, at the largest sizes of the largest model, on every card by itself.
#[test]
fn no_launch_is_too_long_on_any_card() {
    const ROWS: usize = 85_906;
    let shapes: [&[usize]; 8] = [
        &[ROWS, 3072],
        &[12_288, 3072],
        &[ROWS, 12_288],
        &[770, 1362, 256],
        &[27, 256, 256],
        &[256],
        &[768, 1360, 256],
        &[64, 3072],
    ];
    for gpu in catalogue::all() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let card = CudaDevice::new(Null::new(gpu)).unwrap();
            let alloc = |arena: &Arena| shapes.map(|shape| arena.alloc("t", dtype, shape).unwrap());
            let dry = Arena::record(card.profile().alignment);
            drop(alloc(&dry));
            let layout = solve(&dry.into_trace().unwrap());
            card.reserve(layout.peak_bytes).unwrap();
            let [x, weight, wide, frame, filter, bias, result, factor] =
                alloc(&Arena::replay(layout));
            let linear =
                Linear { x: &x, weight: &weight, bias: None, activation: Activation::GeluTanh };
            card.linear(linear, &mut wide.clone());
            let part = |n: u64| wide.recast(n * x.bytes(), dtype, x.shape());
            let (q, k, v) = (&x, part(0), part(1));
            let scale = 0.125;
            let attention =
                Attention { q, k: &k, v: &v, heads: 48, scale, bias: None, first_column: 0 };
            card.attention(attention, &mut x.clone());
            let frames = [&frame; 6];
            let conv = Conv {
                frames: &frames,
                stride: 1,
                weight: &filter,
                bias: &bias,
                accumulate: false,
            };
            let results: Vec<Tensor> = Vec::from([result]);
            card.conv(Conv { frames: &frames[..3], ..conv }, &mut results.clone());
            let b = wide.slice(0..64).reshape([12_288, 64]);
            let term = LowRank { a: &factor, b: &b, factor: 1.0 };
            card.low_rank_add(&[term; 64], &mut weight.clone());
            card.finish().unwrap();
            let launches = card.driver().launches.lock().unwrap();
            for kind in ["linear", "attention", "conv", "low_rank_add"] {
                let is_kind = |kernel: &&str| kernel.starts_with(kind);
                assert!(launches.counts.keys().any(is_kind), "{kind}: {launches:?}");
            }
        }
    }
}
