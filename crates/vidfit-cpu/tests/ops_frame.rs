//! Frames: every one of these operations is exact.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

/// Pixels of a frame as `pixel(y, x, channel)` has them, with a zero border where `padded`.
fn frame(
    [height, width, channels]: [usize; 3],
    padded: bool,
    pixel: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f32> {
    let border = usize::from(padded);
    let mut values = Vec::new();
    for y in 0..height + 2 * border {
        for x in 0..width + 2 * border {
            let inside =
                (border..height + border).contains(&y) && (border..width + border).contains(&x);
            values.extend(
                (0..channels).map(|c| if inside { pixel(y - border, x - border, c) } else { 0.0 }),
            );
        }
    }
    values
}

#[test]
fn latent_frames() {
    let mut random = Random::new(40);
    let cases = [
        ([1, 1, 1], [1, 1]),
        ([16, 60, 90], [30, 45]),
        ([5, 9, 7], [4, 7]),
        ([7, 2, 5003], [1, 5001]),
    ];
    for ([c, src_h, src_w], [h, w]) in cases {
        for padded in [false, true] {
            let src = random.tensor(&[c, src_h, src_w], 0.0, 3.0);
            let corner = (random.between(0, src_h - h), random.between(0, src_w - w));
            let factor = 1.0 / 0.7_f32;
            let expected = frame([h, w, c], padded, |y, x, c| {
                factor * src.values[(c * src_h + corner.0 + y) * src_w + corner.1 + x]
            });
            let border = 2 * usize::from(padded);
            let dst = Operand::empty(random.dtype(), &[h + border, w + border, c]);
            let result = run(&[src, dst.clone()], &[1], |device, t| {
                device.latent_frame(&t[0], corner, factor, padded, &mut t[1].clone());
            });
            check_exact("latent_frame", dst.dtype, &result[1], &expected);
        }
    }
}

#[test]
fn latent_frames_are_stored_where_they_belong() {
    let mut random = Random::new(45);
    let cases = [
        ([1, 1, 1], [1, 1]),
        ([32, 60, 90], [30, 45]),
        ([5, 9, 7], [4, 7]),
        ([7, 2, 5003], [1, 5001]),
    ];
    for ([c, dst_h, dst_w], [h, w]) in cases {
        let src = random.tensor(&[h, w, c], 0.0, 3.0);
        let dst = random.tensor(&[c, dst_h, dst_w], 0.0, 3.0);
        let corner = (random.between(0, dst_h - h), random.between(0, dst_w - w));
        let mut expected = dst.values.clone();
        for (n, value) in src.values.iter().enumerate() {
            let (y, x, channel) = (n / c / w, n / c % w, n % c);
            expected[(channel * dst_h + corner.0 + y) * dst_w + corner.1 + x] = *value;
        }
        let dtype = dst.dtype;
        let result = run(&[src, dst], &[1], |device, t| {
            device.store_latent(&t[0], corner, &mut t[1].clone());
        });
        check_exact("store_latent", dtype, &result[1], &expected);
    }
}

#[test]
fn means_of_one_and_two_frames() {
    let mut random = Random::new(46);
    for [h, w, c] in [[1, 1, 1], [3, 5, 7], [4, 30, 256], [2, 3, 20000]] {
        let from = random.dtype();
        let frames = [(); 2].map(|()| random.typed(from, &[h, w, c], 0.0, 3.0));
        let dst = Operand::empty(random.dtype(), &[h + 2, w + 2, c]);
        let mean = |y: usize, x: usize, channel: usize, count: usize| {
            let of = |frame: &Operand| frame.values[(y * w + x) * c + channel];
            frames[..count].iter().map(of).sum::<f32>() / count as f32
        };
        let operands = [frames[0].clone(), frames[1].clone(), dst.clone()];
        for count in [1, 2] {
            let expected = frame([h, w, c], true, |y, x, channel| mean(y, x, channel, count));
            let result = run(&operands, &[2], |device, t| {
                let frames = [&t[0], &t[1]];
                device.mean_of_frames(&frames[..count], &mut t[2].clone());
            });
            check_exact("mean_of_frames", dst.dtype, &result[2], &expected);
        }
    }
}

#[test]
fn upsampling_repeats_pixels() {
    let mut random = Random::new(41);
    for [h, w, c] in [[1, 1, 1], [3, 5, 7], [4, 30, 256], [2, 3, 20000]] {
        for from in DTYPES {
            let src = random.typed(from, &[h, w, c], 0.0, 3.0);
            let dst = Operand::empty(random.dtype(), &[2 * h + 2, 2 * w + 2, c]);
            let expected = frame([2 * h, 2 * w, c], true, |y, x, channel| {
                src.values[(y / 2 * w + x / 2) * c + channel]
            });
            let result = run(&[src, dst.clone()], &[1], |device, t| {
                device.upsample(&t[0], &mut t[1].clone());
            });
            check_exact("upsample", dst.dtype, &result[1], &expected);
        }
    }
}

#[test]
fn crops_copy_a_rectangle() {
    let mut random = Random::new(42);
    for ([src_h, src_w, c], [h, w]) in
        [([1, 1, 1], [1, 1]), ([9, 11, 3], [4, 5]), ([3, 900, 30], [2, 888])]
    {
        for _ in 0..4 {
            let src = random.tensor(&[src_h, src_w, c], 0.0, 3.0);
            let dst = Operand::empty(random.dtype(), &[h, w, c]);
            let corner = (random.between(0, src_h - h), random.between(0, src_w - w));
            let expected = frame([h, w, c], false, |y, x, channel| {
                src.values[((corner.0 + y) * src_w + corner.1 + x) * c + channel]
            });
            let result = run(&[src, dst.clone()], &[1], |device, t| {
                device.crop(&t[0], corner, &mut t[1].clone());
            });
            check_exact("crop", dst.dtype, &result[1], &expected);
        }
    }
}

#[test]
fn blends_go_over_from_one_to_the_other() {
    let mut random = Random::new(43);
    for ([h, w, c], other, extent) in [
        ([1, 1, 1], 1, 1),
        ([9, 7, 3], 11, 5),
        ([30, 45, 16], 8, 7),
        ([3, 6000, 3], 4, 3),
        ([3, 4, 5], 3, 0),
    ] {
        for axis in [Axis::Vertical, Axis::Horizontal] {
            let (before_h, before_w) = match axis {
                Axis::Vertical => (other, w),
                Axis::Horizontal => (h, other),
            };
            let extent = if axis == Axis::Horizontal { extent.min(w) } else { extent.min(h) };
            let before = random.tensor(&[before_h, before_w, c], 0.0, 3.0);
            let tile = random.tensor(&[h, w, c], 0.0, 3.0);
            let expected = frame([h, w, c], false, |y, x, channel| {
                let new = tile.values[(y * w + x) * c + channel];
                let (line, old_y, old_x) = match axis {
                    Axis::Vertical => (y, before_h - extent + y, x),
                    Axis::Horizontal => (x, y, before_w - extent + x),
                };
                if line >= extent {
                    return new;
                }
                let share = line as f64 / extent as f64;
                let old = before.values[(old_y * before_w + old_x) * c + channel];
                old * (1.0 - share) as f32 + new * share as f32
            });
            let dtype = tile.dtype;
            let result = run(&[before, tile], &[1], |device, t| {
                device.blend(&t[0], &mut t[1].clone(), axis, extent);
            });
            check_exact("blend", dtype, &result[1], &expected);
        }
    }
}

#[test]
fn unit_range_rounds_each_operation() {
    let mut random = Random::new(44);
    for from in DTYPES {
        for to in [from, DType::F32] {
            let mut src = random.typed(from, &[3, 9000], 0.0, 1.3);
            // The smallest numbers of each type, and what clamps.
            for (n, bits) in [1, 3, 0x8001_u32, 0x0001_0000, 0x0003_0000].into_iter().enumerate() {
                src.values[n] = from.round(f32::from_bits(bits));
            }
            src.values[5] = from.round(5.960_464_5e-8 * 3.0);
            (src.values[6], src.values[7], src.values[8]) = (1.0, -1.0, f32::INFINITY);
            let expected: Vec<f32> = src
                .values
                .iter()
                .map(|v| from.round(from.round(v / 2.0) + 0.5).clamp(0.0, 1.0))
                .collect();
            let result = run(&[src, Operand::empty(to, &[3, 9000])], &[1], |device, t| {
                device.to_unit_range(&t[0], &mut t[1].clone());
            });
            check_exact("to_unit_range", DType::F32, &result[1], &expected);
        }
    }
}
