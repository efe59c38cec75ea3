// Latents to patches and back. A thread has an element of what is written, in the order of memory; what is
// read lies in short runs, close together for the threads of a block. These are small tensors.
#include "element.cuh"

constexpr uint32_t PATCH_THREADS = 256;

// One latent [F, C, h, w] and its columns in the rows of patches.
struct PatchArguments {
    View latent, patches;
    uint32_t elements, channels, height, width;
    uint32_t patch_frames, patch;   // a patch's size
    uint32_t features, first, all;  // columns of this latent, where they begin, and columns of a row
    uint32_t unused;
};

// patches = latent
KERNEL(patchify, PATCH_THREADS, PatchArguments) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= given.elements) return;
    uint32_t row = i / given.features, feature = i % given.features;
    uint32_t p = given.patch, rest = feature / p;
    uint32_t dx = feature % p, dy = rest % p;
    rest /= p;
    uint32_t dt = rest % given.patch_frames, channel = rest / given.patch_frames;
    uint32_t columns = given.width / p, lines = given.height / p;
    uint32_t frame = row / columns / lines * given.patch_frames + dt;
    uint32_t y = row / columns % lines * p + dy, x = row % columns * p + dx;
    uint32_t from = ((frame * given.channels + channel) * given.height + y) * given.width + x;
    given.patches.put(uint64_t(row) * given.all + given.first + feature, given.latent.get(from));
}

// latent = patches
KERNEL(unpatchify, PATCH_THREADS, PatchArguments) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= given.elements) return;
    uint32_t p = given.patch;
    uint32_t x = i % given.width, rest = i / given.width;
    uint32_t y = rest % given.height;
    rest /= given.height;
    uint32_t channel = rest % given.channels, frame = rest / given.channels;
    uint32_t columns = given.width / p, lines = given.height / p;
    uint32_t row = (frame / given.patch_frames * lines + y / p) * columns + x / p;
    uint32_t feature = ((channel * given.patch_frames + frame % given.patch_frames) * p + y % p) * p + x % p;
    given.latent.put(i, given.patches.get(uint64_t(row) * given.all + given.first + feature));
}
