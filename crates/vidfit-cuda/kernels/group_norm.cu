// Group normalisation of frames, channels last: statistics over several frames, and their application to
// one.
//
// Statistics have two stages. A row of a frame belongs to a block. A thread has eight channels of every so
// many pixels, and takes them in four pixels at a time: mean and squared deviation of the four, in
// registers, are merged into those of all before (Chan et al. 1979). So a row is read once, and still no
// variance is a difference of large sums. Then threads are merged to channels and channels to groups; and
// at last, in f64 as the reference does it, rows of frames to groups of all frames. Who has what follows
// from the shape of a frame alone.
#include "math.cuh"
#include "piece.cuh"

constexpr uint32_t GROUP_NORM_THREADS = 256;
constexpr uint32_t GROUP_NORM_PIXELS = 4;  // that a thread holds

// How threads share the pixels of a row: `pieces` threads have the channels of one, `abreast` pixels are
// worked on at a time.
struct Abreast {
    uint32_t pieces, abreast;
    uint32_t pixel, channel;  // the thread's first of each

    DEVICE_MEMBER explicit Abreast(uint32_t channels)
        : pieces((channels + EIGHT - 1) / EIGHT),
          abreast(GROUP_NORM_THREADS / pieces),
          pixel(threadIdx.x / pieces),
          channel(threadIdx.x % pieces * EIGHT) {}
    // Pixels of a row of `width` that belong to the threads whose first one is `pixel`.
    DEVICE_MEMBER uint32_t pixels(uint32_t pixel, uint32_t width) const {
        return pixel < abreast && pixel < width ? (width - pixel + abreast - 1) / abreast : 0;
    }
};

// --- statistics --------------------------------------------------------------------------------

constexpr uint32_t GROUP_NORM_FRAMES = 16;  // of one launch

struct RowMomentsArguments {
    View frames[GROUP_NORM_FRAMES];
    View partials;       // [rows of all frames, groups, 2], f32
    uint64_t first_row;  // of the first frame, in `partials`
    uint32_t height, width, channels, groups;
};

// What each thread has found, by its channels. The rows are four banks more than a multiple of 32 long: the
// threads of a warp read adjacent channels.
struct RowMomentsShared {
    float mean[EIGHT][GROUP_NORM_THREADS + 4], deviation[EIGHT][GROUP_NORM_THREADS + 4];
};

struct ChannelMoments {
    Eight mean, deviation;
};

// Takes in `count` more pixels, of which `before` were already.
DEVICE void merge(ChannelMoments& found, uint32_t before, const Eight (&x)[GROUP_NORM_PIXELS], uint32_t count) {
    float inverse = 1.0f / float(count), share = float(count) / float(before + count);
    float weight = float(before) * share;
#pragma unroll
    for (uint32_t i = 0; i < EIGHT; ++i) {
        // Pixels that are not there are zero.
        float mean = ((x[0].at[i] + x[1].at[i]) + (x[2].at[i] + x[3].at[i])) * inverse;
        float deviation = 0;
#pragma unroll
        for (uint32_t n = 0; n < GROUP_NORM_PIXELS; ++n) {
            float off = n < count ? x[n].at[i] - mean : 0.0f;
            deviation = fmaf(off, off, deviation);
        }
        float delta = mean - found.mean.at[i];
        found.mean.at[i] = fmaf(delta, share, found.mean.at[i]);
        found.deviation.at[i] += fmaf(__fmul_rn(delta, delta), weight, deviation);
    }
}

// Each group's sum and squared deviation in a row of a frame.
KERNEL(group_norm_rows, GROUP_NORM_THREADS, RowMomentsArguments) {
    const uint32_t width = given.width, channels = given.channels, size = channels / given.groups;
    const View frame = given.frames[blockIdx.x / given.height];
    const uint64_t begin = uint64_t(blockIdx.x % given.height) * width * channels;
    const bool wide = is_wide(frame, channels);
    const Abreast own(channels);
    const uint32_t piece = width_of_piece(own.channel, channels), pixels = own.pixels(own.pixel, width);
    auto& all = shared<RowMomentsShared>();

    ChannelMoments found{};
    for (uint32_t done = 0; done < pixels; done += GROUP_NORM_PIXELS) {
        const uint32_t count = pixels - done < GROUP_NORM_PIXELS ? pixels - done : GROUP_NORM_PIXELS;
        Fetched fetched[GROUP_NORM_PIXELS];
#pragma unroll
        for (uint32_t n = 0; n < GROUP_NORM_PIXELS; ++n) {
            uint64_t pixel = own.pixel + uint64_t(done + n) * own.abreast;
            uint64_t from = begin + pixel * channels + own.channel;
            fetched[n] = fetch_piece(frame, from, n < count ? piece : 0, wide);
        }
        Eight x[GROUP_NORM_PIXELS];
#pragma unroll
        for (uint32_t n = 0; n < GROUP_NORM_PIXELS; ++n) x[n] = fetched[n].widened();
        merge(found, done, x, count);
    }
#pragma unroll
    for (uint32_t i = 0; i < EIGHT; ++i) {
        all.mean[i][threadIdx.x] = found.mean.at[i];
        all.deviation[i][threadIdx.x] = found.deviation.at[i];
    }
    __syncthreads();

    // Threads to channels. The result takes the place of the first thread's, which nobody else reads.
    for (uint32_t channel = threadIdx.x; channel < channels; channel += GROUP_NORM_THREADS) {
        float *mean = all.mean[channel % EIGHT], *deviation = all.deviation[channel % EIGHT];
        const uint32_t first = channel / EIGHT;
        float sum = 0, squares = 0;
        for (uint32_t a = 0; a < own.abreast; ++a)
            sum = fmaf(float(own.pixels(a, width)), mean[a * own.pieces + first], sum);
        const float middle = sum / float(width);
        for (uint32_t a = 0; a < own.abreast; ++a) {
            float off = mean[a * own.pieces + first] - middle;
            float square = __fmul_rn(off, off);
            squares += fmaf(square, float(own.pixels(a, width)), deviation[a * own.pieces + first]);
        }
        mean[first] = middle;
        deviation[first] = squares;
    }
    __syncthreads();

    // Channels to groups.
    const uint64_t row = given.first_row + blockIdx.x;
    for (uint32_t group = threadIdx.x; group < given.groups; group += GROUP_NORM_THREADS) {
        float sum = 0, squares = 0;
        for (uint32_t channel = group * size; channel < (group + 1) * size; ++channel)
            sum += all.mean[channel % EIGHT][channel / EIGHT];
        const float middle = sum / float(size);
        for (uint32_t channel = group * size; channel < (group + 1) * size; ++channel) {
            float off = all.mean[channel % EIGHT][channel / EIGHT] - middle;
            squares += fmaf(__fmul_rn(off, off), float(width), all.deviation[channel % EIGHT][channel / EIGHT]);
        }
        float* pair = static_cast<float*>(given.partials.data) + (row * given.groups + group) * 2;
        pair[0] = sum * float(width);
        pair[1] = squares;
    }
}

struct GroupMomentsArguments {
    View partials, statistics;
    uint64_t rows;
    uint32_t groups;
    uint32_t row_values;  // of a group in a row
    float eps;
    uint32_t unused;
};

struct GroupMomentsShared {
    double sums[2][GROUP_NORM_THREADS];
};

// The sum over the block, in a tree; `sums` is for this one alone.
DEVICE double sum_over_block(double x, double (&sums)[GROUP_NORM_THREADS]) {
    sums[threadIdx.x] = x;
    for (uint32_t half = GROUP_NORM_THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

// Mean and reciprocal standard deviation of a group. All rows have the same number of values, so Chan's
// formula for all of them at once is the mean of their means, and the sum of their deviations and of those
// of their means.
KERNEL(group_norm_groups, GROUP_NORM_THREADS, GroupMomentsArguments) {
    const uint32_t group = blockIdx.x;
    const auto* pairs = static_cast<const float*>(given.partials.data) + group * 2;
    const double row_values = given.row_values, inverse = 1.0 / row_values;
    auto& sums = shared<GroupMomentsShared>().sums;
    double sum = 0, squares = 0;
    for (uint64_t row = threadIdx.x; row < given.rows; row += GROUP_NORM_THREADS)
        sum += double(pairs[row * given.groups * 2]);
    const double mean = sum_over_block(sum, sums[0]) / (double(given.rows) * row_values);
    for (uint64_t row = threadIdx.x; row < given.rows; row += GROUP_NORM_THREADS) {
        const float* pair = pairs + row * given.groups * 2;
        double off = fma(double(pair[0]), inverse, -mean);
        squares += fma(off * off, row_values, double(pair[1]));
    }
    squares = sum_over_block(squares, sums[1]);
    if (threadIdx.x == 0) {
        double variance = squares / (double(given.rows) * row_values);
        float* to = static_cast<float*>(given.statistics.data) + group * 2;
        to[0] = float(mean);
        to[1] = float(1.0 / sqrt(variance + double(given.eps)));
    }
}

// --- application -------------------------------------------------------------------------------

constexpr uint32_t GROUP_NORM_SWEEPS = 2;  // times `GROUP_NORM_PIXELS` pixels that a thread makes

struct GroupNormArguments {
    View frame, statistics, weight, bias;
    View factor, summand;  // [map_height, map_width, channels]; without data if there is no modulation
    View target;           // the padded frame
    uint32_t height, width, channels, groups;
    uint32_t map_height, map_width;
    uint32_t silu;
    uint32_t unused;
};

// (x - mean) * slope + offset, by channel.
struct Affine {
    Eight mean, slope, offset;
};

DEVICE Affine affine_of(const GroupNormArguments& given, uint32_t channel, uint32_t piece) {
    const uint32_t size = given.channels / given.groups;
    const auto* statistics = static_cast<const float*>(given.statistics.data);
    Affine by{{}, fetch_piece(given.weight, channel, piece, is_wide(given.weight, given.channels)).widened(),
              fetch_piece(given.bias, channel, piece, is_wide(given.bias, given.channels)).widened()};
    uint32_t group = channel / size, left = (group + 1) * size - channel;  // in the group
    float mean = statistics[2 * group], factor = statistics[2 * group + 1];
#pragma unroll
    for (uint32_t i = 0; i < EIGHT; ++i) {
        by.mean.at[i] = mean;
        by.slope.at[i] = __fmul_rn(by.slope.at[i], factor);
        if (--left == 0 && i + 1 < piece) {
            ++group, left = size;
            mean = statistics[2 * group], factor = statistics[2 * group + 1];
        }
    }
    return by;
}

// target = silu(((x - mean) * factor * weight + bias) * map + map), with a border of zero. Blocks along y
// make a row of the target, those along x pieces of it.
KERNEL(group_norm, GROUP_NORM_THREADS, GroupNormArguments) {
    const uint32_t width = given.width, channels = given.channels;
    const Abreast own(channels);
    if (own.pixel >= own.abreast) return;
    const uint32_t piece = width_of_piece(own.channel, channels), row = blockIdx.y;
    const bool is_border = row == 0 || row == given.height + 1;
    const bool wide = is_wide(given.frame, channels), wide_target = is_wide(given.target, channels);
    const bool wide_factor = is_wide(given.factor, channels), wide_summand = is_wide(given.summand, channels);
    const uint64_t frame_row = uint64_t(row - 1) * width * channels + own.channel;
    const uint64_t target_row = uint64_t(row) * (width + 2) * channels + own.channel;
    const uint64_t map_row = uint64_t(is_border ? 0 : row - 1) * given.map_height / given.height;
    Affine by{};
    if (!is_border) by = affine_of(given, own.channel, piece);

    for (uint32_t sweep = 0; sweep < GROUP_NORM_SWEEPS; ++sweep) {
        // Columns of the target; the frame's are one less.
        uint32_t column[GROUP_NORM_PIXELS];
        bool is_inner[GROUP_NORM_PIXELS];
        Fetched fetched[GROUP_NORM_PIXELS];
#pragma unroll
        for (uint32_t n = 0; n < GROUP_NORM_PIXELS; ++n) {
            uint32_t round = (blockIdx.x * GROUP_NORM_SWEEPS + sweep) * GROUP_NORM_PIXELS + n;
            column[n] = round * own.abreast + own.pixel;
            is_inner[n] = !is_border && column[n] >= 1 && column[n] <= width;
            uint64_t from = is_inner[n] ? frame_row + uint64_t(column[n] - 1) * channels : 0;
            fetched[n] = fetch_piece(given.frame, from, is_inner[n] ? piece : 0, wide);
        }
#pragma unroll
        for (uint32_t n = 0; n < GROUP_NORM_PIXELS; ++n) {
            if (column[n] >= width + 2) break;
            Eight y{};
            if (is_inner[n]) {
                Fetched factor, summand;
                if (given.factor.data) {
                    uint32_t map_column = uint32_t(uint64_t(column[n] - 1) * given.map_width / width);
                    uint64_t from = (map_row * given.map_width + map_column) * channels + own.channel;
                    factor = fetch_piece(given.factor, from, piece, wide_factor);
                    summand = fetch_piece(given.summand, from, piece, wide_summand);
                }
                y = fetched[n].widened();
#pragma unroll
                for (uint32_t i = 0; i < EIGHT; ++i)
                    y.at[i] = fmaf(y.at[i] - by.mean.at[i], by.slope.at[i], by.offset.at[i]);
                if (given.factor.data) {
                    Eight a = factor.widened(), b = summand.widened();
#pragma unroll
                    for (uint32_t i = 0; i < EIGHT; ++i) y.at[i] = fmaf(y.at[i], a.at[i], b.at[i]);
                }
                if (given.silu) {
#pragma unroll
                    for (uint32_t i = 0; i < EIGHT; ++i) y.at[i] = silu_of(y.at[i]);
                }
            }
            store_piece(given.target, target_row + uint64_t(column[n]) * channels, piece, wide_target, y);
        }
    }
}
