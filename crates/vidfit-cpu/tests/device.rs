//! What the device refuses, so that its safe interface cannot be misused.

mod ops_bed;
use ops_bed::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

/// Calls `op` on an f32 tensor of these lengths and says whether it was refused for an overlap.
fn refused(shape: &[usize], op: impl Fn(&CpuDevice, &Tensor)) -> bool {
    let operand = Operand {
        dtype: DType::F32,
        shape: shape.to_vec(),
        values: vec![1.0; shape.iter().product()],
    };
    let run = || run_on(2, std::slice::from_ref(&operand), |device, t| op(device, &t[0]));
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return false };
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("overlaps"), "{message}");
    true
}

/// The two halves of a tensor.
fn halves(t: &Tensor) -> (Tensor, Tensor) {
    let middle = t.dims()[0] / 2;
    (t.slice(0..middle), t.slice(middle..2 * middle))
}

fn linear<'a>(x: &'a Tensor, weight: &'a Tensor) -> Linear<'a> {
    Linear { x, weight, bias: None, activation: Activation::None }
}

fn attention<'a>(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor) -> Attention<'a> {
    Attention { q, k, v, heads: 1, scale: 1.0, bias: None, first_column: 0 }
}

#[test]
#[should_panic(expected = "overlaps what it is made of")]
fn a_product_must_not_overwrite_its_operand() {
    let square = Operand { dtype: DType::F32, shape: vec![4, 4], values: vec![1.0; 16] };
    run_on(2, &[square.clone(), square], |device, t| {
        device.linear(linear(&t[0], &t[1]), &mut t[0].clone());
    });
}

#[test]
fn operands_must_not_overlap_the_destination() {
    type Op = fn(&CpuDevice, &Tensor);
    let cases: &[(&str, &[usize], Op)] = &[
        ("weight", &[8, 4], |d, t| {
            let (x, weight) = halves(t);
            d.linear(linear(&x, &weight), &mut weight.clone());
        }),
        ("a row of x", &[9, 4], |d, t| {
            d.linear(linear(&t.slice(0..4), &t.slice(5..9)), &mut t.slice(1..5));
        }),
        ("rms_norm", &[4, 4], |d, t| d.rms_norm(t, &t.at(0), 0.0, &mut t.clone())),
        ("patchify", &[1, 4, 2, 2], |d, t| {
            d.patchify(&[t], (1, 2), &mut t.reshape([1, 16]));
        }),
        ("unpatchify", &[1, 4, 2, 2], |d, t| {
            d.unpatchify(&t.reshape([1, 16]), (1, 2), &mut t.clone());
        }),
        ("latent_frame", &[4, 4, 4], |d, t| {
            d.latent_frame(t, (0, 0), 1.0, false, &mut t.clone());
        }),
        ("store_latent", &[4, 4, 4], |d, t| d.store_latent(t, (0, 0), &mut t.clone())),
        ("posterior_sample", &[16], |d, t| {
            let [moments, noise] = [0..8, 8..12].map(|range| t.slice(range));
            let (moments, noise) = (moments.reshape([1, 2, 2, 2]), noise.reshape([1, 1, 2, 2]));
            d.posterior_sample(&moments, &noise, 1.0, &mut t.slice(7..11).reshape([1, 1, 2, 2]));
        }),
        ("mean_of_frames", &[36], |d, t| {
            let frame = t.slice(32..36).reshape([2, 2, 1]);
            d.mean_of_frames(&[&frame], &mut t.slice(20..36).reshape([4, 4, 1]));
        }),
        ("crop", &[4, 4, 4], |d, t| d.crop(t, (0, 0), &mut t.clone())),
        ("blend", &[4, 4, 4], |d, t| d.blend(t, &mut t.clone(), Axis::Vertical, 2)),
        ("upsample", &[36], |d, t| {
            d.upsample(&t.slice(0..4).reshape([2, 2, 1]), &mut t.reshape([6, 6, 1]));
        }),
        ("conv", &[64], |d, t| {
            let op = Conv {
                frames: &[&t.slice(0..9).reshape([3, 3, 1])],
                stride: 1,
                weight: &t.slice(16..25).reshape([9, 1, 1]),
                bias: &t.slice(32..33),
                accumulate: false,
            };
            d.conv(op, &mut [t.slice(24..25).reshape([1, 1, 1])]);
        }),
        ("group_norm_statistics", &[64], |d, t| {
            let frame = t.slice(0..4).reshape([1, 1, 4]);
            let mut both = [4..6, 5..7].map(|range| t.slice(range).reshape([1, 2]));
            let [partials, statistics] = &mut both;
            d.group_norm_statistics(&[&frame], 0.0, partials, statistics);
        }),
        ("group_norm", &[64], |d, t| {
            let op = GroupNorm {
                statistics: &t.slice(40..42).reshape([1, 2]),
                weight: &t.slice(42..43),
                bias: &t.slice(43..44),
                modulation: None,
                silu: false,
            };
            d.group_norm(
                op,
                &t.slice(8..9).reshape([1, 1, 1]),
                &mut t.slice(0..9).reshape([3, 3, 1]),
            );
        }),
        ("keys", &[8, 4], |d, t| {
            let (q, k) = halves(t);
            d.attention(attention(&q, &k, &q), &mut k.clone());
        }),
        ("a part of the queries", &[9, 4], |d, t| {
            let (q, k) = (t.slice(0..4), t.slice(5..9));
            d.attention(attention(&q, &k, &k), &mut t.slice(1..5));
        }),
        ("the queries, as fewer and wider rows", &[32], |d, t| {
            let q = t.slice(0..16).reshape([4, 4]);
            let k = t.slice(16..32).reshape([4, 4]);
            d.attention(attention(&q, &k, &k), &mut t.slice(0..16).reshape([2, 8]));
        }),
        ("queries in a wider destination", &[64], |d, t| {
            let q = t.slice(0..8).reshape([4, 2]);
            let k = t.slice(48..56).reshape([4, 2]);
            let op = Attention { first_column: 2, ..attention(&q, &k, &k) };
            d.attention(op, &mut t.slice(0..16).reshape([4, 4]));
        }),
        ("silu, shifted", &[9], |d, t| d.silu(&t.slice(0..8), &mut t.slice(1..9))),
        ("combine, shifted", &[9], |d, t| {
            d.combine(&[(1.0, &t.slice(0..8))], &mut t.slice(1..9));
        }),
    ];
    for (name, shape, op) in cases {
        assert!(refused(shape, op), "{name}");
    }
}

#[test]
fn what_works_element_by_element_may_be_in_place() {
    assert!(!refused(&[4, 4], |d, t| d.silu(t, &mut t.clone())));
    assert!(!refused(&[4, 4], |d, t| d.combine(&[(1.0, t), (2.0, t)], &mut t.clone())));
    assert!(!refused(&[8, 4], |d, t| {
        let (q, k) = halves(t);
        d.attention(attention(&q, &k, &k), &mut q.clone());
    }));
    assert!(!refused(&[12, 4], |d, t| {
        d.linear(linear(&t.slice(0..4), &t.slice(4..8)), &mut t.slice(8..12));
    }));
}

#[test]
fn the_number_of_threads_is_bounded() {
    for absurd in [CpuDevice::MAX_THREADS + 1, 1 << 31, usize::MAX] {
        let Err(Error::Device { what, .. }) = CpuDevice::new(absurd) else { panic!("{absurd}") };
        assert!(what.contains("threads"), "{what}");
        let most = CpuDevice::profile_of(CpuDevice::MAX_THREADS);
        assert_eq!(CpuDevice::profile_of(absurd), most, "no overflow");
    }
    for threads in [0, 1, 3] {
        let device = CpuDevice::new(threads).unwrap();
        assert_eq!(*device.profile(), CpuDevice::profile_of(threads));
    }
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let device = CpuDevice::new(1).unwrap();
    assert!(matches!(device.reserve(1 << 62), Err(Error::Device { .. })));
}
