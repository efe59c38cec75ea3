// Normalisation of rows and of heads.
//
// A row belongs to a block, a head to some lanes of a warp: a team. Who sums which elements, and in which
// order, follows from the length of the row or head alone. The reference sums in 32 lanes instead, so the
// results differ by rounding. Variances are taken around the mean, from values that stay in registers
// where a batch of pieces is all that a thread has of the row.
#include "piece.cuh"

// Elements of a row or head that a thread has: every `team`-th piece from its own number on, `HELD` of
// them at a time.
template <uint32_t HELD>
struct Share {
    View view;
    uint64_t begin;
    uint32_t columns, thread, team;
    bool wide;
    Eight x[HELD];

    DEVICE_MEMBER uint32_t batches() const {
        return (columns + EIGHT * team * HELD - 1) / (EIGHT * team * HELD);
    }
    DEVICE_MEMBER uint32_t column(uint32_t batch, uint32_t n) const {
        return EIGHT * (thread + team * (batch * HELD + n));
    }
    DEVICE_MEMBER uint32_t width(uint32_t batch, uint32_t n) const {
        return width_of_piece(column(batch, n), columns);
    }

    DEVICE_MEMBER void load(uint32_t batch) {
        Fetched fetched[HELD];
#pragma unroll
        for (uint32_t n = 0; n < HELD; ++n)
            fetched[n] = fetch_piece(view, begin + column(batch, n), width(batch, n), wide);
#pragma unroll
        for (uint32_t n = 0; n < HELD; ++n) x[n] = fetched[n].widened();
    }

    // As `load`, unless the only batch is still there.
    DEVICE_MEMBER void load_again(uint32_t batch) {
        if (batches() > 1) load(batch);
    }

    DEVICE_MEMBER float sum() {
        float sum = 0;
        for (uint32_t batch = 0; batch < batches(); ++batch) {
            load(batch);
#pragma unroll
            for (uint32_t n = 0; n < HELD; ++n) sum += sum_of_piece(x[n]);
        }
        return sum;
    }

    // Of what `sum` has loaded.
    DEVICE_MEMBER float deviation(float mean) {
        float sum = 0;
        for (uint32_t batch = 0; batch < batches(); ++batch) {
            load_again(batch);
#pragma unroll
            for (uint32_t n = 0; n < HELD; ++n) sum += squares(batch, n, mean);
        }
        return sum;
    }

    DEVICE_MEMBER float sum_of_squares() {
        float sum = 0;
        for (uint32_t batch = 0; batch < batches(); ++batch) {
            load(batch);
#pragma unroll
            for (uint32_t n = 0; n < HELD; ++n) sum += squares(batch, n, 0);
        }
        return sum;
    }

private:
    DEVICE_MEMBER float squares(uint32_t batch, uint32_t n, float mean) const {
        float sum = 0;
#pragma unroll
        for (uint32_t i = 0; i < EIGHT; ++i) {
            float off = i < width(batch, n) ? x[n].at[i] - mean : 0.0f;
            sum = fmaf(off, off, sum);
        }
        return sum;
    }
};

// The sum over teams of so many adjacent lanes, a power of two; all of them get the same.
DEVICE float sum_over_lanes(float x, uint32_t team) {
    for (uint32_t mask = team / 2; mask; mask /= 2) x += __shfl_xor_sync(~0u, x, int(mask));
    return x;
}

DEVICE float reciprocal_root(float variance, float eps) { return 1.0f / sqrtf(variance + eps); }

// --- rows --------------------------------------------------------------------------------------

constexpr uint32_t ROW_THREADS = 128;
// Rows of up to 4096 elements are read once.
using RowShare = Share<4>;

struct RowShared {
    float sums[2][ROW_THREADS / 32];
};

DEVICE RowShare share_of_row(const View& view, uint32_t columns) {
    uint64_t begin = uint64_t(blockIdx.x) * columns;
    return {view, begin, columns, threadIdx.x, ROW_THREADS, is_wide(view, columns), {}};
}

// The sum over the block; `sums` is for this one alone.
DEVICE float sum_over_block(float x, float (&sums)[ROW_THREADS / 32]) {
    x = sum_over_lanes(x, 32);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// A vector that all rows share.
struct Table {
    View view;
    bool wide;
    DEVICE_MEMBER Fetched at(uint32_t column, uint32_t width) const {
        return fetch_piece(view, column, width, wide);
    }
};

DEVICE Table table(const View& view, uint32_t columns) { return {view, is_wide(view, columns)}; }

struct RmsNormArguments {
    View x, weight, target;
    uint32_t columns;
    float eps;
};

// target = x / sqrt(mean(x^2) + eps) * weight
KERNEL(rms_norm, ROW_THREADS, RmsNormArguments) {
    RowShare row = share_of_row(given.x, given.columns);
    float squares = sum_over_block(row.sum_of_squares(), shared<RowShared>().sums[0]);
    float factor = reciprocal_root(squares / float(given.columns), given.eps);
    Table weights = table(given.weight, given.columns);
    bool wide = is_wide(given.target, given.columns);
    for (uint32_t batch = 0; batch < row.batches(); ++batch) {
        row.load_again(batch);
#pragma unroll
        for (uint32_t n = 0; n < 4; ++n) {
            uint32_t column = row.column(batch, n), width = row.width(batch, n);
            Eight y = row.x[n], weight = weights.at(column, width).widened();
#pragma unroll
            for (uint32_t i = 0; i < EIGHT; ++i) y.at[i] = y.at[i] * factor * weight.at[i];
            store_piece(given.target, row.begin + column, width, wide, y);
        }
    }
}

struct LayerNormArguments {
    View x, weight, bias;
    View shift, scale;  // without data if there is no modulation
    View target;
    uint32_t columns;
    float eps;
};

// target = ((x - mean) / sqrt(variance + eps) * weight + bias) * (1 + scale) + shift
KERNEL(layer_norm, ROW_THREADS, LayerNormArguments) {
    RowShare row = share_of_row(given.x, given.columns);
    auto& sums = shared<RowShared>().sums;
    float mean = sum_over_block(row.sum(), sums[0]) / float(given.columns);
    float variance = sum_over_block(row.deviation(mean), sums[1]) / float(given.columns);
    float factor = reciprocal_root(variance, given.eps);
    Table weights = table(given.weight, given.columns), biases = table(given.bias, given.columns);
    Table shifts = table(given.shift, given.columns), scales = table(given.scale, given.columns);
    bool wide = is_wide(given.target, given.columns), is_modulated = given.shift.data;
    for (uint32_t batch = 0; batch < row.batches(); ++batch) {
        row.load_again(batch);
#pragma unroll
        for (uint32_t n = 0; n < 4; ++n) {
            uint32_t column = row.column(batch, n), width = row.width(batch, n);
            Fetched weight = weights.at(column, width), bias = biases.at(column, width), shift{}, scale{};
            if (is_modulated) {
                shift = shifts.at(column, width);
                scale = scales.at(column, width);
            }
            Eight y = row.x[n], a = weight.widened(), b = bias.widened();
#pragma unroll
            for (uint32_t i = 0; i < EIGHT; ++i)
                y.at[i] = fmaf((y.at[i] - mean) * factor, a.at[i], b.at[i]);
            if (is_modulated) {
                a = scale.widened(), b = shift.widened();
#pragma unroll
                for (uint32_t i = 0; i < EIGHT; ++i) y.at[i] = fmaf(y.at[i], 1.0f + a.at[i], b.at[i]);
            }
            store_piece(given.target, row.begin + column, width, wide, y);
        }
    }
}

// --- heads -------------------------------------------------------------------------------------

constexpr uint32_t HEAD_THREADS = 256;

struct QkNormArguments {
    View x;             // [heads, size]: all heads of all rows
    View weight, bias;  // [size]
    View cos, sin;      // [positions, size / 2], f32; without data if nothing is turned
    uint32_t heads, heads_of_row, size;
    uint32_t team;       // lanes that share a head, a power of two up to 32
    uint32_t first_row;  // rows before it are not turned
    float eps;
};

// Half a piece of a table of angles, one angle for each pair.
DEVICE Words fetch_angles(const View& view, uint64_t first, uint32_t width, bool wide) {
    const auto* from = static_cast<const uint32_t*>(view.data) + first;
    if (wide && width) return *reinterpret_cast<const Words*>(from);
    Words words{};
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        if (2 * i < width) words.at[i] = from[i];
    }
    return words;
}

// Turns each adjacent pair. Rounded as the reference does, which fuses nothing here.
DEVICE void turn(Eight& x, const Words& cos, const Words& sin) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        float a = x.at[2 * i], b = x.at[2 * i + 1];
        float c = __uint_as_float(cos.at[i]), s = __uint_as_float(sin.at[i]);
        x.at[2 * i] = __fmul_rn(a, c) - __fmul_rn(b, s);
        x.at[2 * i + 1] = __fmul_rn(b, c) + __fmul_rn(a, s);
    }
}

// x = turned((x - mean) / sqrt(variance + eps) * weight + bias), head by head. Heads of up to 256 are read
// once. Lanes without a head go along for the sake of the others.
KERNEL(qk_norm, HEAD_THREADS, QkNormArguments) {
    uint32_t number = blockIdx.x * (HEAD_THREADS / given.team) + threadIdx.x / given.team;
    uint32_t size = number < given.heads ? given.size : 0;
    uint32_t row = number / given.heads_of_row;
    bool is_turned = size && given.cos.data && row >= given.first_row;
    uint64_t angles = is_turned ? uint64_t(row - given.first_row) * (size / 2) : 0;

    Share<1> head{given.x, uint64_t(number) * size, size, threadIdx.x % given.team, given.team,
                  is_wide(given.x, given.size), {}};
    Table weights = table(given.weight, given.size), biases = table(given.bias, given.size);
    bool wide_cos = is_wide(given.cos, given.size), wide_sin = is_wide(given.sin, given.size);
    Fetched weight, bias;
    Words cos{}, sin{};
    auto fetch_tables = [&](uint32_t batch) {
        uint32_t column = head.column(batch, 0), width = head.width(batch, 0);
        weight = weights.at(column, width);
        bias = biases.at(column, width);
        if (!is_turned) return;
        cos = fetch_angles(given.cos, angles + column / 2, width, wide_cos);
        sin = fetch_angles(given.sin, angles + column / 2, width, wide_sin);
    };
    // On their way while the head is summed.
    fetch_tables(0);

    float mean = sum_over_lanes(head.sum(), given.team) / float(given.size);
    float variance = sum_over_lanes(head.deviation(mean), given.team) / float(given.size);
    float factor = reciprocal_root(variance, given.eps);
    for (uint32_t batch = 0; batch < head.batches(); ++batch) {
        head.load_again(batch);
        if (batch) fetch_tables(batch);
        Eight y = head.x[0], a = weight.widened(), b = bias.widened();
#pragma unroll
        for (uint32_t i = 0; i < EIGHT; ++i) y.at[i] = fmaf((y.at[i] - mean) * factor, a.at[i], b.at[i]);
        if (is_turned) turn(y, cos, sin);
        store_piece(given.x, head.begin + head.column(batch, 0), head.width(batch, 0), head.wide, y);
    }
}
