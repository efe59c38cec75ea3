// What the kernels of attention share.
#pragma once
#include "element.cuh"

// Queries of a block.
constexpr uint32_t ATTENTION_QUERIES = 128;

// Block x of head y: softmax(scale q kT + bias) v of some queries.
struct AttentionArguments {
    View queries, keys, values;  // [rows, columns]
    View bias;                   // [heads, 2 rows - 1], by key - query + rows - 1; or no address
    View target;                 // [rows, target_columns]
    uint64_t columns, target_columns;
    uint64_t first_column;  // of the first head, in target
    uint32_t rows;
    uint32_t head_dim;
    uint32_t aligned;  // whether queries, keys and values begin at multiples of 16 bytes
    float scale;       // log2 e is in it: powers are of two
    uint32_t first_block;  // the number of this launch's first along x: queries may be parted
    uint32_t unused;
};

constexpr float LOG2_E = 1.44269504f;

// Less than every score.
DEVICE float no_score() { return __uint_as_float(0xff800000); }

#ifdef __CUDACC_RTC__

// 2^x, relative error 2^-22; 0 where it would be denormal.
DEVICE float two_to(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#else

DEVICE float two_to(float x) { return std::exp2(x); }

#endif
