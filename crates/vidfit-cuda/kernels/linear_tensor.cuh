// Products of f16 with f16, and bf16 with bf16, on tensor cores.
//
// A block of four warps makes a square tile of the result, each warp a quarter of it. Every sum takes the
// inner dimension from its beginning to its end, 16 elements a time, in f32; so neither the side of the
// tile nor the number of rows changes a bit.
//
// Operands go through shared memory in steps of 32 elements. From sm_80 on they are copied there beside the
// arithmetic, several steps ahead. On sm_75 registers take the next step's elements while this one's are
// multiplied. Rows that are not aligned to 16 bytes are put together of single elements.
#pragma once
#include "linear.cuh"

namespace linear {

constexpr uint32_t TENSOR_THREADS = 128;
// Elements of a step, and chunks of eight.
constexpr uint32_t STEP = 32, STEP_CHUNKS = STEP / 8;

#if __CUDA_ARCH__ >= 800
// 48 KB of shared memory for tiles of either side: two blocks find room in the 100 KB of the smallest cards.
template <uint32_t SIDE>
constexpr uint32_t STAGES = 384 / SIDE;
#else
// 32 KB for the larger: two blocks find room in 64 KB.
template <uint32_t SIDE>
constexpr uint32_t STAGES = 2;
#endif

// A step of both operands. Chunks lie where `swizzled` says.
template <uint32_t SIDE>
struct Stage {
    Chunk x[SIDE * STEP_CHUNKS], weight[SIDE * STEP_CHUNKS];
};

template <uint32_t SIDE>
union TensorShared {
    Stage<SIDE> stages[STAGES<SIDE>];
    // Sixteen rows of each warp's sums on their way out. Rows are so long that neither the writes in pairs
    // nor the reads in fours meet in a bank.
    float sums[4][16][SIDE / 2 + 8];
};

// The rows of an operand that a block reads.
struct Rows {
    const uint16_t* elements;  // of the first
    uint32_t count;
    uint32_t depth;
    uint32_t aligned;

    DEVICE_MEMBER Rows(const View& operand, uint32_t first, uint32_t end, uint32_t depth, uint32_t aligned)
        : elements(static_cast<const uint16_t*>(operand.data) + uint64_t(first) * depth),
          count(end - first),
          depth(depth),
          aligned(aligned) {}
};

// Eight elements of which the first `count` exist.
DEVICE Chunk gather(const uint16_t* from, uint32_t count) {
    Chunk chunk = {};
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i)
        if (i < count) chunk.words[i / 2] |= uint32_t(from[i]) << (i % 2 * 16);
    return chunk;
}

// A thread's chunks of a step: of every 32nd row one.
template <uint32_t SIDE, typename Body>
DEVICE void for_each_chunk(const Rows& rows, uint32_t first, Body body) {
    const uint32_t chunk = threadIdx.x % STEP_CHUNKS, k = first + chunk * 8;
    const uint32_t length = k < rows.depth ? least(rows.depth - k, 8) : 0;
#pragma unroll
    for (uint32_t i = 0; i < SIDE / 32; ++i) {
        const uint32_t row = threadIdx.x / STEP_CHUNKS + i * 32;
        const uint32_t count = row < rows.count ? length : 0;
        const uint16_t* from = rows.elements + (count ? uint64_t(row) * rows.depth + k : 0);
        body(i, swizzled<STEP_CHUNKS>(row, chunk), from, count);
    }
}

#if __CUDA_ARCH__ >= 800

template <uint32_t SIDE>
DEVICE void copy_rows(Chunk* to, const Rows& rows, uint32_t first) {
    for_each_chunk<SIDE>(rows, first, [&](uint32_t, uint32_t place, const uint16_t* from, uint32_t count) {
        if (rows.aligned) begin_copy(&to[place], from, count * 2);
        else to[place] = gather(from, count);
    });
}

#else

// What a thread has taken from memory and not yet put into shared memory.
template <uint32_t SIDE>
struct Taken {
    Chunk chunks[SIDE / 32];

    DEVICE_MEMBER void take(const Rows& rows, uint32_t first) {
        for_each_chunk<SIDE>(rows, first, [&](uint32_t i, uint32_t, const uint16_t* from, uint32_t count) {
            if (!rows.aligned) chunks[i] = gather(from, count);
            else if (count) chunks[i] = *reinterpret_cast<const Chunk*>(from);
            else chunks[i] = {};
        });
    }
    DEVICE_MEMBER void put(Chunk* to) const {
#pragma unroll
        for (uint32_t i = 0; i < SIDE / 32; ++i)
            to[swizzled<STEP_CHUNKS>(threadIdx.x / STEP_CHUNKS + i * 32, threadIdx.x % STEP_CHUNKS)] = chunks[i];
    }
};

#endif

// A warp's quarter of the tile: its sums as `multiply` has them, sixteen rows and eight columns a time.
template <typename T, uint32_t SIDE>
struct Quarter {
    static constexpr uint32_t DOWN = SIDE / 32, ACROSS = SIDE / 16;
    float sums[DOWN][ACROSS][4];
    uint32_t lane, row, column;

    DEVICE_MEMBER Quarter() {
        const uint32_t warp = threadIdx.x / 32;
        lane = threadIdx.x % 32, row = warp / 2 * (SIDE / 2), column = warp % 2 * (SIDE / 2);
#pragma unroll
        for (uint32_t i = 0; i < DOWN; ++i)
#pragma unroll
            for (uint32_t j = 0; j < ACROSS; ++j)
#pragma unroll
                for (uint32_t n = 0; n < 4; ++n) sums[i][j][n] = 0;
    }

    // Adds the products of a step.
    DEVICE_MEMBER void add(const Stage<SIDE>& stage) {
#pragma unroll
        for (uint32_t k = 0; k < STEP_CHUNKS; k += 2) {
            uint32_t right[ACROSS / 2][4];
#pragma unroll
            for (uint32_t j = 0; j < ACROSS / 2; ++j) {
                const uint32_t from = column + j * 16 + lane / 16 * 8 + lane % 8;
                load_matrices(right[j], &stage.weight[swizzled<STEP_CHUNKS>(from, k + lane / 8 % 2)]);
            }
#pragma unroll
            for (uint32_t i = 0; i < DOWN; ++i) {
                uint32_t left[4];
                load_matrices(left, &stage.x[swizzled<STEP_CHUNKS>(row + i * 16 + lane % 16, k + lane / 16)]);
#pragma unroll
                for (uint32_t j = 0; j < ACROSS / 2; ++j) {
                    multiply(sums[i][2 * j], left, right[j][0], right[j][1], T{});
                    multiply(sums[i][2 * j + 1], left, right[j][2], right[j][3], T{});
                }
            }
        }
    }

    // Bias, activation and store. Through shared memory, so that rows are stored in long pieces; what lay
    // there is done with.
    DEVICE_MEMBER void store(const LinearArguments& given, TensorShared<SIDE>& memory, uint32_t first_row,
                             uint32_t first_column) {
        constexpr uint32_t LANES = SIDE / 8;  // of a row, four columns each
        auto& own = memory.sums[threadIdx.x / 32];
        const uint32_t across = lane % LANES * 4, to = first_column + column + across;
        const Quad bias = bias_of(given, to);
#pragma unroll
        for (uint32_t i = 0; i < DOWN; ++i) {
#pragma unroll
            for (uint32_t j = 0; j < ACROSS; ++j) {
                float* place = &own[lane / 4][j * 8 + lane % 4 * 2];
                *reinterpret_cast<Pair*>(place) = {{sums[i][j][0], sums[i][j][1]}};
                place += 8 * (SIDE / 2 + 8);
                *reinterpret_cast<Pair*>(place) = {{sums[i][j][2], sums[i][j][3]}};
            }
            __syncwarp();
            // One copy of the activations' code a time is enough.
#pragma unroll 1
            for (uint32_t r = 0; r < 16; r += 32 / LANES) {
                const uint32_t down = r + lane / LANES;
                const Quad four = *reinterpret_cast<const Quad*>(&own[down][across]);
                finish(given, first_row + row + i * 16 + down, to, four, bias);
            }
            __syncwarp();
        }
    }
};

template <typename T, uint32_t SIDE>
DEVICE void tensor_tile(const LinearArguments& given) {
    auto& memory = shared<TensorShared<SIDE>>();
    const Place tile =
        place_of(blockIdx.x, (given.rows + SIDE - 1) / SIDE, (given.columns + SIDE - 1) / SIDE);
    const uint32_t row = tile.row * SIDE, column = tile.column * SIDE;
    const Rows x(given.x, row, given.rows, given.depth, given.x_aligned);
    const Rows weight(given.weight, column, given.columns, given.depth, given.weight_aligned);
    const uint32_t steps = (given.depth + STEP - 1) / STEP;
    Quarter<T, SIDE> quarter;

#if __CUDA_ARCH__ >= 800
    constexpr uint32_t AHEAD = STAGES<SIDE> - 1;
    const auto copy = [&](uint32_t step) {
        if (step < steps) {
            Stage<SIDE>& stage = memory.stages[step % STAGES<SIDE>];
            copy_rows<SIDE>(stage.x, x, step * STEP);
            copy_rows<SIDE>(stage.weight, weight, step * STEP);
        }
        commit_copies();
    };
#pragma unroll
    for (uint32_t step = 0; step < AHEAD; ++step) copy(step);
    for (uint32_t step = 0; step < steps; ++step) {
        wait_copies<int(AHEAD) - 1>();
        // This step's elements are there, and all are done with those of the last, whose place is next.
        __syncthreads();
        copy(step + AHEAD);
        quarter.add(memory.stages[step % STAGES<SIDE>]);
    }
    wait_copies<0>();
#else
    Taken<SIDE> of_x, of_weight;
    of_x.take(x, 0), of_weight.take(weight, 0);
    of_x.put(memory.stages[0].x), of_weight.put(memory.stages[0].weight);
    for (uint32_t step = 0; step < steps; ++step) {
        // This step's elements are there, and all are done with those of the last, whose place is next.
        __syncthreads();
        const bool goes_on = step + 1 < steps;
        if (goes_on) of_x.take(x, (step + 1) * STEP), of_weight.take(weight, (step + 1) * STEP);
        quarter.add(memory.stages[step % 2]);
        Stage<SIDE>& next = memory.stages[(step + 1) % 2];
        if (goes_on) of_x.put(next.x), of_weight.put(next.weight);
    }
#endif
    __syncthreads();
    quarter.store(given, memory, row, column);
}

}  // namespace linear
