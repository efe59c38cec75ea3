// Products in f32, of operands of any types.
//
// Every sum is one chain of fused multiply-adds in the order of the inner dimension, begun at zero, as on
// the CPU device: the same bits. Operands are widened on their way to shared memory, and lie there with the
// inner dimension outside, so that a thread finds the four rows or columns of its next products side by
// side.
#pragma once
#include "linear.cuh"

namespace linear {

constexpr uint32_t CHAIN_THREADS = 256;
// Of the inner dimension.
constexpr uint32_t CHAIN_STEP = 16;

// A block makes a square tile; each thread of it PARTS squared squares of four rows and columns, 64 apart.
template <uint32_t PARTS>
struct ChainShared {
    // By four elements longer than need be: the transposing writes then meet in fewer banks.
    float left[2][CHAIN_STEP][64 * PARTS + 4], right[2][CHAIN_STEP][64 * PARTS + 4];
};

// A matrix of which a block reads some rows or columns.
struct Factor {
    View elements;
    uint32_t first;  // row or column of it that the tile begins with
    uint32_t end;    // how many it has
    uint32_t depth;
    uint32_t aligned;
};

// What a thread has taken of a step of a matrix [end, depth], four elements of a row each.
template <uint32_t PARTS>
struct AlongDepth {
    Quad taken[PARTS];

    DEVICE_MEMBER void take(const Factor& from, uint32_t first) {
        const uint32_t k = first + threadIdx.x % 4 * 4;
#pragma unroll
        for (uint32_t i = 0; i < PARTS; ++i) {
            const uint32_t row = from.first + threadIdx.x / 4 + i * 64;
            const uint32_t count = row < from.end && k < from.depth ? from.depth - k : 0;
            taken[i] = take_four(from.elements, uint64_t(row) * from.depth + k, count, from.aligned);
        }
    }
    template <uint32_t WIDTH>
    DEVICE_MEMBER void put(float (&to)[CHAIN_STEP][WIDTH]) const {
#pragma unroll
        for (uint32_t i = 0; i < PARTS; ++i)
#pragma unroll
            for (uint32_t n = 0; n < 4; ++n)
                to[threadIdx.x % 4 * 4 + n][threadIdx.x / 4 + i * 64] = taken[i].at[n];
    }
};

// The same of a matrix [depth, end].
template <uint32_t PARTS>
struct AcrossDepth {
    static constexpr uint32_t QUADS = 16 * PARTS;  // of a row
    Quad taken[PARTS];

    DEVICE_MEMBER void take(const Factor& from, uint32_t first) {
#pragma unroll
        for (uint32_t i = 0; i < PARTS; ++i) {
            const uint32_t quad = threadIdx.x + i * CHAIN_THREADS;
            const uint32_t k = first + quad / QUADS, column = from.first + quad % QUADS * 4;
            const uint32_t count = k < from.depth && column < from.end ? from.end - column : 0;
            taken[i] = take_four(from.elements, uint64_t(k) * from.end + column, count, from.aligned);
        }
    }
    template <uint32_t WIDTH>
    DEVICE_MEMBER void put(float (&to)[CHAIN_STEP][WIDTH]) const {
#pragma unroll
        for (uint32_t i = 0; i < PARTS; ++i) {
            const uint32_t quad = threadIdx.x + i * CHAIN_THREADS;
            *reinterpret_cast<Quad*>(&to[quad / QUADS][quad % QUADS * 4]) = taken[i];
        }
    }
};

// A thread's sums. Its rows begin with `row` in every part of 64, its columns with `column`. A warp's
// threads have four different rows and eight different columns: what they read of shared memory at once is
// no more than its banks give at once.
template <uint32_t PARTS>
struct Chains {
    float sums[4 * PARTS][4 * PARTS];
    uint32_t row, column;

    DEVICE_MEMBER Chains() {
        const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        row = (warp / 2 * 4 + lane / 8) * 4, column = (warp % 2 * 8 + lane % 8) * 4;
        clear();
    }
    DEVICE_MEMBER void clear() {
#pragma unroll
        for (uint32_t i = 0; i < 4 * PARTS; ++i)
#pragma unroll
            for (uint32_t j = 0; j < 4 * PARTS; ++j) sums[i][j] = 0;
    }
    // Four columns of a row, as they follow each other in memory.
    DEVICE_MEMBER Quad four(uint32_t i, uint32_t part) const {
        const float* from = &sums[i][part * 4];
        return {{from[0], from[1], from[2], from[3]}};
    }

    template <uint32_t WIDTH>
    DEVICE_MEMBER void add(const float (&left)[CHAIN_STEP][WIDTH], const float (&right)[CHAIN_STEP][WIDTH]) {
#pragma unroll
        for (uint32_t k = 0; k < CHAIN_STEP; ++k) {
            Quad a[PARTS], b[PARTS];
#pragma unroll
            for (uint32_t part = 0; part < PARTS; ++part) {
                a[part] = *reinterpret_cast<const Quad*>(&left[k][part * 64 + row]);
                b[part] = *reinterpret_cast<const Quad*>(&right[k][part * 64 + column]);
            }
#pragma unroll
            for (uint32_t i = 0; i < 4 * PARTS; ++i)
#pragma unroll
                for (uint32_t j = 0; j < 4 * PARTS; ++j)
                    sums[i][j] = fmaf(a[i / 4].at[i % 4], b[j / 4].at[j % 4], sums[i][j]);
        }
    }

    // Adds the products over the whole inner dimension. Shared memory may be used by others before it, and
    // after the next barrier.
    template <typename Right>
    DEVICE_MEMBER void add_all(ChainShared<PARTS>& memory, const Factor& left, const Factor& right) {
        AlongDepth<PARTS> of_left;
        Right of_right;
        of_left.take(left, 0), of_right.take(right, 0);
        __syncthreads();
        of_left.put(memory.left[0]), of_right.put(memory.right[0]);
        const uint32_t steps = (left.depth + CHAIN_STEP - 1) / CHAIN_STEP;
        for (uint32_t step = 0; step < steps; ++step) {
            // This step's elements are there, and all are done with those of the last, whose place is next.
            __syncthreads();
            const bool goes_on = step + 1 < steps;
            const uint32_t next = (step + 1) * CHAIN_STEP;
            if (goes_on) of_left.take(left, next), of_right.take(right, next);
            add(memory.left[step % 2], memory.right[step % 2]);
            if (goes_on) of_left.put(memory.left[(step + 1) % 2]), of_right.put(memory.right[(step + 1) % 2]);
        }
    }
};

template <uint32_t PARTS>
DEVICE void chain_tile(const LinearArguments& given) {
    constexpr uint32_t SIDE = 64 * PARTS;
    const Place tile =
        place_of(blockIdx.x, (given.rows + SIDE - 1) / SIDE, (given.columns + SIDE - 1) / SIDE);
    const uint32_t first_row = tile.row * SIDE, first_column = tile.column * SIDE;
    const Factor x{given.x, first_row, given.rows, given.depth, given.x_aligned};
    const Factor weight{given.weight, first_column, given.columns, given.depth, given.weight_aligned};
    Chains<PARTS> chains;
    chains.template add_all<AlongDepth<PARTS>>(shared<ChainShared<PARTS>>(), x, weight);
#pragma unroll
    for (uint32_t part = 0; part < PARTS; ++part) {
        const uint32_t column = first_column + part * 64 + chains.column;
        const Quad bias = bias_of(given, column);
#pragma unroll
        for (uint32_t i = 0; i < 4 * PARTS; ++i)
            finish(given, first_row + i / 4 * 64 + chains.row + i % 4, column, chains.four(i, part), bias);
    }
}

}  // namespace linear
