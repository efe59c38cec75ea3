// What the emulation's driver has loaded: modules, and what was asked for their kernels.
#pragma once
#include "block.hpp"
#include <algorithm>
#include <cstring>

namespace emulation {

// A module. What its compiler may write to belongs to the driver as long as the module is there: kernels that
// are loaded lazily are compiled later.
struct Module {
    char* log;
    size_t log_bytes;
    void** values;
    unsigned char mark = 0;

    // Writes to the log, and finds there what it wrote the last time.
    void write_log() {
        const bool is_ours = values[0] == log && !values[1] &&
                             std::all_of(log, log + log_bytes, [&](char c) { return c == char(mark); });
        if (!is_ours) fail("the compiler's log was given back, and the driver writes to it");
        std::memset(log, ++mark, log_bytes);
    }
};

// What was asked for a kernel, and the most that its card has.
struct Function {
    int shared_bytes = 0;  // dynamic, of a block
    int carveout = -1;     // of a multiprocessor, in percent; -1 leaves it to the driver
};

}  // namespace emulation
