// The primitives of matrix.cuh by themselves.
#include "../kernels/matrix.cuh"

struct MatrixCheckArguments {
    void* a;         // [16, K], 2 bytes an element
    void* b;         // [16, K]; transposed, [K, 16]
    float* target;   // [16, 16]
    uint32_t depth;  // K, 1 to 32, of rows that are 32 long
    uint32_t type;
    uint32_t transposed;
    uint32_t unused;
};

struct MatrixCheckShared {
    Chunk a[16 * 4], b[32 * 8];
};

template <typename T>
DEVICE void check_matrices(const MatrixCheckArguments& given) {
    MatrixCheckShared& memory = shared<MatrixCheckShared>();
    const uint32_t lane = threadIdx.x;
    const uint32_t depth = given.depth;
    const char* a = static_cast<const char*>(given.a);
    const char* b = static_cast<const char*>(given.b);
    // Rows of A, and of B as it lies in memory: what is beyond K is zero, and of what is beyond nothing is read.
    for (uint32_t i = lane; i < 16 * 4; i += 32) {
        const uint32_t row = i / 4, first = i % 4 * 8;
        const uint32_t elements = first >= depth ? 0 : depth - first < 8 ? depth - first : 8;
        begin_copy(&memory.a[swizzled<4>(row, i % 4)], a + (row * 32 + (elements ? first : 0)) * 2, elements * 2);
        if (!given.transposed)
            begin_copy(&memory.b[swizzled<4>(row, i % 4)], b + (row * 32 + (elements ? first : 0)) * 2, elements * 2);
    }
    commit_copies();
    if (given.transposed) {
        for (uint32_t i = lane; i < 32 * 2; i += 32) {
            const bool inside = i / 2 < depth;
            begin_copy(&memory.b[swizzled<8>(i / 2, i % 2)], b + (inside ? i * 16 : 0), inside ? 16 : 0);
        }
    }
    commit_copies();
    wait_copies<0>();
    __syncwarp();
    float sums[2][4] = {};
    for (uint32_t k = 0; k < 32; k += 16) {
        uint32_t left[4], right[4];
        load_matrices(left, &memory.a[swizzled<4>(lane % 16, k / 8 + lane / 16)]);
        if (given.transposed)
            load_matrices_transposed(right, &memory.b[swizzled<8>(k + lane % 16, lane / 16)]);
        else
            load_matrices(right, &memory.b[swizzled<4>(lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2)]);
        multiply(sums[0], left, right[0], right[1], T{});
        multiply(sums[1], left, right[2], right[3], T{});
    }
    for (uint32_t n = 0; n < 2; ++n)
        for (uint32_t i = 0; i < 4; ++i)
            given.target[(lane / 4 + i / 2 * 8) * 16 + n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
}

// target = a bT, or a b, by one warp
KERNEL(matrix_check, 32, MatrixCheckArguments) {
    if (given.type == F16) check_matrices<f16>(given);
#if __CUDA_ARCH__ >= 800
    else check_matrices<bf16>(given);
#endif
}
