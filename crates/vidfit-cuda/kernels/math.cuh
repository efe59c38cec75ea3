// Exponential functions, the CPU device's own (`product/math.rs` there): of fused multiply-adds and
// exactly rounded operations alone, so that every card and the CPU give the same bits.
//
// The compiler makes one fused operation of `a * b + c` wherever it sees it. Where the CPU rounds the
// product, `__fmul_rn` keeps it apart.
#pragma once
#include "portable.cuh"

// 2^n, for n from -126 to 127.
DEVICE float power_of_two(int n) {
    return __uint_as_float(uint32_t(n + 127) << 23);
}

// e^x, within 1 ulp down to the subnormal numbers; infinities and NaN as the mathematics has it.
//
// x = n ln 2 + r, |r| <= ln 2 / 2, and e^r by the polynomial of Cephes' `expf` (Moshier).
DEVICE float exp_of(float x) {
    // Adding and subtracting this rounds to an integer, which is then in the low bits.
    constexpr float TO_INTEGER = 12582912.0f;
    constexpr float LOG2_E = 1.44269504088896340736f;
    constexpr float LN_2_HIGH = 0.6933594f;
    constexpr float LN_2_LOW = -2.1219444e-4f;
    // Beyond these the result is 0 or infinite; comparisons are so that NaN stays.
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = fmaf(x, LOG2_E, TO_INTEGER);
    float whole = shifted - TO_INTEGER;
    float r = fmaf(whole, -LN_2_HIGH, x);
    r = fmaf(whole, -LN_2_LOW, r);
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, __fmul_rn(r, r), r) + 1.0f;
    // 2^n in two factors, for n from -150 to 128. Not a number is that whatever n says.
    int n = int(__float_as_uint(shifted) - __float_as_uint(TO_INTEGER));
    int half = n >> 1;
    return __fmul_rn(__fmul_rn(p, power_of_two(half)), power_of_two(n - half));
}

// x / (1 + e^-x)
DEVICE float silu_of(float x) {
    return x / (1.0f + exp_of(-x));
}

// GELU in its tanh form (Hendrycks and Gimpel 2016), x/2 (1 + tanh u) with u = sqrt(2/pi) (x + 0.044715 x^3),
// written as x / (1 + e^-2u): nothing cancels.
DEVICE float gelu_tanh_of(float x) {
    constexpr float MINUS_TWO_ROOT_TWO_OVER_PI = -1.595769f;
    float inner = fmaf(__fmul_rn(x, x), __fmul_rn(0.044715f, x), x);
    return x / (1.0f + exp_of(__fmul_rn(MINUS_TWO_ROOT_TWO_OVER_PI, inner)));
}
