//! The simulated clocks of a dry run.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::sync::Arc;
use vidfit_tensor::rates::{Class, CopyCost, Cost, PerType, Work};
use vidfit_tensor::*;

/// Bytes of a block's weights.
const BLOCK_BYTES: u64 = 4 * 1000;

struct Nothing;

impl HostSource for Nothing {
    fn len(&self) -> u64 {
        BLOCK_BYTES
    }

    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), String> {
        Err("a dry run reads nothing".into())
    }
}

/// A device whose operations take `compute` seconds each, and a block's copy `upload` seconds.
fn device(compute: f64, upload: f64) -> DryDevice {
    let rates = Rates {
        elementwise: PerType::all(Cost { seconds_per_call: compute, ..Cost::default() }),
        upload_queue: CopyCost::at(BLOCK_BYTES as f64 / upload, 0.0),
        download_queue: CopyCost::at(BLOCK_BYTES as f64 / upload, 0.0),
        ..Rates::default()
    };
    DryDevice::with_rates(profile(), rates)
}

fn profile() -> Profile {
    Profile { name: "dry".into(), alignment: 64, scratch_bytes: 0, reads_host_memory: false }
}

fn block() -> Tensor {
    Tensor::nowhere(DType::F32, [1000])
}

fn begin_upload(device: &DryDevice, after: &[Fence]) -> Fence {
    device.begin_upload(Arc::new(Nothing), &block(), after)
}

fn compute(device: &DryDevice) {
    device.silu(&block(), &mut block());
}

/// Blocks that stream through a ring of slots, pass after pass: a slot is filled again for the
/// block that comes `slots` blocks later, in the next pass if need be.
struct Ring<'a> {
    device: &'a DryDevice,
    slots: usize,
    blocks: usize,
    uploaded: Vec<Fence>,
}

impl<'a> Ring<'a> {
    fn new(device: &'a DryDevice, slots: usize, blocks: usize) -> Ring<'a> {
        let uploaded = (0..slots).map(|_| begin_upload(device, &[])).collect();
        Ring { device, slots, blocks, uploaded }
    }

    /// One pass; `operations` are those of each block.
    fn pass(&mut self, is_last: bool, operations: impl Fn(usize) -> usize) {
        for index in 0..self.blocks {
            let uploaded = self.uploaded.remove(0);
            self.device.wait(uploaded).unwrap();
            (0..operations(index)).for_each(|_| compute(self.device));
            let freed = [self.device.fence()];
            if !is_last || index + self.slots < self.blocks {
                self.uploaded.push(begin_upload(self.device, &freed));
            }
        }
    }

    /// All passes, each run.
    fn run(mut self, passes: usize, operations: impl Fn(usize) -> usize) -> Tally {
        (0..passes).for_each(|pass| self.pass(pass + 1 == passes, &operations));
        self.device.tally()
    }

    /// All passes, of which the first, the second and the last are run.
    fn run_in_short(mut self, passes: usize, operations: impl Fn(usize) -> usize) -> Tally {
        for (times, is_last) in [(1, false), (passes - 2, false), (1, true)] {
            self.device.begin_repeat(times);
            self.pass(is_last, &operations);
            self.device.end_repeat();
        }
        self.device.tally()
    }
}

fn assert_near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()), "{a} is not {b}");
}

#[test]
fn a_ring_takes_what_the_slower_of_the_two_takes() {
    let (blocks, passes) = (6, 50);
    let all = (blocks * passes) as f64;
    // Seconds of computing and of copying a block, slots, and what comes out.
    let cases = [
        (3.0, 2.0, 2, 2.0 + all * 3.0),
        (3.0, 2.0, 6, 2.0 + all * 3.0),
        (2.0, 3.0, 2, all * 3.0 + 2.0),
        (2.0, 3.0, 4, all * 3.0 + 2.0),
        (2.0, 3.0, 1, all * 5.0),
        (3.0, 2.0, 1, all * 5.0),
    ];
    for (compute, upload, slots, expected) in cases {
        let device = device(compute, upload);
        let tally = Ring::new(&device, slots, blocks).run_in_short(passes, |_| 1);
        assert_near(tally.seconds, expected);
        assert_near(tally.computing_seconds, all * compute);
        assert_near(tally.waiting_seconds, expected - all * compute);
        assert_eq!(tally.uploaded_bytes, all as u64 * BLOCK_BYTES);
        assert_eq!(tally.downloaded_bytes, 0);
    }
}

#[test]
fn a_loop_counts_its_second_pass_for_all_that_follow() {
    let device = device(3.0, 5.0);
    let arena = Arena::record(64);
    let cx = Context::new(&device, &arena, &Unwatched);
    let pass = |_| {
        let mut ring = Ring::new(&device, 2, 4);
        ring.pass(true, |_| 1);
        cx.unit_done()
    };
    cx.repeat::<Error>(10, pass).unwrap();
    let tally = device.tally();
    // A pass begins its copies where the one before it left off: the copies of pass n end at
    // 4 · 5 · n, as those of the next begin before the last block is computed.
    assert_near(tally.seconds, 10.0 * 4.0 * 5.0 + 3.0);
    assert_eq!(tally.uploaded_bytes, 40 * BLOCK_BYTES);
    assert_eq!(tally.units, 10);
}

#[test]
fn loops_in_loops_multiply() {
    let device = device(1.0, 1.0);
    device.begin_repeat(5);
    compute(&device);
    device.begin_repeat(7);
    device.unit_done();
    let fence = begin_upload(&device, &[device.fence()]);
    device.wait(fence).unwrap();
    device.end_repeat();
    device.end_repeat();
    let tally = device.tally();
    assert_eq!((tally.units, tally.uploaded_bytes), (35, 35 * BLOCK_BYTES));
    assert_near(tally.computing_seconds, 5.0);
    assert_near(tally.waiting_seconds, 35.0);
    assert_near(tally.seconds, 40.0);
}

#[test]
fn queues_go_on_beside_each_other() {
    let device = device(1.0, 4.0);
    let buffer = Arena::record(64).host_buffer("away", BLOCK_BYTES).unwrap();
    let up = begin_upload(&device, &[]);
    let down = device.begin_download(&block(), &buffer, &[]);
    compute(&device);
    assert_near(device.tally().seconds, 1.0);
    device.wait(up).unwrap();
    device.wait(down).unwrap();
    assert_near(device.tally().seconds, 4.0);
    device.begin_download(&block(), &buffer, &[]);
    device.finish().unwrap();
    let tally = device.tally();
    assert_near(tally.seconds, 8.0);
    assert_eq!((tally.uploaded_bytes, tally.downloaded_bytes), (BLOCK_BYTES, 2 * BLOCK_BYTES));
}

#[test]
fn a_queue_that_a_loop_leaves_alone_is_not_moved() {
    let device = device(1.0, 4.0);
    let before = begin_upload(&device, &[]);
    device.begin_repeat(100);
    compute(&device);
    device.end_repeat();
    device.wait(before).unwrap();
    assert_near(device.tally().seconds, 100.0);
    // It was free at 4 and so it is still.
    let after = begin_upload(&device, &[]);
    device.wait(after).unwrap();
    assert_near(device.tally().seconds, 100.0);
}

#[test]
fn copies_that_are_done_at_once_take_the_computing_queue() {
    let upload_queue = CopyCost::at(1e3, 0.5);
    let rates = Rates { copies_at_once: true, upload_queue, ..Rates::default() };
    let device = DryDevice::with_rates(profile(), rates);
    let fence = begin_upload(&device, &[]);
    device.wait(fence).unwrap();
    let tally = device.tally();
    assert_near(tally.seconds, 4.5);
    assert_near(tally.computing_seconds, 4.5);
    assert_eq!(tally.uploaded_bytes, BLOCK_BYTES);
}

#[test]
fn host_copies_hold_the_computing_queue() {
    let cost = Cost { seconds_per_call: 1.0, seconds_per_byte: 1e-3, ..Cost::default() };
    let both = PerType::all(cost);
    let rates = Rates { upload: both, download: both, ..Rates::default() };
    let device = DryDevice::with_rates(profile(), rates);
    device.upload(&[], &mut block());
    device.download(&block(), &mut []).unwrap();
    let tally = device.tally();
    assert_near(tally.seconds, 10.0);
    assert_eq!((tally.uploaded_bytes, tally.downloaded_bytes), (4000, 4000));
}

#[test]
fn a_product_costs_its_terms() {
    let cost = Cost {
        seconds_per_call: 1e-3,
        seconds_per_flop: 1e-6,
        seconds_per_weight_byte: 1e-5,
        seconds_per_byte: 1e-4,
        seconds_per_function: 1e-2,
    };
    let x = Tensor::nowhere(DType::F32, [3, 8]);
    let weight = Tensor::nowhere(DType::F16, [5, 8]);
    let seconds = |activation, hides_traffic| {
        let mut linear = PerType::default();
        *linear.of_mut(DType::F16) = cost;
        let rates = Rates { linear, hides_traffic, ..Rates::default() };
        let device = DryDevice::with_rates(profile(), rates);
        let mut dst = Tensor::nowhere(DType::F32, [3, 5]);
        device.linear(Linear { x: &x, weight: &weight, bias: None, activation }, &mut dst);
        device.tally().seconds
    };
    let (flops, weights, bytes) = (240.0 * 1e-6, 80.0 * 1e-5, (96.0 + 60.0) * 1e-4);
    assert_near(seconds(Activation::None, false), 1e-3 + flops + weights + bytes);
    assert_near(seconds(Activation::Silu, false), 1e-3 + flops + 0.15 + weights + bytes);
    assert_near(seconds(Activation::None, true), 1e-3 + weights + bytes);
    assert_near(seconds(Activation::Silu, true), 1e-3 + flops + 0.15);
}

#[test]
fn the_encoder_s_operations_are_counted() {
    let device = DryDevice::new(profile());
    let tensor = |shape: &[usize]| Tensor::nowhere(DType::BF16, shape);
    let ((), operations) = device.operations_of(|| {
        let (frame, padded) = (tensor(&[4, 6, 8]), tensor(&[6, 8, 8]));
        device.mean_of_frames(&[&frame, &frame], &mut padded.clone());
        let (frames, weight, bias) = (&[&padded], &tensor(&[9, 8, 16]), &tensor(&[16]));
        let conv = Conv { frames, stride: 2, weight, bias, accumulate: false };
        device.conv(conv, &mut [tensor(&[2, 3, 16])]);
        device.store_latent(&tensor(&[2, 3, 16]), (0, 0), &mut tensor(&[16, 20, 30]));
        let (moments, noise) = (tensor(&[2, 8, 3, 5]), tensor(&[2, 4, 3, 5]));
        device.posterior_sample(&moments, &noise, 0.7, &mut noise.clone());
    });
    let expected = [
        // Two frames in, a padded one out.
        (Class::Elementwise, Work { bytes: 2 * (2 * 192 + 384), ..Work::default() }),
        (
            Class::Convolution,
            // What the filter skips is not computed.
            Work {
                flops: 2.0 * 72.0 * 96.0,
                weight_bytes: 2 * 9 * 8 * 16,
                bytes: 2 * (384 + 96),
                functions: 0,
            },
        ),
        // Of the latent frame only the rectangle is touched.
        (Class::Elementwise, Work { bytes: 2 * 2 * 96, ..Work::default() }),
        (
            Class::Elementwise,
            Work { bytes: 2 * (240 + 120 + 120), functions: 120, ..Work::default() },
        ),
    ];
    let counted: Vec<_> = operations.iter().map(|found| (found.class, found.work)).collect();
    assert_eq!(counted, expected);
}

#[test]
fn a_million_operations_add_up() {
    let device = device(1e-6, 1e-6);
    let (x, mut dst) = (block(), block());
    for _ in 0..500_000 {
        device.silu(&x, &mut dst);
        device.fence();
    }
    assert_near(device.tally().seconds, 0.5);
}

proptest! {
    /// Passes that are all alike are counted to the second.
    #[test]
    fn a_loop_in_short_is_the_loop(
        compute in 0.1..4.0f64,
        upload in 0.1..4.0f64,
        blocks in 1usize..9,
        slots in 1usize..9,
        passes in 3usize..12,
    ) {
        let slots = slots.min(blocks);
        let whole = device(compute, upload);
        let whole = Ring::new(&whole, slots, blocks).run(passes, |_| 1);
        let short = device(compute, upload);
        let short = Ring::new(&short, slots, blocks).run_in_short(passes, |_| 1);
        assert_near(short.seconds, whole.seconds);
        assert_near(short.computing_seconds, whole.computing_seconds);
        prop_assert_eq!(short.uploaded_bytes, whole.uploaded_bytes);
    }

    /// Where blocks differ, a ring may need more than one pass to find its pace.
    #[test]
    fn uneven_blocks_are_counted_nearly(
        compute in 0.1..2.0f64,
        upload in 0.1..4.0f64,
        operations in prop::collection::vec(1usize..5, 2..9),
        slots in 1usize..9,
        passes in 3usize..30,
    ) {
        let (blocks, slots) = (operations.len(), slots.min(operations.len()));
        let whole = device(compute, upload);
        let whole = Ring::new(&whole, slots, blocks).run(passes, |index| operations[index]);
        let short = device(compute, upload);
        let short = Ring::new(&short, slots, blocks).run_in_short(passes, |index| operations[index]);
        prop_assert_eq!(short.uploaded_bytes, whole.uploaded_bytes);
        prop_assert!((short.seconds / whole.seconds - 1.0).abs() < 0.02, "{short:?} {whole:?}");
    }
}
