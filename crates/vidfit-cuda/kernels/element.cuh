// Elements in memory: f32, f16, bf16. Arithmetic is f32, rounded once, on store, to the nearest even.
#pragma once
#include "portable.cuh"

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

#ifdef __CUDACC_RTC__

DEVICE float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE f16 narrow_f16(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
DEVICE float widen(bf16 x) {
    return __uint_as_float(uint32_t(x.bits) << 16);
}

#else

DEVICE float widen(f16 x) { return emulation::from_half(x.bits); }
DEVICE f16 narrow_f16(float x) { return {emulation::to_half(x)}; }
DEVICE float widen(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

#endif

DEVICE float widen(float x) { return x; }

// Before sm_80 there is no instruction for it; the integer way is exact everywhere.
DEVICE bf16 narrow_bf16(float x) {
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return {uint16_t(bits >> 16 | 0x40)};  // stays not a number
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// The nearest of a type, which the second argument names.
DEVICE float narrow(float x, float) { return x; }
DEVICE f16 narrow(float x, f16) { return narrow_f16(x); }
DEVICE bf16 narrow(float x, bf16) { return narrow_bf16(x); }

enum Type : uint32_t { F32 = 0, F16 = 1, BF16 = 2, U8 = 3 };

// Elements of a type that is known when the kernel runs. All threads of a launch take the same branch.
struct View {
    void* data;
    uint32_t type;
    uint32_t unused;

    DEVICE_MEMBER float get(uint64_t i) const {
        switch (type) {
            case F32: return static_cast<const float*>(data)[i];
            case F16: return widen(static_cast<const f16*>(data)[i]);
            default: return widen(static_cast<const bf16*>(data)[i]);
        }
    }
    DEVICE_MEMBER void put(uint64_t i, float x) const {
        switch (type) {
            case F32: static_cast<float*>(data)[i] = x; break;
            case F16: static_cast<f16*>(data)[i] = narrow_f16(x); break;
            default: static_cast<bf16*>(data)[i] = narrow_bf16(x);
        }
    }
};
