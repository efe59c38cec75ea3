// Attention in f32 throughout, for operands of any type and heads of up to WIDTH elements.
//
// A block makes its 128 queries QUERIES at a time, two threads a query, and walks over the keys, 32 at a time.
// A thread has four queries, and of them four keys' scores and every eighth four elements of the result; the
// eight threads that share queries are neighbours in a warp. Elements beyond the head's are zeros, which
// change no sum.
#pragma once
#include "attention.cuh"

constexpr uint32_t EXACT_KEYS = 32;

// Rows are longer by 16 bytes than what is in them, so that the same place of eight rows is in different banks.
template <uint32_t WIDTH, uint32_t QUERIES>
struct ExactShared {
    alignas(16) float queries[QUERIES][WIDTH + 4];
    float rows[EXACT_KEYS][WIDTH + 4];  // keys, then values
    float weights[QUERIES][EXACT_KEYS + 4];
};

// Loads rows of a head, from row `first` on, times `factor`.
template <uint32_t WIDTH, uint32_t THREADS, uint32_t ROWS>
DEVICE void load_head_rows(float (&to)[ROWS][WIDTH + 4], const View& from, uint32_t first, float factor,
                           const AttentionArguments& given) {
    const uint64_t first_column = blockIdx.y * uint64_t(given.head_dim);
    for (uint32_t i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
        const uint32_t row = i / WIDTH, column = i % WIDTH;
        const bool inside = first + row < given.rows && column < given.head_dim;
        to[row][column] =
            inside ? from.get((first + row) * given.columns + first_column + column) * factor : 0.0f;
    }
}

template <uint32_t WIDTH, uint32_t QUERIES>
DEVICE void attend_exactly_from(uint32_t first_query, const AttentionArguments& given) {
    constexpr uint32_t THREADS = 2 * QUERIES, PARTS = WIDTH / 32;
    auto& memory = shared<ExactShared<WIDTH, QUERIES>>();
    const uint32_t own = threadIdx.x / 8 * 4;  // the first of this thread's queries
    const uint32_t part = threadIdx.x % 8;
    float sums[4][PARTS][4] = {}, total[4] = {};
    float top[4] = {no_score(), no_score(), no_score(), no_score()};

    load_head_rows<WIDTH, THREADS>(memory.queries, given.queries, first_query, given.scale, given);
    for (uint32_t first_key = 0; first_key < given.rows; first_key += EXACT_KEYS) {
        __syncthreads();
        load_head_rows<WIDTH, THREADS>(memory.rows, given.keys, first_key, 1.0f, given);
        __syncthreads();
        float scores[4][4] = {};  // of keys `part`, `part + 8`, ...
#pragma unroll 4
        for (uint32_t d = 0; d < WIDTH; d += 4) {
            float q[4][4], k[4][4];
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
                for (uint32_t e = 0; e < 4; ++e) {
                    q[i][e] = memory.queries[own + i][d + e];
                    k[i][e] = memory.rows[part + 8 * i][d + e];
                }
#pragma unroll
            for (uint32_t e = 0; e < 4; ++e)
#pragma unroll
                for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
                    for (uint32_t j = 0; j < 4; ++j) scores[i][j] = fmaf(q[i][e], k[j][e], scores[i][j]);
        }
        __syncthreads();
        load_head_rows<WIDTH, THREADS>(memory.rows, given.values, first_key, 1.0f, given);

#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t query = first_query + own + i;
            float most = top[i];
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                const uint32_t key = first_key + part + 8 * j;
                if (key >= given.rows) scores[i][j] = no_score();
                else if (given.bias.data && query < given.rows)
                    scores[i][j] = fmaf(given.bias.get(blockIdx.y * (2 * uint64_t(given.rows) - 1) + key +
                                                       (given.rows - 1 - query)),
                                        LOG2_E, scores[i][j]);
                most = fmaxf(most, scores[i][j]);
            }
#pragma unroll
            for (int other = 1; other < 8; other *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, other));
            const float factor = two_to(top[i] - most);
            top[i] = most;
            total[i] *= factor;
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) {
                const float weight = two_to(scores[i][j] - most);
                total[i] += weight;
                memory.weights[own + i][part + 8 * j] = weight;
            }
#pragma unroll
            for (auto& four : sums[i])
#pragma unroll
                for (float& sum : four) sum *= factor;
        }
        __syncthreads();
#pragma unroll 2
        for (uint32_t key = 0; key < EXACT_KEYS; key += 4) {
            float weights[4][4];
#pragma unroll
            for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
                for (uint32_t e = 0; e < 4; ++e) weights[i][e] = memory.weights[own + i][key + e];
#pragma unroll
            for (uint32_t e = 0; e < 4; ++e)
#pragma unroll
                for (uint32_t p = 0; p < PARTS; ++p) {
                    float v[4];
#pragma unroll
                    for (uint32_t x = 0; x < 4; ++x) v[x] = memory.rows[key + e][p * 32 + part * 4 + x];
#pragma unroll
                    for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
                        for (uint32_t x = 0; x < 4; ++x) sums[i][p][x] = fmaf(weights[i][e], v[x], sums[i][p][x]);
                }
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        float all = total[i];
#pragma unroll
        for (int other = 1; other < 8; other *= 2) all += __shfl_xor_sync(~0u, all, other);
        const uint32_t query = first_query + own + i;
        if (query >= given.rows) continue;
        const float inverse = 1.0f / all;
        const uint64_t row = query * given.target_columns + given.first_column + blockIdx.y * uint64_t(given.head_dim);
#pragma unroll
        for (uint32_t p = 0; p < PARTS; ++p)
#pragma unroll
            for (uint32_t x = 0; x < 4; ++x) {
                const uint32_t column = p * 32 + part * 4 + x;
                if (column < given.head_dim) given.target.put(row + column, sums[i][p][x] * inverse);
            }
    }
}

template <uint32_t WIDTH, uint32_t QUERIES>
DEVICE void attend_exactly(const AttentionArguments& given) {
    const uint32_t first = (given.first_block + blockIdx.x) * ATTENTION_QUERIES;
    for (uint32_t done = 0; done < ATTENTION_QUERIES && first + done < given.rows; done += QUERIES)
        attend_exactly_from<WIDTH, QUERIES>(first + done, given);
}
