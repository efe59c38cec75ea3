//! Patches: their order, and that cutting and joining are inverse.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

#[test]
fn patches_are_cut_in_order_and_joined_again() {
    let mut random = Random::new(30);
    let cases = [
        ([1, 1, 1], (1, 1), vec![1]),
        ([3, 5, 7], (1, 2), vec![3]),
        ([2, 3, 5], (2, 2), vec![4, 3]),
        ([2, 2, 9], (2, 3), vec![1, 5]),
        ([1, 2, 85], (2, 2), vec![16, 16]),
        ([1, 1, 300], (2, 2), vec![16]),
    ];
    for ([times, heights, widths], (pt, p), channels) in cases {
        let (frames, h, w) = (times * pt, heights * p, widths * p);
        let total: usize = channels.iter().sum();
        let features = total * pt * p * p;
        let mut operands: Vec<Operand> =
            channels.iter().map(|&c| random.tensor(&[frames, c, h, w], 0.0, 2.0)).collect();
        let rows = times * heights * widths;
        operands.push(Operand::empty(random.dtype(), &[rows, features]));

        let mut expected = Vec::new();
        for row in 0..rows {
            let (t, y, x) = (row / (heights * widths), row / widths % heights, row % widths);
            for (latent, &c_count) in operands.iter().zip(&channels) {
                for feature in 0..c_count * pt * p * p {
                    let (c, dt) = (feature / (pt * p * p), feature / (p * p) % pt);
                    let (dy, dx) = (feature / p % p, feature % p);
                    let line = ((t * pt + dt) * c_count + c) * h + y * p + dy;
                    expected.push(latent.values[line * w + x * p + dx]);
                }
            }
        }
        let last = channels.len();
        let dtype = operands[last].dtype;
        let result = run(&operands, &[last], |device, t| {
            let latents: Vec<&Tensor> = t[..last].iter().collect();
            device.patchify(&latents, (pt, p), &mut t[last].clone());
        });
        check_exact("patchify", dtype, &result[last], &expected);

        // The way back, with the same numbers in a type that holds them all.
        if last == 1 {
            let patches =
                Operand { dtype: DType::F32, shape: vec![rows, features], values: expected };
            let dst = Operand::empty(random.dtype(), &[frames, total, h, w]);
            let result = run(&[patches, dst.clone()], &[1], |device, t| {
                device.unpatchify(&t[0], (pt, p), &mut t[1].clone());
            });
            check_exact("unpatchify", dst.dtype, &result[1], &operands[0].values);
        }
    }
}
