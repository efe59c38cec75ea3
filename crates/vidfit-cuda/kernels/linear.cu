// Matrix products.
#include "linear_f32.cuh"
#include "linear_tensor.cuh"

// target = activation(x weightT + bias). Grids are one block for each tile of the result, in x.

KERNEL(linear_f16, linear::TENSOR_THREADS, LinearArguments) {
    linear::tensor_tile<f16, 128>(given);
}
// The same for few rows or columns.
KERNEL(linear_f16_small, linear::TENSOR_THREADS, LinearArguments) {
    linear::tensor_tile<f16, 64>(given);
}
// Tensor cores multiply bf16 from sm_80 on.
#if __CUDA_ARCH__ >= 800
KERNEL(linear_bf16, linear::TENSOR_THREADS, LinearArguments) {
    linear::tensor_tile<bf16, 128>(given);
}
KERNEL(linear_bf16_small, linear::TENSOR_THREADS, LinearArguments) {
    linear::tensor_tile<bf16, 64>(given);
}
#endif
// For all other types, and for those that a card's tensor cores do not multiply: bf16 before sm_80.
PACKED_KERNEL(linear_f32, linear::CHAIN_THREADS, 2, LinearArguments) {
    linear::chain_tile<2>(given);
}
KERNEL(linear_f32_small, linear::CHAIN_THREADS, LinearArguments) {
    linear::chain_tile<1>(given);
}

constexpr uint32_t LOW_RANK_TERMS = 64;

struct LowRankTerm {
    View a;  // [rank, columns]
    View b;  // [rows, rank]
    uint32_t rank;
    float factor;
    uint32_t a_aligned, b_aligned;
};

struct LowRankArguments {
    View weight;  // [rows, columns]
    uint32_t rows, columns;
    uint32_t aligned;
    uint32_t terms;
    LowRankTerm term[LOW_RANK_TERMS];
};

// weight += the sum of factor b a, in the order of the terms, rounded once
KERNEL(low_rank_add, linear::CHAIN_THREADS, LowRankArguments) {
    using namespace linear;
    const Place tile = place_of(blockIdx.x, (given.rows + 63) / 64, (given.columns + 63) / 64);
    const uint32_t first_row = tile.row * 64, first_column = tile.column * 64;
    auto& memory = shared<ChainShared<1>>();
    Chains<1> chains;
    const uint32_t column = first_column + chains.column;
    const auto count = [&](uint32_t i) {
        return first_row + chains.row + i < given.rows && column < given.columns ? given.columns - column : 0;
    };
    const auto place = [&](uint32_t i) { return uint64_t(first_row + chains.row + i) * given.columns + column; };
    Quad sums[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) sums[i] = take_four(given.weight, place(i), count(i), given.aligned);
    for (uint32_t t = 0; t < given.terms; ++t) {
        const LowRankTerm& term = given.term[t];
        const Factor b{term.b, first_row, given.rows, term.rank, term.b_aligned};
        const Factor a{term.a, first_column, given.columns, term.rank, term.a_aligned};
        chains.clear();
        chains.add_all<AcrossDepth<1>>(memory, b, a);
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j)
                sums[i].at[j] = __fadd_rn(sums[i].at[j], __fmul_rn(term.factor, chains.sums[i][j]));
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
        put_four(given.weight, place(i), count(i), given.aligned, sums[i]);
}
