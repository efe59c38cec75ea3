//! Frames: every one of these operations has the CPU device's bits.

mod bed;
use bed::*;
use vidfit_tensor::*;

/// Frames whose pixels are read eight elements at a time, and others.
const SIZES: [[usize; 3]; 5] = [[1, 1, 1], [3, 5, 7], [5, 7, 8], [2, 3, 40], [2, 9, 300]];

fn latents_become_frames_and_frames_latents(bed: Bed) {
    let mut random = Random::new(40);
    for ([c, big_h, big_w], [h, w]) in
        [([1, 1, 1], [1, 1]), ([16, 6, 9], [4, 5]), ([5, 9, 7], [4, 7])]
    {
        for dtype in DTYPES {
            let operands = [
                random.typed(dtype, &[c, big_h, big_w], 0.0, 3.0),
                Operand::empty(random.dtype(), &[h, w, c]),
                Operand::empty(random.dtype(), &[h + 2, w + 2, c]),
                random.tensor(&[c, big_h, big_w], 0.0, 3.0),
            ];
            let corner = (random.between(0, big_h - h), random.between(0, big_w - w));
            bed.compare("latents", &operands, &[1, 2, 3], 0.0, 0.0, |d, t| {
                d.latent_frame(&t[0], corner, 1.0 / 0.7, false, &mut t[1].clone());
                d.latent_frame(&t[0], corner, 1.0 / 0.7, true, &mut t[2].clone());
                d.store_latent(&t[1], corner, &mut t[3].clone());
            });
        }
    }
}

fn upsampling_and_means_are_the_cpus(bed: Bed) {
    let mut random = Random::new(41);
    for [h, w, c] in SIZES {
        for from in DTYPES {
            let operands = [
                random.typed(from, &[h, w, c], 0.0, 3.0),
                random.typed(from, &[h, w, c], 0.0, 3.0),
                Operand::empty(random.dtype(), &[2 * h + 2, 2 * w + 2, c]),
                Operand::empty(from, &[h + 2, w + 2, c]),
                Operand::empty(random.dtype(), &[h + 2, w + 2, c]),
                Operand::empty(random.dtype(), &[h + 2, w + 2, c]),
            ];
            bed.compare("larger frames", &operands, &[2, 3, 4, 5], 0.0, 0.0, |d, t| {
                d.upsample(&t[0], &mut t[2].clone());
                d.mean_of_frames(&[&t[0]], &mut t[3].clone());
                d.mean_of_frames(&[&t[0], &t[1]], &mut t[4].clone());
                d.mean_of_frames(&[&t[1], &t[1]], &mut t[5].clone());
            });
        }
    }
}

fn crops_are_the_cpus(bed: Bed) {
    let mut random = Random::new(42);
    for [h, w, c] in SIZES {
        for from in DTYPES {
            let (big_h, big_w) = (h + random.between(0, 3), w + random.between(0, 3));
            let corner = (random.between(0, big_h - h), random.between(0, big_w - w));
            let operands = [
                random.typed(from, &[big_h, big_w, c], 0.0, 3.0),
                Operand::empty(from, &[h, w, c]),
                Operand::empty(random.dtype(), &[h, w, c]),
            ];
            bed.compare("crop", &operands, &[1, 2], 0.0, 0.0, |d, t| {
                d.crop(&t[0], corner, &mut t[1].clone());
                d.crop(&t[0], corner, &mut t[2].clone());
            });
        }
    }
}

fn seams_are_the_cpus(bed: Bed) {
    let mut random = Random::new(43);
    for [h, w, c] in [[1, 1, 1], [3, 5, 7], [13, 11, 3], [7, 9, 8], [70, 3, 16], [2, 67, 8]] {
        for dtype in DTYPES {
            let before = random.dtype();
            let (extent, across) = (random.between(0, h), random.between(1, w));
            let operands = [
                random.typed(before, &[extent + 1, w, c], 0.0, 3.0),
                random.typed(before, &[h, across + 1, c], 0.0, 3.0),
                random.typed(dtype, &[h, w, c], 0.0, 3.0),
                random.typed(dtype, &[h, w, c], 0.0, 3.0),
            ];
            bed.compare("blend", &operands, &[2, 3], 0.0, 0.0, |d, t| {
                d.blend(&t[0], &mut t[2].clone(), Axis::Vertical, extent);
                d.blend(&t[1], &mut t[2].clone(), Axis::Horizontal, across);
                d.blend(&t[1], &mut t[3].clone(), Axis::Horizontal, 1);
            });
        }
    }
}

/// Frames that begin where sixteen bytes cannot be read at once.
fn frames_may_begin_anywhere(bed: Bed) {
    let mut random = Random::new(44);
    let dims = [3, 4, 8];
    let elements: usize = dims.iter().product();
    for dtype in DTYPES {
        for first in [1, 8] {
            let length = first + elements;
            let part = |t: &Tensor| t.slice(first..length).reshape(dims);
            let operands = [
                random.typed(dtype, &[length], 0.0, 3.0),
                random.typed(dtype, &[length], 0.0, 3.0),
                Operand::empty(dtype, &[8, 10, 8]),
                Operand::empty(dtype, &[5, 6, 8]),
                Operand::empty(DType::F32, &[length]),
            ];
            bed.compare("parts", &operands, &[1, 2, 3, 4], 0.0, 0.0, |d, t| {
                let (a, b) = (part(&t[0]), part(&t[1]));
                d.upsample(&a, &mut t[2].clone());
                d.mean_of_frames(&[&a, &b], &mut t[3].clone());
                d.crop(&a, (0, 0), &mut part(&t[4]));
                d.blend(&a, &mut b.clone(), Axis::Vertical, 3);
                d.blend(&a, &mut b.clone(), Axis::Horizontal, 3);
            });
        }
    }
}

/// Pages of a video, as the decoder has them.
fn entries_of_a_tensor_are_frames(bed: Bed) {
    let mut random = Random::new(45);
    let operands = [
        random.typed(DType::BF16, &[3, 5, 6, 3], 0.0, 3.0),
        Operand::empty(DType::BF16, &[2, 2, 6, 3]),
    ];
    bed.compare("pages", &operands, &[1], 0.0, 0.0, |d, t| {
        d.crop(&t[0].at(1), (3, 0), &mut t[1].at(1));
        d.crop(&t[0].at(2), (1, 0), &mut t[1].at(0));
    });
}

test_on_all_architectures!(
    latents_become_frames_and_frames_latents,
    upsampling_and_means_are_the_cpus,
    crops_are_the_cpus,
    seams_are_the_cpus,
    frames_may_begin_anywhere,
    entries_of_a_tensor_are_frames,
);
