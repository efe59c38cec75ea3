//! The published models at their largest sizes, on a card that computes nothing: every launch is within what
//! all cards allow, and within the memory that was reserved.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use support::{pixels_for, prepare_job};
use vidfit_cuda::{CudaDevice, Driver, Event, Launch, Queue};
use vidfit_engine::checkpoint::{Checkpoint, Component, Variant};
use vidfit_engine::generate::{self, RunOptions};
use vidfit_engine::request::{Job, Request, Start, TilingChoice};
use vidfit_tensor::{DType, Device};

/// Grids of all cards (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const MOST_THREADS: u32 = 1024;
/// Along z alone.
const MOST_THREADS_DEEP: u32 = 64;
const MOST_ARGUMENT_BYTES: usize = 4096;

/// Where the only allocation that there is at a time begins.
const BASE: u64 = 1 << 44;

/// A card that computes nothing.
struct Null {
    architecture: u32,
    reserved: Mutex<u64>,
    launches: Mutex<BTreeMap<&'static str, usize>>,
}

impl Null {
    /// Of the cards of an architecture the least.
    fn most_shared_bytes(&self) -> u32 {
        if self.architecture < 800 { 64 << 10 } else { 99 << 10 }
    }

    fn check(&self, launch: &Launch<'_>) -> Result<(), String> {
        let Launch { kernel, grid, block, shared_bytes, arguments, touched } = *launch;
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
        *self.launches.lock().unwrap().entry(kernel).or_default() += 1;
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
        self.architecture
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

/// Runs the whole pipeline, and returns how often each kernel was launched.
fn launches(
    architecture: u32,
    variant: Variant,
    dtype: DType,
    frames: usize,
) -> BTreeMap<&'static str, usize> {
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
    let (reserved, launches) = Default::default();
    let card = Arc::new(CudaDevice::new(Null { architecture, reserved, launches }).unwrap());
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
    card.driver().launches.lock().unwrap().clone()
}

#[test]
fn the_largest_videos_are_within_the_limits_of_all_cards() {
    let launched = launches(800, Variant::OneFiveI2v, DType::BF16, 161);
    // 85,906 rows: two heads of 48 at a time, two halves of guidance.
    assert_eq!(launched["attention_bf16"], 2 * 24, "{launched:?}");
    for kernel in ["linear_bf16", "attention_bf16_biased", "conv_bf16", "conv_halving_bf16"] {
        assert!(launched.contains_key(kernel), "{kernel}: {launched:?}");
    }
}

#[test]
fn so_they_are_on_the_oldest_cards() {
    let launched = launches(750, Variant::TwoB, DType::F16, 49);
    assert!(launched.contains_key("attention_f16"), "{launched:?}");
    // Tensor cores do not multiply bf16 there.
    let launched = launches(750, Variant::FiveB, DType::BF16, 49);
    assert!(launched.contains_key("attention_exact_64"), "{launched:?}");
    assert!(launched.keys().all(|kernel| !kernel.contains("bf16")), "{launched:?}");
}
