// Small matrix products by a whole warp, and the ways of their operands: global to shared memory, shared
// memory to registers.
//
// A warp multiplies A, 16x16, by B, 16x8, and adds to D, 16x8. What a lane holds of them (PTX ISA, "Matrix
// fragments for mma.m16n8k16"), with `group = lane / 4` and `pair = lane % 4 * 2`; the low half of a
// register is the first element:
//     a[0]        row group, columns pair and pair + 1       a[2]        8 columns on
//     a[1]        row group + 8                              a[3]        8 columns on
//     b[0]        rows pair and pair + 1, column group       b[1]        8 rows on
//     d[0], d[1]  row group, columns pair and pair + 1       d[2], d[3]  row group + 8
#pragma once
#include "element.cuh"

/// Sixteen bytes, as the widest loads and stores take them.
struct alignas(16) Chunk {
    uint32_t words[4];
};

#ifdef __CUDACC_RTC__

DEVICE uint32_t shared_address(const void* place) {
    return uint32_t(__cvta_generic_to_shared(place));
}

// Lane `8 i + r` names row r, 16 bytes in shared memory, of the 8x8 matrix i. Every lane gets of matrix i, in
// `to[i]`, row `group`, columns pair and pair + 1.
DEVICE void load_matrices(uint32_t (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same, each matrix transposed: rows pair and pair + 1, column `group`, of what lies in memory.
DEVICE void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// D += A B of the first 8 columns of A and rows of B alone: a[0], a[1] and b[0].
DEVICE void multiply_half(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b, f16) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(b));
}

#if __CUDA_ARCH__ >= 800

DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Begins to copy 16 bytes, both places being multiples of 16; of the source only the first `bytes` are
// touched, zeros take the place of the others. It is this thread's own business until it has waited for the
// copy, and every other thread's after a barrier behind that.
DEVICE void begin_copy(void* to, const void* from, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes)
                 : "memory");
}
// Closes a group of copies, which may be empty.
DEVICE void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most the newest LEFT of this thread's groups are under way.
template <int LEFT>
DEVICE void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#endif

#else

DEVICE void load_matrices(uint32_t (&to)[4], const void* row) {
    emulation::LoadMatrix lane{row, to};
    emulation::current->block->warp(emulation::load_matrix_all<false>, &lane);
}
DEVICE void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
    emulation::LoadMatrix lane{row, to};
    emulation::current->block->warp(emulation::load_matrix_all<true>, &lane);
}

// The two elements of a register.
template <typename T>
inline void unpack(float* to, uint32_t pair, T) {
    to[0] = widen(T{uint16_t(pair)});
    to[1] = widen(T{uint16_t(pair >> 16)});
}

DEVICE void multiply_half(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b, f16) {
    emulation::Mma lane{};
    unpack(lane.a, a0, f16{}), unpack(lane.a + 2, a1, f16{}), unpack(lane.b, b, f16{});
    lane.d = d;
    emulation::current->block->warp(emulation::mma_all<8>, &lane);
}

#if __CUDA_ARCH__ >= 800

template <typename T>
inline void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {
    emulation::Mma lane{};
    for (int i = 0; i < 4; ++i) unpack(lane.a + 2 * i, a[i], T{});
    unpack(lane.b, b0, T{}), unpack(lane.b + 2, b1, T{});
    lane.d = d;
    emulation::current->block->warp(emulation::mma_all<16>, &lane);
}

DEVICE void begin_copy(void* to, const void* from, uint32_t bytes) { emulation::begin_copy(to, from, bytes, 16); }
DEVICE void commit_copies() { emulation::commit_copies(); }
template <int LEFT>
DEVICE void wait_copies() { emulation::wait_copies(LEFT); }

#endif

#endif

#if __CUDA_ARCH__ < 800

// Tensor cores of sm_75 take 8 columns at once, and no bf16.
DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16) {
    multiply_half(d, a[0], a[1], b0, f16{});
    multiply_half(d, a[2], a[3], b1, f16{});
}

// sm_75 has no copies beside the arithmetic: they are made at once.
DEVICE void begin_copy(void* to, const void* from, uint32_t bytes) {
    Chunk chunk = {};
    if (bytes == 16) {
        chunk = *static_cast<const Chunk*>(from);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < 8; ++i) {
            if (2 * i < bytes)
                chunk.words[i / 2] |= uint32_t(static_cast<const uint16_t*>(from)[i]) << (i % 2 * 16);
        }
    }
    *static_cast<Chunk*>(to) = chunk;
}
DEVICE void commit_copies() {}
template <int LEFT>
DEVICE void wait_copies() {}

#endif

// Where chunk `chunk` of row `row` lies, counted in chunks, in a matrix of CHUNKS chunks a row, 4 or 8 or
// more powers of two: the same chunk of eight rows that follow each other, which `load_matrices` reads at
// once, lies in different banks.
template <uint32_t CHUNKS>
DEVICE uint32_t swizzled(uint32_t row, uint32_t chunk) {
    static_assert(CHUNKS >= 4 && (CHUNKS & (CHUNKS - 1)) == 0, "rows of 64 bytes times a power of two");
    return row * CHUNKS + (chunk ^ (CHUNKS == 4 ? row / 2 % 4 : row % 8));
}
