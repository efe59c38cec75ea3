// One source for two compilers: NVRTC makes PTX of it, g++ makes what the tests run without a card.
#pragma once

#ifdef __CUDACC_RTC__

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__

// A kernel that takes one structure of arguments, and blocks of at most so many threads. The structure
// begins with an address; without one there is nothing to do, which is how a kernel is run only so that the
// driver has everything ready for it.
#define KERNEL(name, threads, Arguments) PACKED_KERNEL(name, threads, 1, Arguments)

// The same with registers for so many blocks on a multiprocessor.
#define PACKED_KERNEL(name, threads, blocks, Arguments)                                            \
    DEVICE void run_##name(const Arguments& given);                                                \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Arguments given) {    \
        if (*reinterpret_cast<const uint64_t*>(&given)) run_##name(given);                         \
    }                                                                                              \
    DEVICE void run_##name(const Arguments& given)

// The block's shared memory: all of it belongs to one structure, of the size the launch gives.
template <typename T>
DEVICE T& shared() {
    extern __shared__ __align__(128) unsigned char memory[];
    return *reinterpret_cast<T*>(memory);
}

#else

#include "../emulation/emulation.hpp"

#endif
