//! Latents to patches and back.

mod bed;
use bed::*;
use vidfit_tensor::*;

fn patches_are_the_cpus(bed: Bed) {
    let mut random = Random::new(30);
    let cases = [
        ([1, 1, 1], (1, 1), vec![1]),
        ([3, 5, 7], (1, 2), vec![3]),
        ([2, 3, 5], (2, 2), vec![4, 3]),
        ([2, 2, 9], (2, 3), vec![1, 5, 2]),
        ([1, 2, 11], (1, 2), vec![16, 16]),
    ];
    for ([times, heights, widths], patch @ (pt, p), channels) in cases {
        for dtype in DTYPES {
            let (frames, h, w) = (times * pt, heights * p, widths * p);
            let features = channels.iter().sum::<usize>() * pt * p * p;
            let rows = times * heights * widths;
            let count = channels.len();
            let latent = |&c: &usize| random.tensor(&[frames, c, h, w], 0.0, 2.0);
            let mut operands: Vec<Operand> = channels.iter().map(latent).collect();
            operands.push(Operand::empty(dtype, &[rows, features]));
            // The way back: all the columns as one latent.
            let back = [frames, features / (pt * p * p), h, w];
            operands.push(Operand::empty(random.dtype(), &back));
            bed.compare("patches", &operands, &[count, count + 1], 0.0, 0.0, |d, t| {
                let latents: Vec<&Tensor> = t[..count].iter().collect();
                d.patchify(&latents, patch, &mut t[count].clone());
                d.unpatchify(&t[count], patch, &mut t[count + 1].clone());
            });
        }
    }
}

/// Latents and patches that are parts of larger tensors.
fn parts_are_cut_and_joined(bed: Bed) {
    let mut random = Random::new(31);
    let operands = [
        random.typed(DType::F32, &[3, 5, 4, 6], 0.0, 2.0),
        Operand::empty(DType::BF16, &[13, 20]),
        Operand::empty(DType::F16, &[3, 5, 4, 6]),
    ];
    bed.compare("patches of parts", &operands, &[1, 2], 0.0, 0.0, |d, t| {
        let rows = t[1].slice(1..13);
        d.patchify(&[&t[0].slice(1..3)], (1, 2), &mut rows.clone());
        d.unpatchify(&rows, (1, 2), &mut t[2].slice(0..2));
    });
}

test_on_all_architectures!(patches_are_the_cpus, parts_are_cut_and_joined,);
