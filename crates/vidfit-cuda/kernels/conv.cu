// Convolution.
//
// The rectangles are constants, and none of them changes the order of a sum. `src/ops/conv.rs` repeats them,
// with the shared memory that they take.
#include "conv_chain.cuh"
#include "conv_matrix.cuh"

// 256 pixels times 128 channels: 64 times 64 for each of eight warps.
using ConvWide = ConvTile<16, 16, 128, 1, 4, 2, 1>;
// To a few channels, such as a decoder's last convolution to red, green and blue. With so little to compute
// for a tap, all nine make a step.
using ConvNarrow = ConvTile<16, 16, 8, 1, 8, 1, 9>;
// From four pixels to one.
using ConvHalving = ConvTile<8, 8, 128, 2, 1, 4, 1>;
using ConvChainWide = ConvChainTile<128, 128, 8, 8>;
using ConvChainNarrow = ConvChainTile<256, 8, 2, 4>;

// All of sm_75's shared memory is 64 KB.
static_assert(sizeof(ConvWide::Shared) == 57856 && ConvWide::THREADS == 256, "as in conv.rs");
static_assert(sizeof(ConvNarrow::Shared) == 50688 && ConvNarrow::THREADS == 256, "as in conv.rs");
static_assert(sizeof(ConvHalving::Shared) == 53376 && ConvHalving::THREADS == 128, "as in conv.rs");
static_assert(sizeof(ConvChainWide::Shared) == 33792 && ConvChainWide::THREADS == 256, "as in conv.rs");
static_assert(sizeof(ConvChainNarrow::Shared) == 34816 && ConvChainNarrow::THREADS == 256, "as in conv.rs");

// target = frames * weight + bias (+ target)
KERNEL(conv_f16, 256, ConvArguments) { conv_matrix<f16, ConvWide>(given); }
KERNEL(conv_narrow_f16, 256, ConvArguments) { conv_matrix<f16, ConvNarrow>(given); }
KERNEL(conv_halving_f16, 128, ConvArguments) { conv_matrix<f16, ConvHalving>(given); }
// Tensor cores multiply bf16 from sm_80 on.
#if __CUDA_ARCH__ >= 800
KERNEL(conv_bf16, 256, ConvArguments) { conv_matrix<bf16, ConvWide>(given); }
KERNEL(conv_narrow_bf16, 256, ConvArguments) { conv_matrix<bf16, ConvNarrow>(given); }
KERNEL(conv_halving_bf16, 128, ConvArguments) { conv_matrix<bf16, ConvHalving>(given); }
#endif
KERNEL(conv_chain, 256, ConvArguments) { conv_chain_tile<ConvChainWide>(given); }
KERNEL(conv_chain_narrow, 256, ConvArguments) { conv_chain_tile<ConvChainNarrow>(given); }
