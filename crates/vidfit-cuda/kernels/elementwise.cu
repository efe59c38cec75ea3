// Operations on each element by itself.
#include "element.cuh"

constexpr uint32_t ELEMENTWISE_THREADS = 256;

struct CastArguments {
    View source, target;
    uint64_t elements;
};

// target = source
KERNEL(cast, ELEMENTWISE_THREADS, CastArguments) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < given.elements) given.target.put(i, given.source.get(i));
}

// target += source
KERNEL(add, ELEMENTWISE_THREADS, CastArguments) {
    uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < given.elements) given.target.put(i, given.target.get(i) + given.source.get(i));
}
