// Others on the emulation's card, as a desktop has them: processes that take memory and give it back whenever
// they like. And what of all that NVML tells.
#pragma once
#include "block.hpp"
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace emulation {

/// NEIGHBOURS in the environment says of how many in a hundred readings of the card's memory the next finds
/// that they have taken some since, or have given some back; without it there are none.
class Neighbours {
public:
    Neighbours() : dice_(uint64_t(number("NEIGHBOURS_SEED", 1))), moves_(size_t(number("NEIGHBOURS", 0))) {
        if (moves_) bytes_ = 100 * PAGE_BYTES;
    }

    size_t bytes() const { return bytes_; }

    /// Time passes, as it does from one reading to the next.
    void live() {
        if (dice_.below(100) >= moves_) return;
        const size_t change = (1 + dice_.below(64)) * PAGE_BYTES;
        bytes_ = dice_.below(2) && bytes_ >= change ? bytes_ - change : bytes_ + change;
    }

private:
    static constexpr size_t PAGE_BYTES = 2 << 20;

    static long number(const char* name, long otherwise) {
        const char* text = std::getenv(name);
        return text ? std::atol(text) : otherwise;
    }

    Dice dice_;
    size_t moves_, bytes_ = 0;
};

// --- what NVML tells, in its own structures -------------------------------------------------------

struct NvmlMemory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

struct NvmlProcess {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};

enum : int { NVML_SUCCESS = 0, NVML_NOT_FOUND = 6, NVML_INSUFFICIENT_SIZE = 7 };

/// NVML_HIDES in the environment: `pids`, where it knows this process by a number that is not its own, as in
/// a container; `bytes`, where it does not say what a process holds, as on Windows.
inline bool nvml_hides(const char* what) {
    const char* text = std::getenv("NVML_HIDES");
    return text && !std::strcmp(text, what);
}

/// Lists one process, if it holds anything, as NVML's functions do: how many there are if there is no room.
inline int nvml_list(unsigned pid, size_t bytes, unsigned* count, NvmlProcess* processes) {
    const unsigned room = *count;
    *count = bytes ? 1 : 0;
    if (room < *count) return NVML_INSUFFICIENT_SIZE;
    if (bytes) processes[0] = {pid, nvml_hides("bytes") ? ~0ull : bytes, ~0u, ~0u};
    return NVML_SUCCESS;
}

/// This process, as NVML numbers it.
inline unsigned nvml_pid() { return unsigned(getpid()) + (nvml_hides("pids") ? 100000 : 0); }

}  // namespace emulation
