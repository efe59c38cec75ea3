// Convolution in f32: every result is one chain of fused multiply-adds in the order of taps and channels,
// as on the CPU, bit by bit. For f32 frames, and for types that tensor cores do not multiply.
//
// The three pixels under a row of the filter lie side by side, so they are one run of 3 channels-in elements:
// the convolution is the sum of three (nine) products of a matrix of such runs, continued in the same chains.
#pragma once
#include "conv.cuh"

template <uint32_t PIXELS_, uint32_t CHANNELS_, uint32_t PIXELS_EACH_, uint32_t CHANNELS_EACH_>
struct ConvChainTile {
    static constexpr uint32_t PIXELS = PIXELS_, CHANNELS = CHANNELS_;                     // of a block
    static constexpr uint32_t PIXELS_EACH = PIXELS_EACH_, CHANNELS_EACH = CHANNELS_EACH_;  // of a thread
    static constexpr uint32_t DOWN = PIXELS / PIXELS_EACH, ACROSS = CHANNELS / CHANNELS_EACH;
    static constexpr uint32_t THREADS = DOWN * ACROSS;
    static constexpr uint32_t DEPTH = 16;
    static_assert(CHANNELS_EACH % 4 == 0, "results are stored by fours");
    static constexpr uint32_t PIXEL_LOADS = PIXELS * DEPTH / THREADS;
    static constexpr uint32_t WEIGHT_LOADS = (CHANNELS * DEPTH + THREADS - 1) / THREADS;
    static constexpr uint32_t ROUND = PIXELS_EACH < 4 ? PIXELS_EACH : 4;  // of a thread's pixels, to store
    static constexpr uint32_t PITCH = CHANNELS + 4;
    // Four more, so that writing a column meets more than one bank.
    struct Shared {
        alignas(16) float pixels[2][DEPTH][PIXELS + 4];
        alignas(16) float weight[2][DEPTH][PITCH];
    };
    static_assert(sizeof(Shared) >= DOWN * ROUND * PITCH * sizeof(float), "results lie where operands lay");
};

// The place of a thread's element among those of all: by fours, so that a warp reads without conflicts.
template <uint32_t THREADS, uint32_t EACH>
DEVICE uint32_t conv_place(uint32_t thread, uint32_t i) {
    if constexpr (EACH % 4 == 0) return i / 4 * (THREADS * 4) + thread * 4 + i % 4;
    else return thread * EACH + i;
}

template <uint32_t THREADS, uint32_t EACH>
DEVICE void conv_read(float (&to)[EACH], const float* row, uint32_t thread) {
    if constexpr (EACH % 4 == 0) {
#pragma unroll
        for (uint32_t i = 0; i < EACH; i += 4) {
            const ConvQuad quad = *reinterpret_cast<const ConvQuad*>(row + conv_place<THREADS, EACH>(thread, i));
#pragma unroll
            for (uint32_t j = 0; j < 4; ++j) to[i + j] = quad.values[j];
        }
    } else {
#pragma unroll
        for (uint32_t i = 0; i < EACH; ++i) to[i] = row[conv_place<THREADS, EACH>(thread, i)];
    }
}

// Elements of one type at these places, zeros where there is none.
constexpr uint64_t CONV_NOWHERE = ~uint64_t(0);

template <typename T, uint32_t COUNT>
DEVICE void conv_gather(float (&to)[COUNT], const void* data, const uint64_t (&from)[COUNT], uint64_t offset) {
#pragma unroll
    for (uint32_t i = 0; i < COUNT; ++i)
        to[i] = from[i] == CONV_NOWHERE ? 0.0f : widen(static_cast<const T*>(data)[from[i] + offset]);
}

template <uint32_t COUNT>
DEVICE void conv_gather(float (&to)[COUNT], const View& view, const uint64_t (&from)[COUNT], uint64_t offset) {
    switch (view.type) {
        case F32: conv_gather<float>(to, view.data, from, offset); break;
        case F16: conv_gather<f16>(to, view.data, from, offset); break;
        default: conv_gather<bf16>(to, view.data, from, offset);
    }
}

template <typename Tile>
DEVICE void conv_chain_tile(const ConvArguments& given) {
    typename Tile::Shared& memory = shared<typename Tile::Shared>();
    const uint32_t ranges = (given.channels_out + Tile::CHANNELS - 1) / Tile::CHANNELS;
    const uint64_t pixels = uint64_t(given.height) * given.width;
    const uint64_t first_pixel = uint64_t(blockIdx.x / ranges) * Tile::PIXELS;
    const uint32_t first_channel = blockIdx.x % ranges * Tile::CHANNELS;
    const uint32_t thread = threadIdx.x, stride = given.stride;
    const uint32_t run = 3 * given.channels_in;
    const uint64_t pitch = (uint64_t(stride) * given.width + 2) * given.channels_in;

    // What this thread brings: element `thread % DEPTH` of the runs of several pixels, and of the weight one
    // column of several rows.
    uint64_t run_of[Tile::PIXEL_LOADS];
#pragma unroll
    for (uint32_t i = 0; i < Tile::PIXEL_LOADS; ++i) {
        const uint64_t pixel = first_pixel + thread / Tile::DEPTH + i * (Tile::THREADS / Tile::DEPTH);
        const uint64_t y = pixel / given.width, x = pixel % given.width, border = stride - 1;
        run_of[i] = pixel < pixels ? (border + stride * y) * pitch + (border + stride * x) * given.channels_in
                                   : CONV_NOWHERE;
    }
    float pixel_values[Tile::PIXEL_LOADS], weight_values[Tile::WEIGHT_LOADS];
    const auto fetch = [&](uint32_t filter_row, uint32_t first) {
        const uint32_t mine = first + thread % Tile::DEPTH;
        uint64_t from[Tile::PIXEL_LOADS];
#pragma unroll
        for (uint32_t i = 0; i < Tile::PIXEL_LOADS; ++i) from[i] = mine < run ? run_of[i] : CONV_NOWHERE;
        conv_gather(pixel_values, conv_frame(given, filter_row / 3), from, filter_row % 3 * pitch + mine);
        uint64_t rows[Tile::WEIGHT_LOADS];
#pragma unroll
        for (uint32_t i = 0; i < Tile::WEIGHT_LOADS; ++i) {
            const uint32_t number = thread + i * Tile::THREADS;
            const uint32_t k = first + number / Tile::CHANNELS, channel = first_channel + number % Tile::CHANNELS;
            const bool inside = number < Tile::DEPTH * Tile::CHANNELS && k < run && channel < given.channels_out;
            rows[i] = inside ? uint64_t(k) * given.channels_out + channel : CONV_NOWHERE;
        }
        conv_gather(weight_values, given.weight, rows, uint64_t(filter_row) * run * given.channels_out);
    };
    const auto keep = [&](uint32_t stage) {
#pragma unroll
        for (uint32_t i = 0; i < Tile::PIXEL_LOADS; ++i) {
            const uint32_t pixel = thread / Tile::DEPTH + i * (Tile::THREADS / Tile::DEPTH);
            memory.pixels[stage][thread % Tile::DEPTH][pixel] = pixel_values[i];
        }
#pragma unroll
        for (uint32_t i = 0; i < Tile::WEIGHT_LOADS; ++i) {
            const uint32_t number = thread + i * Tile::THREADS;
            if (number < Tile::DEPTH * Tile::CHANNELS)
                memory.weight[stage][number / Tile::CHANNELS][number % Tile::CHANNELS] = weight_values[i];
        }
    };

    float sums[Tile::PIXELS_EACH][Tile::CHANNELS_EACH] = {};
    const uint32_t down = thread / Tile::ACROSS, across = thread % Tile::ACROSS;
    fetch(0, 0);
    keep(0);
    __syncthreads();
    uint32_t filter_row = 0, first = 0, stage = 0;
    while (filter_row < 3 * given.frame_count) {
        const bool last = first + Tile::DEPTH >= run;
        filter_row += last;
        first = last ? 0 : first + Tile::DEPTH;
        const bool more = filter_row < 3 * given.frame_count;
        if (more) fetch(filter_row, first);
#pragma unroll
        for (uint32_t k = 0; k < Tile::DEPTH; ++k) {
            float a[Tile::PIXELS_EACH], b[Tile::CHANNELS_EACH];
            conv_read<Tile::DOWN>(a, memory.pixels[stage][k], down);
            conv_read<Tile::ACROSS>(b, memory.weight[stage][k], across);
#pragma unroll
            for (uint32_t i = 0; i < Tile::PIXELS_EACH; ++i)
#pragma unroll
                for (uint32_t j = 0; j < Tile::CHANNELS_EACH; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
        }
        stage ^= 1;
        if (more) keep(stage);
        __syncthreads();
    }
    // Through shared memory, some pixels of every thread at a time: what is stored at once lies side by side.
    float* results = reinterpret_cast<float*>(&memory);
    constexpr uint32_t QUADS = Tile::CHANNELS / 4;
#pragma unroll
    for (uint32_t round = 0; round < Tile::PIXELS_EACH; round += Tile::ROUND) {
        if (round > 0) __syncthreads();
#pragma unroll
        for (uint32_t i = 0; i < Tile::ROUND; ++i) {
            const uint32_t row = conv_place<Tile::DOWN, Tile::PIXELS_EACH>(down, i);
#pragma unroll
            for (uint32_t j = 0; j < Tile::CHANNELS_EACH; j += 4) {
                const uint32_t column = conv_place<Tile::ACROSS, Tile::CHANNELS_EACH>(across, j);
                const float(&sum)[Tile::CHANNELS_EACH] = sums[round + i];
                *reinterpret_cast<ConvQuad*>(results + row * Tile::PITCH + column) = {
                    {sum[j], sum[j + 1], sum[j + 2], sum[j + 3]}};
            }
        }
        __syncthreads();
#pragma unroll 1
        for (uint32_t n = thread; n < Tile::DOWN * Tile::ROUND * QUADS; n += Tile::THREADS) {
            const uint64_t pixel = first_pixel + round * Tile::DOWN + n / QUADS;
            const uint32_t channel = n % QUADS * 4;
            if (pixel < pixels)
                conv_finish(given, pixel, first_channel + channel,
                            *reinterpret_cast<const ConvQuad*>(results + n / QUADS * Tile::PITCH + channel));
        }
    }
}
