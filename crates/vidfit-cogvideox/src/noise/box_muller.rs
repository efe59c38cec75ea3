//! Box-Muller on blocks of 16 f32, as PyTorch's AVX2 kernel (`normal_fill_16_AVX2`) computes it.
//!
//! That kernel takes its logarithm, sine and cosine from `avx_mathfun.h`, a port of the Cephes
//! polynomials, and the compiler fuses their products and sums. Repeating each rounding, fused ones
//! included, gives the same bits. Without AVX2 PyTorch uses the C library's functions instead, with
//! results up to 2e-6 away.

/// Uniforms u (first 8) and w (last 8) become normals: r·cos(2πw) and r·sin(2πw), where
/// r = √(−2 ln(1 − u)).
pub(super) fn box_muller(block: &mut [f32; 16]) {
    for i in 0..8 {
        let radius = (-2.0 * ln(1.0 - block[i])).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * block[i + 8]);
        block[i] = radius * cos;
        block[i + 8] = radius * sin;
    }
}

/// a·b + c with one rounding, or as good as: the product is exact in f64, so only a sum that falls
/// on the middle of two f32 after its own rounding (once in some 2^28) can differ. Unlike
/// `f32::mul_add` it is fast on every CPU.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// Natural logarithm of a normal, positive number (here 2^-24 to 1).
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = m · 2^e with m in [0.5, 1), moved to [√½, √2).
    let exponent = ((x.to_bits() >> 23) as i32 - 126) as f32;
    let mantissa = f32::from_bits(x.to_bits() & 0x007f_ffff | 0x3f00_0000);
    let small = mantissa < std::f32::consts::FRAC_1_SQRT_2;
    let exponent = if small { exponent - 1.0 } else { exponent };
    let m = (mantissa - 1.0) + if small { mantissa } else { 0.0 };
    let square = m * m;
    let mut y = 7.037_683_6e-2;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        y = fused(y, m, coefficient);
    }
    y *= m;
    // ln 2 in two parts: 0.693359375 - 2.12194440e-4.
    y = fused(y, square, exponent * -2.121_944_4e-4);
    y = fused(square, -0.5, y);
    fused(exponent, 0.693_359_4, m + y)
}

/// Sine and cosine of an angle from 0 to 2π.
#[inline(always)]
fn sin_cos(angle: f32) -> (f32, f32) {
    // The octant, rounded up to an even number; π/4 in three parts is taken off that many times.
    let octant = ((angle * 1.273_239_5) as i32 + 1) & !1;
    let count = octant as f32;
    let mut x = fused(count, -0.785_156_25, angle);
    x = fused(count, -2.418_756_5e-4, x);
    x = fused(count, -3.774_895e-8, x);
    let square = x * x;

    let mut c = 2.443_315_7e-5;
    c = fused(c, square, -1.388_731_6e-3);
    c = fused(c, square, 4.166_664_6e-2);
    c *= square;
    c = fused(c, square, -(square * 0.5)) + 1.0;

    let mut s = -1.951_529_6e-4;
    s = fused(s, square, 8.332_161e-3);
    s = fused(s, square, -1.666_665_5e-1);
    s *= square;
    s = fused(s, x, x);

    let swap = octant & 2 != 0;
    let (sin, cos) = if swap { (c, s) } else { (s, c) };
    let sin = if octant & 4 != 0 { -sin } else { sin };
    let cos = if (octant - 2) & 4 == 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomials_are_good_to_an_f32() {
        for i in 0..100_000 {
            let u = i as f32 / 100_000.0;
            let exact = f64::from(1.0 - u).ln();
            assert!(
                (f64::from(ln(1.0 - u)) - exact).abs() <= 1.2e-7 * exact.abs().max(1e-3),
                "{u}"
            );
            let angle = std::f32::consts::TAU * u;
            let (sin, cos) = sin_cos(angle);
            assert!((f64::from(sin) - f64::from(angle).sin()).abs() < 1.3e-7, "{u}");
            assert!((f64::from(cos) - f64::from(angle).cos()).abs() < 1.3e-7, "{u}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_finite() {
        let mut block = [0.0; 16];
        block[1] = 1.0 - f32::EPSILON / 2.0;
        block[9] = 1.0 - f32::EPSILON / 2.0;
        box_muller(&mut block);
        assert_eq!(block[0], 0.0);
        assert!((block[1] - 5.768).abs() < 1e-3 && block[9].abs() < 1e-5, "{block:?}");
    }
}
