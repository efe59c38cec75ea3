//! Each operation of the simulated card computes what the CPU device computes, and the checker
//! knows all that it reads and writes.

mod sim_bed;
use sim_bed::*;
use std::cell::RefCell;
use std::sync::Arc;
use vidfit_cpu::{CpuDevice, SimConfig};
use vidfit_tensor::*;

type Op = fn(&dyn Device, &[Tensor]);

/// An operation: the shapes of its operands, and which of them it reads and writes.
struct Case {
    name: &'static str,
    shapes: &'static [&'static [usize]],
    reads: &'static [usize],
    writes: &'static [usize],
    op: Op,
}

const CASES: &[Case] = &[
    case("cast", &[&[70], &[70]], &[0], &[1], |d, t| d.cast(&t[0], &mut t[1].clone())),
    case("add", &[&[70], &[70]], &[0, 1], &[1], |d, t| d.add(&t[0], &mut t[1].clone())),
    case("combine", &[&[70], &[70], &[70]], &[0, 1], &[2], |d, t| {
        d.combine(&[(0.5, &t[0]), (-2.0, &t[1])], &mut t[2].clone());
    }),
    case("guide", &[&[70], &[70], &[70]], &[0, 1], &[2], |d, t| {
        d.guide(&t[0], &t[1], 6.0, &mut t[2].clone());
    }),
    case("silu", &[&[70], &[70]], &[0], &[1], |d, t| d.silu(&t[0], &mut t[1].clone())),
    case("linear", &[&[5, 8], &[6, 8], &[6], &[5, 6]], &[0, 1, 2], &[3], |d, t| {
        let (bias, activation) = (Some(&t[2]), Activation::GeluTanh);
        d.linear(Linear { x: &t[0], weight: &t[1], bias, activation }, &mut t[3].clone());
    }),
    case("rms_norm", &[&[3, 64], &[64], &[3, 64]], &[0, 1], &[2], |d, t| {
        d.rms_norm(&t[0], &t[1], 1e-6, &mut t[2].clone());
    }),
    case("gelu_gate", &[&[70], &[70]], &[0, 1], &[1], |d, t| {
        d.gelu_gate(&t[0], &mut t[1].clone());
    }),
    case(
        "layer_norm",
        &[&[3, 64], &[64], &[64], &[64], &[64], &[3, 64]],
        &[0, 1, 2, 3, 4],
        &[5],
        |d, t| {
            let modulation = Some((&t[3], &t[4]));
            let op = LayerNorm { x: &t[0], weight: &t[1], bias: &t[2], eps: 1e-5, modulation };
            d.layer_norm(op, &mut t[5].clone());
        },
    ),
    case("qk_norm", &[&[8], &[8], &[4, 4], &[4, 4], &[5, 16]], &[0, 1, 2, 3, 4], &[4], |d, t| {
        let rope = Some(Rope { cos: &t[2], sin: &t[3], first_row: 1 });
        let op = QkNorm { weight: &t[0], bias: &t[1], eps: 1e-5, rope };
        d.qk_norm(op, &mut t[4].clone());
    }),
    case(
        "attention",
        &[&[5, 16], &[5, 16], &[5, 16], &[2, 9], &[5, 20]],
        &[0, 1, 2, 3],
        &[4],
        |d, t| {
            let (q, k, v, bias) = (&t[0], &t[1], &t[2], Some(&t[3]));
            let op = Attention { q, k, v, heads: 2, scale: 0.4, bias, first_column: 3 };
            d.attention(op, &mut t[4].clone());
        },
    ),
    case("low_rank_add", &[&[2, 8], &[5, 2], &[5, 8]], &[0, 1, 2], &[2], |d, t| {
        d.low_rank_add(&[LowRank { a: &t[0], b: &t[1], factor: 0.5 }], &mut t[2].clone());
    }),
    case("gated_residual", &[&[3, 64], &[64], &[3, 64]], &[0, 1, 2], &[2], |d, t| {
        d.gated_residual(&t[0], &t[1], &mut t[2].clone());
    }),
    case("patchify", &[&[2, 3, 4, 4], &[2, 1, 4, 4], &[8, 16]], &[0, 1], &[2], |d, t| {
        d.patchify(&[&t[0], &t[1]], (1, 2), &mut t[2].clone());
    }),
    case("unpatchify", &[&[8, 12], &[2, 3, 4, 4]], &[0], &[1], |d, t| {
        d.unpatchify(&t[0], (1, 2), &mut t[1].clone());
    }),
    case("latent_frame", &[&[4, 6, 6], &[5, 5, 4]], &[0], &[1], |d, t| {
        d.latent_frame(&t[0], (1, 2), 0.7, true, &mut t[1].clone());
    }),
    case("store_latent", &[&[2, 3, 4], &[4, 2, 3]], &[0], &[1], |d, t| {
        d.store_latent(&t[0], (0, 0), &mut t[1].clone());
    }),
    case(
        "posterior_sample",
        &[&[2, 6, 2, 3], &[2, 3, 2, 3], &[2, 3, 2, 3]],
        &[0, 1],
        &[2],
        |d, t| d.posterior_sample(&t[0], &t[1], 0.7, &mut t[2].clone()),
    ),
    case("conv", &[&[4, 5, 3], &[9, 3, 2], &[2], &[2, 3, 2]], &[0, 1, 2], &[3], |d, t| {
        let (frames, weight, bias) = (&[&t[0]], &t[1], &t[2]);
        d.conv(Conv { frames, stride: 1, weight, bias, accumulate: false }, &mut [t[3].clone()]);
    }),
    case("conv", &[&[6, 8, 3], &[9, 3, 2], &[2], &[2, 3, 2]], &[0, 1, 2], &[3], |d, t| {
        let (frames, weight, bias) = (&[&t[0]], &t[1], &t[2]);
        d.conv(Conv { frames, stride: 2, weight, bias, accumulate: false }, &mut [t[3].clone()]);
    }),
    case(
        "conv",
        &[&[4, 5, 3], &[4, 5, 3], &[4, 5, 3], &[27, 3, 2], &[2], &[2, 3, 2]],
        &[0, 1, 2, 3, 4, 5],
        &[5],
        |d, t| {
            let frames = &[&t[0], &t[1], &t[2]];
            let (weight, bias) = (&t[3], &t[4]);
            d.conv(Conv { frames, stride: 1, weight, bias, accumulate: true }, &mut [t[5].clone()]);
        },
    ),
    case(
        "group_norm_statistics",
        &[&[3, 4, 8], &[3, 4, 8], &[2, 3, 4], &[2, 2]],
        &[0, 1],
        &[2, 3],
        |d, t| {
            let (partials, statistics) = (&mut t[2].clone(), &mut t[3].clone());
            d.group_norm_statistics(&[&t[0], &t[1]], 1e-6, partials, statistics);
        },
    ),
    case(
        "group_norm",
        &[&[2, 2], &[8], &[8], &[2, 2, 8], &[2, 2, 8], &[4, 4, 8], &[6, 6, 8]],
        &[0, 1, 2, 3, 4, 5],
        &[6],
        |d, t| {
            let (statistics, weight, bias) = (&t[0], &t[1], &t[2]);
            let modulation = Some((&t[3], &t[4]));
            let op = GroupNorm { statistics, weight, bias, modulation, silu: true };
            d.group_norm(op, &t[5], &mut t[6].clone());
        },
    ),
    case("upsample", &[&[2, 3, 4], &[6, 8, 4]], &[0], &[1], |d, t| {
        d.upsample(&t[0], &mut t[1].clone());
    }),
    case("mean_of_frames", &[&[2, 3, 4], &[2, 3, 4], &[4, 5, 4]], &[0, 1], &[2], |d, t| {
        d.mean_of_frames(&[&t[0], &t[1]], &mut t[2].clone());
    }),
    case("crop", &[&[5, 6, 3], &[2, 3, 3]], &[0], &[1], |d, t| {
        d.crop(&t[0], (1, 2), &mut t[1].clone());
    }),
    case("blend", &[&[4, 5, 3], &[4, 5, 3]], &[0, 1], &[1], |d, t| {
        d.blend(&t[0], &mut t[1].clone(), Axis::Vertical, 2);
    }),
    case("to_unit_range", &[&[4, 5, 3], &[4, 5, 3]], &[0], &[1], |d, t| {
        d.to_unit_range(&t[0], &mut t[1].clone());
    }),
    case("upload by hand", &[&[4]], &[], &[0], |d, t| d.upload(&values(9, 4), &mut t[0].clone())),
    case("download by hand", &[&[4]], &[0], &[], |d, t| {
        // What it has to say is said by `finish` as well.
        let _ = d.download(&t[0], &mut [0.0; 4]);
    }),
];

const fn case(
    name: &'static str,
    shapes: &'static [&'static [usize]],
    reads: &'static [usize],
    writes: &'static [usize],
    op: Op,
) -> Case {
    Case { name, shapes, reads, writes, op }
}

impl Case {
    /// Runs the operation, after `prepare` was called with each operand, and returns the operands.
    fn run<D: Device + 'static>(
        &self,
        device: &Arc<D>,
        prepare: impl Fn(&dyn Device, &Arena, usize, &Tensor),
    ) -> Result<Vec<Vec<f32>>, Error> {
        let results = RefCell::default();
        play(device, &|device, arena| {
            let tensors = self.shapes.iter().map(|shape| arena.alloc("t", DType::F32, *shape));
            let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
            for (n, tensor) in tensors.iter().enumerate() {
                prepare(device, arena, n, tensor);
            }
            (self.op)(device, &tensors);
            device.finish()?;
            let fetched = tensors.iter().map(|tensor| fetch(device, tensor));
            *results.borrow_mut() = fetched.collect::<Result<_, _>>()?;
            Ok(())
        })?;
        Ok(results.into_inner())
    }

    /// What the checker finds if the operands are prepared so.
    fn violations(&self, prepare: impl Fn(&dyn Device, &Arena, usize, &Tensor)) -> Vec<String> {
        let sim = card(small());
        let _ = self.run(&sim, prepare);
        sim.violations()
    }
}

fn write(device: &dyn Device, n: usize, tensor: &Tensor) {
    device.upload(&values(n, tensor.shape().elements()), &mut tensor.clone());
}

#[test]
fn the_bits_are_those_of_the_cpu_device() {
    for case in CASES {
        let write = |device: &dyn Device, _: &Arena, n: usize, t: &Tensor| write(device, n, t);
        let expected = case.run(&Arc::new(CpuDevice::new(1).unwrap()), write).unwrap();
        for threads in [1, 3] {
            let sim = card(SimConfig { threads, ..small() });
            let result = case.run(&sim, write).unwrap();
            let same = result.iter().flatten().zip(expected.iter().flatten());
            assert!(same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()), "{}", case.name);
            assert_eq!(sim.violations(), [""; 0], "{}", case.name);
        }
    }
}

#[test]
fn every_operand_that_is_being_copied_is_noticed() {
    for case in CASES {
        for operand in 0..case.shapes.len() {
            let found = case.violations(|device, _, n, t| {
                write(device, n, t);
                if n == operand {
                    let count = t.shape().elements();
                    device.begin_upload(source(0, count), t, &[device.fence()]);
                }
            });
            let (name, first) = (case.name, &found[0]);
            assert!(first.starts_with(name), "operand {operand} of {name}: {first}");
            assert!(
                first.contains("which upload 1 writes"),
                "operand {operand} of {name}: {first}"
            );

            let found = case.violations(|device, arena, n, t| {
                write(device, n, t);
                if n == operand {
                    let buffer = arena.host_buffer("b", t.bytes()).unwrap();
                    device.begin_download(t, &buffer, &[device.fence()]);
                }
            });
            // If it is not written, what is left is that nobody waits.
            let is_noticed = found[0].starts_with(name) && found[0].contains("download 1 reads");
            assert_eq!(
                is_noticed,
                case.writes.contains(&operand),
                "{operand} of {name}: {found:?}"
            );
        }
    }
}

#[test]
fn every_operand_that_was_never_written_is_noticed() {
    for case in CASES {
        for operand in 0..case.shapes.len() {
            let found = case.violations(|device, _, n, t| {
                if n != operand {
                    write(device, n, t);
                }
            });
            let is_noticed = found.first().is_some_and(|found| found.starts_with(case.name));
            let name = case.name;
            assert_eq!(is_noticed, case.reads.contains(&operand), "{operand} of {name}: {found:?}");
        }
    }
}
