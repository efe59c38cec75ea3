// Convolution on tensor cores.
//
// A block makes a rectangle of pixels times some channels. 32 channels of everything that the filter meets
// for the rectangle, its border included, lie in shared memory at once, and all nine taps read them there:
// what a tap meets is the same rectangle, begun elsewhere, and a row of A for `load_matrices` is a pixel
// wherever it lies. So a frame's elements come from global memory little more than once for each range of
// channels out, and the weight, 32 rows a tap, makes most of the traffic: 8 KB for two million operations.
//
// Two buffers of pixels and two of weights: a step, which is one tap or a few, computes with one of each
// while the weight of the next step and a part of the next 32 channels' pixels arrive in the others.
//
// Each result is a sum in the order frame, 32 channels, tap, 16 channels, whatever the rectangle. Channels
// beyond the last are zeros on both sides.
#pragma once
#include "conv.cuh"
#include "matrix.cuh"

template <uint32_t HEIGHT_, uint32_t WIDTH_, uint32_t CHANNELS_, uint32_t STRIDE_, uint32_t WARPS_DOWN_,
          uint32_t WARPS_ACROSS_, uint32_t TAPS_>
struct ConvTile {
    static constexpr uint32_t HEIGHT = HEIGHT_, WIDTH = WIDTH_;  // of the rectangle
    static constexpr uint32_t CHANNELS = CHANNELS_;              // out
    static constexpr uint32_t STRIDE = STRIDE_;
    static constexpr uint32_t WARPS_ACROSS = WARPS_ACROSS_;  // that share the channels; others share the pixels
    static constexpr uint32_t THREADS = 32 * WARPS_DOWN_ * WARPS_ACROSS_;
    static constexpr uint32_t TAPS = TAPS_;  // of a step
    static constexpr uint32_t STEPS = 9 / TAPS;
    static constexpr uint32_t DEPTH = 32;  // channels in
    // What the filter meets.
    static constexpr uint32_t MET_HEIGHT = STRIDE * (HEIGHT - 1) + 3, MET_WIDTH = STRIDE * (WIDTH - 1) + 3;
    static constexpr uint32_t MET_CHUNKS = MET_HEIGHT * MET_WIDTH * DEPTH / 8;
    // The next channels' arrive in parts: one a step, but none in the last of several.
    static constexpr uint32_t PARTS = STEPS > 1 ? STEPS - 1 : 1;
    static constexpr uint32_t PART = (MET_CHUNKS + PARTS - 1) / PARTS;
    static constexpr uint32_t WEIGHT_CHUNKS = CHANNELS / 8;  // of a row
    // A warp's share, in matrices of 16 pixels and of 8 channels.
    static constexpr uint32_t DOWN = HEIGHT * WIDTH / WARPS_DOWN_ / 16;
    static constexpr uint32_t ACROSS = CHANNELS / WARPS_ACROSS_ / 8;

    // A row of a warp's results, as it is stored: rows that are written at once begin 8 banks apart.
    static constexpr uint32_t RESULTS = ACROSS * 8, PITCH = RESULTS == 8 ? 8 : RESULTS + 8;

    struct Shared {
        Chunk pixels[2][MET_CHUNKS];
        Chunk weight[2][TAPS * DEPTH * WEIGHT_CHUNKS];
    };
    static_assert(sizeof(Shared) >= THREADS / 32 * 16 * PITCH * sizeof(float), "results lie where operands lay");
    static_assert(WIDTH % 8 == 0, "eight rows of a matrix are pixels beside each other");
    static_assert(ACROSS == 1 || ACROSS % 2 == 0, "weights are loaded for 16 channels, or for 8 only");

    // Where a chunk of the weight lies.
    DEVICE_MEMBER static uint32_t weight_place(uint32_t row, uint32_t chunk) {
        if constexpr (WEIGHT_CHUNKS == 1) return row;
        else return swizzled<WEIGHT_CHUNKS>(row, chunk);
    }
};

struct alignas(8) ConvPair {
    float first, second;
};

// What a block makes.
struct ConvBlock {
    uint32_t top, left, first_channel;
};

// Up to eight elements to shared memory, zeros behind them: at once, or, where they may be read as a chunk,
// some time before `wait_copies`.
template <typename T>
DEVICE void conv_copy(Chunk* to, const T* from, uint32_t elements, bool is_chunk) {
    if (is_chunk) {
        begin_copy(to, from, elements * 2);
        return;
    }
    Chunk chunk = {};
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i)
        if (i < elements) chunk.words[i / 2] |= uint32_t(from[i].bits) << i % 2 * 16;
    *to = chunk;
}

DEVICE uint32_t conv_most(uint32_t elements, uint32_t most) { return elements < most ? elements : most; }

// Chunks `first` to `end` of what the filter meets, of a frame's channels from `channel` on.
template <typename T, typename Tile>
DEVICE void conv_load_pixels(const ConvArguments& given, const ConvBlock& block, Chunk* to, uint32_t frame,
                             uint32_t channel, uint32_t first, uint32_t end) {
    const T* elements = static_cast<const T*>(conv_frame(given, frame).data);
    const uint32_t height = Tile::STRIDE * given.height + 2, width = Tile::STRIDE * given.width + 2;
    const uint32_t top = Tile::STRIDE * block.top + Tile::STRIDE - 1;
    const uint32_t left = Tile::STRIDE * block.left + Tile::STRIDE - 1;
    for (uint32_t i = first + threadIdx.x; i < end; i += Tile::THREADS) {
        const uint32_t pixel = i / 4, at = channel + i % 4 * 8;
        const uint32_t y = top + pixel / Tile::MET_WIDTH, x = left + pixel % Tile::MET_WIDTH;
        const bool inside = y < height && x < width && at < given.channels_in;
        const uint64_t from = inside ? (uint64_t(y) * width + x) * given.channels_in + at : 0;
        const uint32_t count = inside ? conv_most(given.channels_in - at, 8) : 0;
        conv_copy(&to[swizzled<4>(pixel, i % 4)], elements + from, count, given.frames_in_chunks);
    }
}

// The weight of one step: for each of its taps, the rows of the channels in from `channel` on.
template <typename T, typename Tile>
DEVICE void conv_load_weight(const ConvArguments& given, const ConvBlock& block, Chunk* to, uint32_t frame,
                             uint32_t channel, uint32_t step) {
    const T* elements = static_cast<const T*>(given.weight.data);
    constexpr uint32_t CHUNKS = Tile::TAPS * Tile::DEPTH * Tile::WEIGHT_CHUNKS;
#pragma unroll
    for (uint32_t n = 0; n < (CHUNKS + Tile::THREADS - 1) / Tile::THREADS; ++n) {
        const uint32_t i = n * Tile::THREADS + threadIdx.x;
        if (CHUNKS % Tile::THREADS && i >= CHUNKS) break;
        const uint32_t row = i / Tile::WEIGHT_CHUNKS, chunk = i % Tile::WEIGHT_CHUNKS;
        const uint32_t tap = frame * 9 + step * Tile::TAPS + row / Tile::DEPTH;
        const uint32_t in = channel + row % Tile::DEPTH, out = block.first_channel + chunk * 8;
        const bool inside = in < given.channels_in && out < given.channels_out;
        const uint64_t from = inside ? (uint64_t(tap) * given.channels_in + in) * given.channels_out + out : 0;
        const uint32_t count = inside ? conv_most(given.channels_out - out, 8) : 0;
        conv_copy(&to[Tile::weight_place(row, chunk)], elements + from, count, given.weight_in_chunks);
    }
}

// Adds one tap's products of 16 or 32 channels in.
template <typename T, typename Tile, uint32_t DEPTH>
DEVICE void conv_multiply(float (&sums)[Tile::DOWN][Tile::ACROSS][4], const Chunk* pixels, const Chunk* weight,
                          uint32_t tap) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t down = warp / Tile::WARPS_ACROSS * Tile::DOWN * 16 + lane % 16;
    const uint32_t across = warp % Tile::WARPS_ACROSS * Tile::ACROSS;
    const uint32_t met = tap / 3 * Tile::MET_WIDTH + tap % 3;
    uint32_t thin[4];
    if constexpr (Tile::ACROSS == 1) load_matrices_transposed(thin, &weight[Tile::weight_place(lane, across)]);
#pragma unroll
    for (uint32_t half = 0; half < DEPTH / 16; ++half) {
        uint32_t a[Tile::DOWN][4];
#pragma unroll
        for (uint32_t i = 0; i < Tile::DOWN; ++i) {
            const uint32_t row = down + i * 16;
            const uint32_t pixel =
                met + (row / Tile::WIDTH * Tile::MET_WIDTH + row % Tile::WIDTH) * Tile::STRIDE;
            load_matrices(a[i], &pixels[swizzled<4>(pixel, half * 2 + lane / 16)]);
        }
        if constexpr (Tile::ACROSS == 1) {
#pragma unroll
            for (uint32_t i = 0; i < Tile::DOWN; ++i)
                multiply(sums[i][0], a[i], thin[half * 2], thin[half * 2 + 1], T{});
        } else {
#pragma unroll
            for (uint32_t j = 0; j < Tile::ACROSS; j += 2) {
                uint32_t b[4];
                const uint32_t chunk = across + j + lane / 16;
                load_matrices_transposed(b, &weight[Tile::weight_place(half * 16 + lane % 16, chunk)]);
#pragma unroll
                for (uint32_t i = 0; i < Tile::DOWN; ++i) {
                    multiply(sums[i][j], a[i], b[0], b[1], T{});
                    multiply(sums[i][j + 1], a[i], b[2], b[3], T{});
                }
            }
        }
    }
}

// Bias, sum and store of what the warp has: 16 pixels at a time go through memory of its own, so that what is
// stored at once lies side by side.
template <typename Tile>
DEVICE void conv_store(const ConvArguments& given, const ConvBlock& block,
                       const float (&sums)[Tile::DOWN][Tile::ACROSS][4], float* results) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t channel = block.first_channel + warp % Tile::WARPS_ACROSS * Tile::RESULTS;
    float* own = results + warp * 16 * Tile::PITCH;
#pragma unroll
    for (uint32_t i = 0; i < Tile::DOWN; ++i) {
#pragma unroll
        for (uint32_t j = 0; j < Tile::ACROSS; ++j) {
            float* place = own + lane / 4 * Tile::PITCH + j * 8 + lane % 4 * 2;
            *reinterpret_cast<ConvPair*>(place) = {sums[i][j][0], sums[i][j][1]};
            *reinterpret_cast<ConvPair*>(place + 8 * Tile::PITCH) = {sums[i][j][2], sums[i][j][3]};
        }
        __syncwarp();
#pragma unroll 1
        for (uint32_t n = lane; n < 16 * Tile::RESULTS / 4; n += 32) {
            const uint32_t row = n / (Tile::RESULTS / 4), quad = n % (Tile::RESULTS / 4) * 4;
            const uint32_t pixel = (warp / Tile::WARPS_ACROSS * Tile::DOWN + i) * 16 + row;
            const uint32_t y = block.top + pixel / Tile::WIDTH, x = block.left + pixel % Tile::WIDTH;
            if (y < given.height && x < given.width)
                conv_finish(given, uint64_t(y) * given.width + x, channel + quad,
                            *reinterpret_cast<const ConvQuad*>(own + row * Tile::PITCH + quad));
        }
        __syncwarp();
    }
}

template <typename T, typename Tile>
DEVICE void conv_matrix(const ConvArguments& given) {
    typename Tile::Shared& memory = shared<typename Tile::Shared>();
    // Blocks for the same pixels follow each other, so that the second finds them in the cache.
    const uint32_t ranges = (given.channels_out + Tile::CHANNELS - 1) / Tile::CHANNELS;
    const uint32_t columns = (given.width + Tile::WIDTH - 1) / Tile::WIDTH;
    const uint32_t rectangle = blockIdx.x / ranges;
    const ConvBlock block{rectangle / columns * Tile::HEIGHT, rectangle % columns * Tile::WIDTH,
                          blockIdx.x % ranges * Tile::CHANNELS};

    float sums[Tile::DOWN][Tile::ACROSS][4] = {};
    conv_load_pixels<T, Tile>(given, block, memory.pixels[0], 0, 0, 0, Tile::MET_CHUNKS);
    conv_load_weight<T, Tile>(given, block, memory.weight[0], 0, 0, 0);
    commit_copies();
    commit_copies();
    uint32_t buffer = 0, stage = 0, frame = 0, channel = 0;
    while (frame < given.frame_count) {
        const bool last_channels = channel + Tile::DEPTH >= given.channels_in;
        const uint32_t next_frame = frame + last_channels;
        const uint32_t next_channel = last_channels ? 0 : channel + Tile::DEPTH;
        const bool more = next_frame < given.frame_count;
        Chunk* next_pixels = memory.pixels[buffer ^ 1];
        for (uint32_t step = 0; step < Tile::STEPS; ++step) {
            // Two groups of copies a step: what is needed in the next one, and pixels, which come from
            // farther away and have until the one after that. Where a step is all there is between two
            // ranges of channels, nothing has.
            wait_copies<1>();
            __syncthreads();
            Chunk* next_weight = memory.weight[stage ^ 1];
            if (step + 1 < Tile::STEPS)
                conv_load_weight<T, Tile>(given, block, next_weight, frame, channel, step + 1);
            else if (more)
                conv_load_weight<T, Tile>(given, block, next_weight, next_frame, next_channel, 0);
            if (Tile::STEPS > 1) commit_copies();
            if (more && step < Tile::PARTS)
                conv_load_pixels<T, Tile>(given, block, next_pixels, next_frame, next_channel, step * Tile::PART,
                                          conv_most(Tile::MET_CHUNKS, (step + 1) * Tile::PART));
            commit_copies();
            if (Tile::STEPS == 1) commit_copies();
            const Chunk* weight = memory.weight[stage];
#pragma unroll 1
            for (uint32_t tap = 0; tap < Tile::TAPS; ++tap) {
                const uint32_t number = step * Tile::TAPS + tap;
                if (given.channels_in - channel > 16)
                    conv_multiply<T, Tile, 32>(sums, memory.pixels[buffer], weight, number);
                else
                    conv_multiply<T, Tile, 16>(sums, memory.pixels[buffer], weight, number);
                weight += Tile::DEPTH * Tile::WEIGHT_CHUNKS;
            }
            stage ^= 1;
        }
        buffer ^= 1;
        frame = next_frame;
        channel = next_channel;
    }
    wait_copies<0>();
    __syncthreads();
    conv_store<Tile>(given, block, sums, reinterpret_cast<float*>(&memory));
}
