//! Exponential functions without branches, so that loops over them vectorise, and of fused
//! multiply-adds and exactly rounded operations alone, so that every instruction set gives the
//! same bits.

/// `e^x`, within 1 ulp down to the subnormal numbers; infinities and NaN as the mathematics has it.
///
/// `x = n ln 2 + r`, `|r| ≤ ln 2 / 2`, and `e^r` by the polynomial of Cephes' `expf` (Moshier).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and subtracting this rounds to an integer, which is then in the low bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these the result is 0 or infinite; comparisons are so that NaN stays.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, TO_INTEGER);
    let n = shifted - TO_INTEGER;
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    // 2^n in two factors, for n from -150 to 128.
    let n = (shifted.to_bits() as i32).wrapping_sub(TO_INTEGER.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// GELU in its tanh form (Hendrycks and Gimpel 2016), `x/2 (1 + tanh u)` with
/// `u = sqrt(2/π) (x + 0.044715 x³)`, written as `x / (1 + e^-2u)`: nothing cancels.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const MINUS_TWO_ROOT_TWO_OVER_PI: f32 = -1.595_769;
    let inner = (x * x).mul_add(0.044_715 * x, x);
    x / (1.0 + exp(MINUS_TWO_ROOT_TWO_OVER_PI * inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(ours: f32, exact: f64) -> f64 {
        let spacing = f64::from(f32::from_bits((exact.abs() as f32).to_bits() + 1))
            - f64::from(exact.abs() as f32);
        (f64::from(ours) - exact).abs() / spacing
    }

    #[test]
    fn exp_is_within_two_ulps() {
        let mut worst = 0.0_f64;
        for i in -1_040_000..=887_000 {
            let x = i as f32 * 1e-4;
            worst = worst.max(ulps(exp(x), f64::from(x).exp()));
        }
        assert!(worst < 2.0, "{worst}");
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::MAX), f32::INFINITY);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-f32::NAN).is_nan());
        assert_eq!(exp(1e-30), 1.0);
    }

    #[test]
    fn activations_are_close() {
        for i in -80_000..=80_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x);
            assert!(ulps(silu(x), exact / (1.0 + (-exact).exp())) < 4.0, "{x}");
            let u = (2.0 / std::f64::consts::PI).sqrt() * (exact + 0.044715 * exact.powi(3));
            let exact = exact / (1.0 + (-2.0 * u).exp());
            // The exponent's own rounding is multiplied by its size, so only the result's
            // distance to x or 0 can be as good as f32 is.
            let error = (f64::from(gelu_tanh(x)) - exact).abs();
            assert!(error <= 4e-7 * exact.abs() * (1.0 + 2.0 * u.abs()) + 1e-30, "{x}");
        }
        assert_eq!(gelu_tanh(1e30), 1e30);
        assert_eq!(gelu_tanh(-1e30), 0.0);
        assert_eq!(silu(1e30), 1e30);
        assert_eq!(silu(-1e30), 0.0);
        assert!(silu(f32::NAN).is_nan() && gelu_tanh(f32::NAN).is_nan());
    }
}
