//! Draws from a posterior: each operation is rounded as the reference rounds it.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

/// `[moments, noise]` of a type; the logarithms of variances reach beyond where they are held.
fn operands(random: &mut Random, dtype: DType, [f, c, h, w]: [usize; 4]) -> [Operand; 2] {
    let moments = random.typed(dtype, &[f, 2 * c, h, w], -3.0, 40.0);
    [moments, random.typed(dtype, &[f, c, h, w], 0.0, 3.0)]
}

#[test]
fn draws_round_each_operation() {
    let mut random = Random::new(50);
    for shape @ [f, c, h, w] in [[1, 1, 1, 1], [3, 16, 6, 9], [2, 3, 1, 9001]] {
        for dtype in DTYPES {
            let [moments, noise] = operands(&mut random, dtype, shape);
            let (plane, factor) = (h * w, 1.0 / 0.7);
            // Where a number lies between two of the type, both are right: `low` and `high`.
            let (mut low, mut high) = (Vec::new(), Vec::new());
            for n in 0..f * c * plane {
                let (frame, channel, pixel) = (n / (c * plane), n / plane % c, n % plane);
                let at = |channel: usize| moments.values[(frame * 2 * c + channel) * plane + pixel];
                let deviation = f64::from(at(c + channel).clamp(-30.0, 20.0) / 2.0).exp();
                let ends = [1.0 - 2e-7, 1.0 + 2e-7].map(|off| {
                    let product =
                        dtype.round(dtype.round((deviation * off) as f32) * noise.values[n]);
                    dtype.round(dtype.round(at(channel) + product) * factor as f32)
                });
                low.push(ends[0].min(ends[1]));
                high.push(ends[0].max(ends[1]));
            }
            let all = [moments, noise, Operand::empty(dtype, &shape)];
            let result = run(&all, &[2], |device, t| {
                device.posterior_sample(&t[0], &t[1], factor, &mut t[2].clone());
            });
            for (n, value) in result[2].iter().enumerate() {
                let (low, high) = (low[n], high[n]);
                // An f16 deviation may be infinite, and so the draw.
                let is_right = low <= *value && *value <= high || value.is_nan() && low.is_nan();
                assert!(is_right, "{dtype} {shape:?}: {n} is {value}, not {low}..={high}");
            }
            let in_place = run(&all[..2], &[1], |device, t| {
                device.posterior_sample(&t[0], &t[1], factor, &mut t[1].clone());
            });
            let same = in_place[1].iter().zip(&result[2]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "in place of the noise");
        }
    }
}
