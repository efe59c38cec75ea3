// Attention for heads of 64 on tensor cores (Dao 2023, "FlashAttention-2").
//
// A block takes 128 queries of a head, each of its four warps 32, and walks over the keys, 64 at a time, from
// the first to the last. Scores and sums are f32 and stay in registers; the weights of a tile are rounded to
// the type of the values there, and are the next product's operand as they lie. The products of a tile's
// values are made beside the powers of the next tile: the tensor cores have work while those are waited for.
//
// What a lane holds is described in matrix.cuh: of each 16 queries those of the rows lane / 4 and lane / 4 + 8.
#pragma once
#include "attention.cuh"
#include "matrix.cuh"

constexpr uint32_t ATTENTION_KEYS = 64;
constexpr uint32_t ATTENTION_THREADS = 128;
constexpr uint32_t ATTENTION_WARP_QUERIES = 32;
constexpr uint32_t HEAD_CHUNKS = 8;  // 64 elements of 2 bytes
constexpr uint32_t ATTENTION_TILE = ATTENTION_KEYS * HEAD_CHUNKS;

// Before the first values, the queries lie in their place; after the last, the result lies over all tiles.
// Two blocks without biases fit on an sm_75.
template <bool BIASED>
struct AttentionShared {
    Chunk tiles[4 * ATTENTION_TILE];  // two of keys, two of values
};
template <>
struct AttentionShared<true> {
    Chunk tiles[4 * ATTENTION_TILE];
    float bias[2][192];  // times log2 e, by key - query + 127 within the tile
};
static_assert(sizeof(Chunk) * 4 * ATTENTION_TILE == sizeof(float) * ATTENTION_QUERIES * 64, "the result fits");

#ifdef __CUDACC_RTC__

#if __CUDA_ARCH__ >= 800

DEVICE uint32_t pair_of(float low, float high, f16) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
DEVICE uint32_t pair_of(float low, float high, bf16) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#else

DEVICE uint32_t pair_of(float low, float high, f16) {
    return uint32_t(narrow_f16(low).bits) | uint32_t(narrow_f16(high).bits) << 16;
}

#endif

#else

template <typename Half>
DEVICE uint32_t pair_of(float low, float high, Half) {
    return uint32_t(narrow(low, Half{}).bits) | uint32_t(narrow(high, Half{}).bits) << 16;
}

#endif

// Begins to copy ROWS rows of a head, from row `first` on. Rows beyond the last are zeros.
template <uint32_t ROWS>
DEVICE void begin_head_rows(Chunk* to, const View& from, uint32_t first, const AttentionArguments& given) {
    const uint32_t chunk = threadIdx.x % HEAD_CHUNKS;
    const uint16_t* source = static_cast<const uint16_t*>(from.data) + blockIdx.y * 64 + chunk * 8;
    if (given.aligned) {
#pragma unroll
        for (uint32_t i = 0; i < ROWS * HEAD_CHUNKS; i += ATTENTION_THREADS) {
            const uint32_t row = i / HEAD_CHUNKS + threadIdx.x / HEAD_CHUNKS;
            const bool inside = first + row < given.rows;
            const uint64_t offset = inside ? (first + row) * given.columns : 0;
            begin_copy(&to[swizzled<HEAD_CHUNKS>(row, chunk)], source + offset, inside ? 16 : 0);
        }
    } else {
#pragma unroll 1
        for (uint32_t i = 0; i < ROWS * HEAD_CHUNKS; i += ATTENTION_THREADS) {
            const uint32_t row = i / HEAD_CHUNKS + threadIdx.x / HEAD_CHUNKS;
            Chunk elements = {};
            if (first + row < given.rows) {
                const uint16_t* place = source + (first + row) * given.columns;
#pragma unroll
                for (uint32_t e = 0; e < 8; ++e) elements.words[e / 2] |= uint32_t(place[e]) << (e % 2 * 16);
            }
            to[swizzled<HEAD_CHUNKS>(row, chunk)] = elements;
        }
    }
}

// The biases that a block's queries, from `first_query` on, meet in a tile of keys.
DEVICE void load_biases(float* to, uint32_t first_query, uint32_t first_key, const AttentionArguments& given) {
    const int64_t count = 2 * int64_t(given.rows) - 1;
    const int64_t first = int64_t(first_key) - first_query - (ATTENTION_QUERIES - 1) + given.rows - 1;
    for (uint32_t i = threadIdx.x; i < ATTENTION_QUERIES + ATTENTION_KEYS - 1; i += ATTENTION_THREADS) {
        // What lies outside belongs to queries or keys that there are not.
        const bool inside = first + i >= 0 && first + i < count;
        to[i] = inside ? given.bias.get(blockIdx.y * count + first + i) * LOG2_E : 0.0f;
    }
}

// A warp's 32 queries: two times 16.
template <typename Half, bool BIASED>
struct AttentionWarp {
    uint32_t queries[2][4][4];  // by 16 elements of the head
    float scores[2][8][4];      // by 8 keys
    uint32_t weights[4][2][4];  // by 16 keys
    float sums[2][8][4] = {};   // by 8 elements of the head
    // Of each row: the largest score times `scale`, the weights' sum in this lane's columns, and what the
    // last tile made of all earlier weights.
    float top[2][2], total[2][2] = {}, factor[2][2];

    DEVICE_MEMBER void take_queries(const Chunk* rows) {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m) {
            top[m][0] = top[m][1] = no_score();
#pragma unroll
            for (uint32_t step = 0; step < 4; ++step)
                load_matrices(queries[m][step],
                              &rows[swizzled<HEAD_CHUNKS>(m * 16 + lane % 16, step * 2 + lane / 16)]);
        }
    }

    // Scores of a tile. By elements of the head first, so that sixteen sums are independent of each other.
    DEVICE_MEMBER void score(const Chunk* keys) {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m)
#pragma unroll
            for (uint32_t n = 0; n < 8; ++n)
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) scores[m][n][i] = 0.0f;
#pragma unroll
        for (uint32_t step = 0; step < 4; ++step) {
#pragma unroll
            for (uint32_t n = 0; n < 8; n += 2) {
                uint32_t b[4];
                load_matrices(b, &keys[swizzled<HEAD_CHUNKS>(n * 8 + lane % 8 + lane / 16 * 8,
                                                             step * 2 + lane / 8 % 2)]);
#pragma unroll
                for (uint32_t m = 0; m < 2; ++m) {
                    multiply(scores[m][n], queries[m][step], b[0], b[1], Half{});
                    multiply(scores[m][n + 1], queries[m][step], b[2], b[3], Half{});
                }
            }
        }
    }

    // Adds the biases; from here on, scores are in the powers' units.
    DEVICE_MEMBER void add_biases(const float* biases, float scale) {
        const uint32_t lane = threadIdx.x % 32;
        const uint32_t row = threadIdx.x / 32 * ATTENTION_WARP_QUERIES + lane / 4, column = lane % 4 * 2;
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m)
#pragma unroll
            for (uint32_t n = 0; n < 8; ++n)
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) {
                    const uint32_t query = row + m * 16 + i / 2 * 8, key = n * 8 + column + i % 2;
                    scores[m][n][i] = fmaf(scores[m][n][i], scale, biases[key + ATTENTION_QUERIES - 1 - query]);
                }
    }

    // Leaves only the first `keys` of the tile.
    DEVICE_MEMBER void mask(uint32_t keys) {
        const uint32_t column = threadIdx.x % 4 * 2;
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m)
#pragma unroll
            for (uint32_t n = 0; n < 8; ++n)
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i)
                    if (n * 8 + column + i % 2 >= keys) scores[m][n][i] = no_score();
    }

    // What the powers are relative to.
    DEVICE_MEMBER void find_tops(float scale) {
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m)
#pragma unroll
            for (uint32_t r = 0; r < 2; ++r) {
                float most = scores[m][0][2 * r];
#pragma unroll
                for (uint32_t n = 0; n < 8; ++n)
                    most = fmaxf(most, fmaxf(scores[m][n][2 * r], scores[m][n][2 * r + 1]));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
                most = fmaxf(top[m][r], BIASED ? most : most * scale);
                factor[m][r] = two_to(top[m][r] - most);
                top[m][r] = most;
                total[m][r] *= factor[m][r];
            }
    }

    // Scores of sixteen keys become weights.
    DEVICE_MEMBER void soften(uint32_t step, float scale) {
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m)
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i) {
                const uint32_t r = i % 2, n = 2 * step + i / 2;
                const float low = two_to(fmaf(scores[m][n][2 * r], BIASED ? 1.0f : scale, -top[m][r]));
                const float high = two_to(fmaf(scores[m][n][2 * r + 1], BIASED ? 1.0f : scale, -top[m][r]));
                total[m][r] += low + high;
                weights[step][m][i] = pair_of(low, high, Half{});
            }
    }

    // Adds sixteen keys' values, by their weights.
    DEVICE_MEMBER void add_values(uint32_t step, const Chunk* values) {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (uint32_t n = 0; n < 8; n += 2) {
            uint32_t b[4];
            load_matrices_transposed(b, &values[swizzled<HEAD_CHUNKS>(step * 16 + lane % 16, n + lane / 16)]);
#pragma unroll
            for (uint32_t m = 0; m < 2; ++m) {
                multiply(sums[m][n], weights[step][m], b[0], b[1], Half{});
                multiply(sums[m][n + 1], weights[step][m], b[2], b[3], Half{});
            }
        }
    }

    // Makes the sums relative to the new tops. Soon these change so seldom that asking pays; a product with
    // 1 is exact, so it changes no bit.
    DEVICE_MEMBER void rescale() {
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m) {
            if (!__any_sync(~0u, factor[m][0] != 1.0f || factor[m][1] != 1.0f)) continue;
#pragma unroll
            for (uint32_t n = 0; n < 8; ++n)
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i) sums[m][n][i] *= factor[m][i / 2];
        }
    }

    // Writes the result to the warp's own memory, 32 x 64; eight elements of row r lie where others of row 0
    // do, so that rows are in different banks.
    DEVICE_MEMBER void finish(float* result) {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (uint32_t m = 0; m < 2; ++m)
#pragma unroll
            for (uint32_t r = 0; r < 2; ++r) {
                float all = total[m][r];
                all += __shfl_xor_sync(~0u, all, 1);
                all += __shfl_xor_sync(~0u, all, 2);
                const float inverse = 1.0f / all;
                float* row = result + (m * 16 + r * 8 + lane / 4) * 64 + lane % 4 * 2;
#pragma unroll
                for (uint32_t n = 0; n < 8; ++n)
#pragma unroll
                    for (uint32_t i = 0; i < 2; ++i) row[(n ^ lane / 4) * 8 + i] = sums[m][n][2 * r + i] * inverse;
            }
    }
};

template <typename Half, bool BIASED>
DEVICE void attend(const AttentionArguments& given) {
    auto& memory = shared<AttentionShared<BIASED>>();
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t first_query = (given.first_block + blockIdx.x) * ATTENTION_QUERIES;
    const uint32_t tiles = (given.rows + ATTENTION_KEYS - 1) / ATTENTION_KEYS;
    const auto keys = [&](uint32_t tile) { return memory.tiles + tile % 2 * ATTENTION_TILE; };
    const auto values = [&](uint32_t tile) { return memory.tiles + (2 + tile % 2) * ATTENTION_TILE; };
    const auto begin_keys = [&](uint32_t tile) {
        if (tile == tiles) return;
        const uint32_t first_key = tile * ATTENTION_KEYS;
        begin_head_rows<ATTENTION_KEYS>(keys(tile), given.keys, first_key, given);
        if constexpr (BIASED) load_biases(memory.bias[tile % 2], first_query, first_key, given);
    };
    const auto begin_values = [&](uint32_t tile) {
        begin_head_rows<ATTENTION_KEYS>(values(tile), given.values, tile * ATTENTION_KEYS, given);
    };
    AttentionWarp<Half, BIASED> rows;
    const auto score = [&](uint32_t tile) {
        rows.score(keys(tile));
        if constexpr (BIASED) rows.add_biases(memory.bias[tile % 2], given.scale);
        if (tile + 1 == tiles) rows.mask(given.rows - tile * ATTENTION_KEYS);
    };

    begin_keys(0);
    begin_head_rows<ATTENTION_QUERIES>(values(0), given.queries, first_query, given);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    rows.take_queries(values(0) + warp * ATTENTION_WARP_QUERIES * HEAD_CHUNKS);
    __syncthreads();
    begin_keys(1);
    begin_values(0);
    commit_copies();
    score(0);
    rows.find_tops(given.scale);
#pragma unroll
    for (uint32_t step = 0; step < 4; ++step) rows.soften(step, given.scale);

    for (uint32_t tile = 1; tile < tiles; ++tile) {
        // This tile's keys and the last one's values are there, and nobody reads what lay before them.
        wait_copies<0>();
        __syncthreads();
        begin_keys(tile + 1);
        begin_values(tile);
        commit_copies();
        score(tile);
        rows.add_values(0, values(tile - 1));
        rows.find_tops(given.scale);
#pragma unroll
        for (uint32_t step = 1; step < 4; ++step) {
            rows.add_values(step, values(tile - 1));
            rows.soften(step - 1, given.scale);
        }
        rows.soften(3, given.scale);
        rows.rescale();
    }
    wait_copies<0>();
    __syncthreads();
#pragma unroll
    for (uint32_t step = 0; step < 4; ++step) rows.add_values(step, values(tiles - 1));

    __syncthreads();
    float* result = reinterpret_cast<float*>(memory.tiles) + warp * ATTENTION_WARP_QUERIES * 64;
    rows.finish(result);
    __syncwarp();
    const uint32_t first_row = first_query + warp * ATTENTION_WARP_QUERIES;
    const uint64_t first_column = given.first_column + blockIdx.y * 64;
    for (uint32_t i = threadIdx.x % 32; i < ATTENTION_WARP_QUERIES * 64; i += 32) {
        const uint32_t row = i / 64, column = i % 64;
        if (first_row + row >= given.rows) break;
        given.target.put((first_row + row) * given.target_columns + first_column + column,
                         result[row * 64 + (column ^ row % 8 * 8)]);
    }
}
