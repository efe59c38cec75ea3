// Matrix products: what their kernels share.
#pragma once
#include "element.cuh"
#include "math.cuh"
#include "matrix.cuh"

struct LinearArguments {
    View x;       // [rows, depth]
    View weight;  // [columns, depth]
    View bias;    // [columns], or nothing
    View target;  // [rows, columns]
    uint32_t rows, columns, depth;
    uint32_t activation;
    // Whether the widest load or store that a kernel makes is aligned in every row.
    uint32_t x_aligned, weight_aligned, target_aligned;
    uint32_t unused;
};

namespace linear {

enum Activation : uint32_t { NONE = 0, SILU = 1, GELU_TANH = 2 };

struct alignas(16) Quad {
    float at[4];
};
struct alignas(8) Pair {
    float at[2];
};
struct alignas(8) FourHalves {
    uint16_t at[4];
};

DEVICE uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// The tile of the result that a block makes. Blocks that run at the same time make a patch of it that is
// about as high as wide, so that they read the same rows of both operands from the second-level cache.
struct Place {
    uint32_t row, column;  // of tiles
};
DEVICE Place place_of(uint32_t block, uint32_t tiles_down, uint32_t tiles_across) {
    constexpr uint32_t HEIGHT = 16;
    const uint32_t band = block / (HEIGHT * tiles_across), first = band * HEIGHT;
    const uint32_t height = least(tiles_down - first, HEIGHT);
    const uint32_t within = block - first * tiles_across;
    return {first + within % height, within / height};
}

DEVICE float activate(float x, uint32_t activation) {
    switch (activation) {
        case SILU: return silu_of(x);
        case GELU_TANH: return gelu_tanh_of(x);
        default: return x;
    }
}

// Four elements from `first` on, of which only the first `count` exist; zeros take the place of others.
DEVICE Quad take_four(const View& from, uint64_t first, uint32_t count, bool aligned) {
    Quad four = {};
    if (aligned && count >= 4) {
        if (from.type == F32) return *reinterpret_cast<const Quad*>(static_cast<const float*>(from.data) + first);
        const FourHalves halves =
            *reinterpret_cast<const FourHalves*>(static_cast<const uint16_t*>(from.data) + first);
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
            four.at[i] = from.type == F16 ? widen(f16{halves.at[i]}) : widen(bf16{halves.at[i]});
        return four;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
        if (i < count) four.at[i] = from.get(first + i);
    return four;
}

// The inverse, each element rounded once.
DEVICE void put_four(const View& to, uint64_t first, uint32_t count, bool aligned, const Quad& four) {
    if (aligned && count >= 4) {
        if (to.type == F32) {
            *reinterpret_cast<Quad*>(static_cast<float*>(to.data) + first) = four;
            return;
        }
        FourHalves halves;
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
            halves.at[i] = to.type == F16 ? narrow_f16(four.at[i]).bits : narrow_bf16(four.at[i]).bits;
        *reinterpret_cast<FourHalves*>(static_cast<uint16_t*>(to.data) + first) = halves;
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
        if (i < count) to.put(first + i, four.at[i]);
}

// What is added to four columns.
DEVICE Quad bias_of(const LinearArguments& given, uint32_t column) {
    Quad bias = {};
    if (given.bias.data) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
            if (column + i < given.columns) bias.at[i] = given.bias.get(column + i);
    }
    return bias;
}

// Bias, activation and store of four columns of a row, as far as they exist.
DEVICE void finish(const LinearArguments& given, uint32_t row, uint32_t column, Quad sums, const Quad& bias) {
    if (row >= given.rows || column >= given.columns) return;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) sums.at[i] = activate(sums.at[i] + bias.at[i], given.activation);
    const uint64_t first = uint64_t(row) * given.columns + column;
    put_four(given.target, first, given.columns - column, given.target_aligned, sums);
}

}  // namespace linear
