// What the kernels use of CUDA, on the CPU. Included in NVRTC's place by g++; see portable.cuh.
#pragma once
#include "block.hpp"
#include <algorithm>
#include <cmath>
#include <map>

/// The architecture whose source is compiled; sm_75's is compiled and run as well.
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 800
#endif

#define DEVICE static inline
#define DEVICE_MEMBER inline
#define __restrict__ __restrict

#define PACKED_KERNEL(name, threads, blocks, Arguments) KERNEL(name, threads, Arguments)

// Registers the kernel by its name.
#define KERNEL(name, threads, Arguments)                                                                \
    static void name(const Arguments& given);                                                           \
    static const emulation::Registration registration_of_##name(                                        \
        #name, threads, sizeof(Arguments), [](const void* given) {                                      \
            Arguments copy;                                                                             \
            std::memcpy(&copy, given, sizeof copy);                                                     \
            uint64_t address;                                                                           \
            std::memcpy(&address, given, sizeof address);                                               \
            if (address) name(copy);                                                                    \
        });                                                                                             \
    static void name(const Arguments& given)

namespace emulation {

struct Kernel {
    unsigned most_threads;
    size_t argument_bytes;
    void (*run)(const void*);
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

struct Registration {
    Registration(const char* name, unsigned threads, size_t bytes, void (*run)(const void*)) {
        if (!kernels().emplace(name, Kernel{threads, bytes, run}).second) fail(std::string("two kernels ") + name);
    }
};

// --- numbers -----------------------------------------------------------------------------------

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline float from_half(uint16_t bits) {
    _Float16 x;
    std::memcpy(&x, &bits, 2);
    return float(x);
}
inline uint16_t to_half(float x) {
    _Float16 y = _Float16(x);
    uint16_t bits;
    std::memcpy(&bits, &y, 2);
    return bits;
}

// --- the warp's functions ----------------------------------------------------------------------

struct Shuffle {
    uint32_t value, result;
    int other;
};

inline void shuffle_all(Lanes lanes) {
    for (void* lane : lanes) {
        auto* self = static_cast<Shuffle*>(lane);
        self->result = static_cast<const Shuffle*>(lanes[self->other])->value;
    }
}

inline uint32_t shuffle(uint32_t value, int other) {
    Shuffle lane{value, 0, other};
    current->block->warp(shuffle_all, &lane);
    return lane.result;
}

inline int lane_number() { return int(current->number % WARP); }

inline void nothing(Lanes) {}

// mma.sync.aligned.m16n8k16.row.col.f32: a is 16x16, b 16x8, c and d 16x8 (PTX ISA, "Matrix fragments for
// mma.m16n8k16 with floating point type"). With `group = lane / 4` and `pair = lane % 4`:
// a[0..1] row group, a[2..3] row group + 8, a[4..7] the same 8 columns on; columns 2 pair and 2 pair + 1;
// b[0..1] rows 2 pair and 2 pair + 1, b[2..3] 8 rows on; column group; c as a's first 8 columns.
struct Mma {
    float a[8], b[4];
    float* d;
};

// How tensor cores add is not documented, and differs. What was measured of them (Fasi, Higham, Mikaitis and
// Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021; Hopper's by Xie and others, "MMA-Sim", 2025): some
// products and the sum so far are aligned to the largest, what is then more than a bit below f32's last is
// lost, and so is what their sum has below f32's last: 4 or 8 products at a time up to Ampere, 16 on Hopper.
// Rounding once, as if the sum were exact, is the best that any could do. What holds for all of these holds on
// cards.

/// Products that are added at once.
inline unsigned tensor_block = 16;
/// Whether what is lost is truncated, or the sum rounded to the nearest.
inline bool tensor_truncates = false;

inline float sum_rounded(const double* terms, unsigned count) {
    double sum = 0;
    for (unsigned i = 0; i < count; ++i) sum += terms[i];
    return float(sum);
}

inline float sum_truncated(const double* terms, unsigned count) {
    double largest = 0;
    for (unsigned i = 0; i < count; ++i) {
        if (!std::isfinite(terms[i])) return sum_rounded(terms, count);
        largest = std::max(largest, std::fabs(terms[i]));
    }
    if (largest == 0) return sum_rounded(terms, count);
    // Every addend has at most 25 bits then: their sum is exact.
    const double step = std::ldexp(1.0, std::ilogb(largest) - 24);
    double sum = 0;
    for (unsigned i = 0; i < count; ++i) sum += std::trunc(terms[i] / step) * step;
    const float nearest = float(sum);
    return std::fabs(double(nearest)) > std::fabs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}

/// Reads how tensor cores are to add: `exact`, or `truncate` with the number of products added at once.
inline void set_tensor_rounding(const char* how) {
    const std::string words = how;
    tensor_truncates = words.rfind("truncate", 0) == 0;
    if (!tensor_truncates && words != "exact") fail("tensor cores add " + words + "?");
    tensor_block = tensor_truncates ? unsigned(std::stoul(words.substr(8))) : 16;
    if (tensor_block != 4 && tensor_block != 8 && tensor_block != 16) fail("tensor cores add " + words + "?");
}

template <int K>  // 16 or 8
inline void mma_all(Lanes lanes) {
    float a[16][K], b[K][8], c[16][8];
    for (unsigned lane = 0; lane < WARP; ++lane) {
        const auto* self = static_cast<const Mma*>(lanes[lane]);
        unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < K / 2; ++i) a[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = self->a[i];
        for (unsigned i = 0; i < K / 4; ++i) b[pair + i % 2 + i / 2 * 8][group] = self->b[i];
        for (unsigned i = 0; i < 4; ++i) c[group + i / 2 * 8][pair + i % 2] = self->d[i];
    }
    for (unsigned lane = 0; lane < WARP; ++lane) {
        const auto* self = static_cast<const Mma*>(lanes[lane]);
        unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 4; ++i) {
            unsigned row = group + i / 2 * 8, column = pair + i % 2;
            float sum = c[row][column];
            const unsigned block = std::min(tensor_block, unsigned(K));
            for (unsigned first = 0; first < K; first += block) {
                double terms[K + 1] = {sum};
                for (unsigned k = 0; k < block; ++k)
                    terms[k + 1] = double(a[row][first + k]) * double(b[first + k][column]);
                sum = tensor_truncates ? sum_truncated(terms, block + 1) : sum_rounded(terms, block + 1);
            }
            self->d[i] = sum;
        }
    }
}

// ldmatrix.sync.aligned.m8n8.x4[.trans].shared.b16: lane `8 i + r` names row r of matrix i; lane l gets of
// each matrix row l / 4, elements 2 (l % 4) and the next; transposed, column l / 4 (PTX ISA, "ldmatrix").
struct LoadMatrix {
    const void* row;
    uint32_t* registers;
};

template <bool TRANSPOSED>
inline void load_matrix_all(Lanes lanes) {
    for (unsigned i = 0; i < 4; ++i) {
        uint16_t matrix[8][8];
        for (unsigned r = 0; r < 8; ++r) {
            const void* row = static_cast<const LoadMatrix*>(lanes[8 * i + r])->row;
            if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix from a row that is not aligned to 16 bytes");
            std::memcpy(matrix[r], row, 16);
        }
        for (unsigned lane = 0; lane < WARP; ++lane) {
            unsigned row = lane / 4, column = lane % 4 * 2;
            uint16_t low = TRANSPOSED ? matrix[column][row] : matrix[row][column];
            uint16_t high = TRANSPOSED ? matrix[column + 1][row] : matrix[row][column + 1];
            static_cast<const LoadMatrix*>(lanes[lane])->registers[i] = uint32_t(high) << 16 | low;
        }
    }
}

// --- copies that go on beside ------------------------------------------------------------------

inline void begin_copy(void* to, const void* from, size_t bytes, size_t room) {
    if (reinterpret_cast<uintptr_t>(to) % room || (bytes && reinterpret_cast<uintptr_t>(from) % room))
        fail("cp.async with an address that is not aligned to its size");
    Copy copy{to, from, bytes, room};
    if (current->block->is_late()) current->open.push_back(copy);
    else copy.make();
}

inline void commit_copies() {
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}

/// All groups but the newest `left` are there.
inline void wait_copies(size_t left) {
    auto& groups = current->groups;
    while (groups.size() > left) {
        for (const Copy& copy : groups.front()) copy.make();
        groups.erase(groups.begin());
    }
}

}  // namespace emulation

// --- CUDA's own names --------------------------------------------------------------------------

#define threadIdx (emulation::current->index)
#define blockIdx emulation::current_block
#define blockDim emulation::block_size
#define gridDim emulation::grid_size

inline void __syncthreads() { emulation::current->block->barrier(); }
inline void __syncwarp(unsigned = ~0u) {
    int unused = 0;
    emulation::current->block->warp(emulation::nothing, &unused);
}
inline float __shfl_xor_sync(unsigned, float x, int mask) {
    return emulation::float_of(emulation::shuffle(emulation::bits_of(x), emulation::lane_number() ^ mask));
}
inline float __shfl_sync(unsigned, float x, int lane) {
    return emulation::float_of(emulation::shuffle(emulation::bits_of(x), lane % 32));
}
inline uint32_t __shfl_sync(unsigned, uint32_t x, int lane) { return emulation::shuffle(x, lane % 32); }
inline float __uint_as_float(uint32_t bits) { return emulation::float_of(bits); }
inline uint32_t __float_as_uint(float x) { return emulation::bits_of(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
// Rounded by themselves, never a part of a fused operation.
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
using std::fmaf;

template <typename T>
DEVICE T& shared() {
    return *reinterpret_cast<T*>(emulation::shared_memory);
}

namespace emulation {

struct Vote {
    bool mine, any;
};

inline void vote_all(Lanes lanes) {
    bool any = false;
    for (void* lane : lanes) any |= static_cast<const Vote*>(lane)->mine;
    for (void* lane : lanes) static_cast<Vote*>(lane)->any = any;
}

}  // namespace emulation

inline int __any_sync(unsigned, int mine) {
    emulation::Vote lane{mine != 0, false};
    emulation::current->block->warp(emulation::vote_all, &lane);
    return lane.any;
}
