//! Conversions between f32 and the 16-bit types, as fast as memory. Rounding is to nearest even;
//! NaN stays NaN. Every path gives the same bits for numbers.

use crate::simd::multiversion;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

multiversion! {
    pub fn widen_bf16(from: &[bf16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits((from.to_bits() as u32) << 16);
        }
    }
}

multiversion! {
    pub fn round_to_bf16(from: &[f32], to: &mut [bf16]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = bf16::from_bits(bf16_bits(from));
        }
    }
}

/// Branch free, so that loops over it vectorise.
#[inline(always)]
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    let quiet = ((bits >> 16) | 0x40) as u16;
    if value.is_nan() { quiet } else { rounded }
}

pub fn widen_f16(from: &[f16], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::has_avx2() {
        // SAFETY: the features were just found.
        return unsafe { x86::widen_f16(from, to) };
    }
    from.convert_to_f32_slice(to);
}

pub fn round_to_f16(from: &[f32], to: &mut [f16]) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::has_avx2() {
        // SAFETY: the features were just found.
        return unsafe { x86::round_to_f16(from, to) };
    }
    to.convert_from_f32_slice(from);
}

/// The half crate converts eight numbers a call; these loops stay inside the instruction set.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use half::f16;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,f16c")]
    pub fn widen_f16(from: &[f16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len());
        let (from, from_rest) = from.as_chunks::<8>();
        let (to, to_rest) = to.as_chunks_mut::<8>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: eight elements of each, and no alignment asked for.
            unsafe {
                let eight = _mm_loadu_si128(from.as_ptr().cast());
                _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(eight));
            }
        }
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = from.to_f32();
        }
    }

    #[target_feature(enable = "avx2,f16c")]
    pub fn round_to_f16(from: &[f32], to: &mut [f16]) {
        assert_eq!(from.len(), to.len());
        let (from, from_rest) = from.as_chunks::<8>();
        let (to, to_rest) = to.as_chunks_mut::<8>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: eight elements of each, and no alignment asked for.
            unsafe {
                let eight = _mm256_loadu_ps(from.as_ptr());
                let eight = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(eight);
                _mm_storeu_si128(to.as_mut_ptr().cast(), eight);
            }
        }
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = f16::from_f32(*from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_equals_the_half_crate() {
        let mut bits = 1u32;
        let mut values: Vec<f32> = (0..400_003)
            .map(|_| {
                bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(bits)
            })
            .collect();
        // Half of them where f16 has numbers, ties and subnormal ones among them.
        for value in values.iter_mut().step_by(2) {
            *value = f32::from_bits((value.to_bits() & 0x8fff_f000) | 0x3000_0000);
        }
        let (mut ours, mut ours16) = (vec![bf16::ZERO; 400_003], vec![f16::ZERO; 400_003]);
        round_to_bf16(&values, &mut ours);
        round_to_f16(&values, &mut ours16);
        for ((&value, ours), ours16) in values.iter().zip(ours).zip(ours16) {
            let (theirs, theirs16) = (bf16::from_f32(value), f16::from_f32(value));
            let nan = value.is_nan();
            assert!(ours.to_bits() == theirs.to_bits() || nan && ours.is_nan(), "{value}");
            assert!(ours16.to_bits() == theirs16.to_bits() || nan && ours16.is_nan(), "{value}");
        }
    }

    #[test]
    fn widening_is_exact_for_every_number() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let halves: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
        let brains: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
        let (mut from_halves, mut from_brains) = (vec![0.0; 65536], vec![0.0; 65536]);
        widen_f16(&halves, &mut from_halves);
        widen_bf16(&brains, &mut from_brains);
        for n in 0..65536 {
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(
                same(from_halves[n], halves[n].to_f32())
                    && same(from_brains[n], brains[n].to_f32())
            );
        }
    }
}
