// Attention of every row to every row, head by head, without the matrix of all scores.
#include "attention_exact.cuh"
#include "attention_matrix.cuh"

// target = softmax(scale queries keysT + bias) values; operands of one type, heads of 64, scale > 0
KERNEL(attention_f16, ATTENTION_THREADS, AttentionArguments) { attend<f16, false>(given); }
KERNEL(attention_f16_biased, ATTENTION_THREADS, AttentionArguments) { attend<f16, true>(given); }
// Tensor cores multiply bf16 from sm_80 on.
#if __CUDA_ARCH__ >= 800
KERNEL(attention_bf16, ATTENTION_THREADS, AttentionArguments) { attend<bf16, false>(given); }
KERNEL(attention_bf16_biased, ATTENTION_THREADS, AttentionArguments) { attend<bf16, true>(given); }
#endif

// The same of operands of any types, for heads of up to 64, and of up to 128.
KERNEL(attention_exact_64, 128, AttentionArguments) { attend_exactly<64, 64>(given); }
KERNEL(attention_exact_128, 64, AttentionArguments) { attend_exactly<128, 32>(given); }
