// Eight adjacent elements at a time: sixteen bytes of a 16-bit type, twice that of f32.
//
// A thread fetches all that it reads before it widens any of it, so that its loads are on their way
// together. Whoever calls has looked that the elements begin at a multiple of sixteen bytes.
#pragma once
#include "element.cuh"

constexpr uint32_t EIGHT = 8;

struct alignas(16) Words {
    uint32_t at[4];
};

struct Eight {
    float at[EIGHT];
};

template <typename T>
DEVICE Eight widen_eight(const Words& words) {
    Eight y;
    for (uint32_t i = 0; i < 4; ++i) {
        y.at[2 * i] = widen(T{uint16_t(words.at[i])});
        y.at[2 * i + 1] = widen(T{uint16_t(words.at[i] >> 16)});
    }
    return y;
}

template <typename T>
DEVICE Words narrow_eight(const Eight& x) {
    Words words;
    for (uint32_t i = 0; i < 4; ++i) {
        uint32_t low = narrow(x.at[2 * i], T{}).bits, high = narrow(x.at[2 * i + 1], T{}).bits;
        words.at[i] = low | high << 16;
    }
    return words;
}

// Elements as they lie in memory.
struct Fetched {
    uint32_t type;
    Words low, high;  // of a 16-bit type only the first

    DEVICE_MEMBER Eight widened() const {
        switch (type) {
            case F32: {
                Eight y;
                for (uint32_t i = 0; i < 4; ++i) {
                    y.at[i] = __uint_as_float(low.at[i]);
                    y.at[i + 4] = __uint_as_float(high.at[i]);
                }
                return y;
            }
            case F16: return widen_eight<f16>(low);
            default: return widen_eight<bf16>(low);
        }
    }
};

// Whether elements 0, 8, 16 and so on begin at multiples of sixteen bytes.
DEVICE bool is_wide(const View& view) { return reinterpret_cast<uint64_t>(view.data) % sizeof(Words) == 0; }

DEVICE Words* words_of(const View& view, uint64_t first) {
    return reinterpret_cast<Words*>(static_cast<char*>(view.data) + first * (view.type == F32 ? 4 : 2));
}

DEVICE Fetched fetch(const View& view, uint64_t first) {
    const Words* from = words_of(view, first);
    Fetched fetched{view.type, from[0], {}};
    if (view.type == F32) fetched.high = from[1];
    return fetched;
}

DEVICE void store(const View& view, uint64_t first, const Eight& x) {
    Words* to = words_of(view, first);
    switch (view.type) {
        case F32:
            for (uint32_t half = 0; half < 2; ++half) {
                Words words;
                for (uint32_t i = 0; i < 4; ++i) words.at[i] = __float_as_uint(x.at[4 * half + i]);
                to[half] = words;
            }
            break;
        case F16: to[0] = narrow_eight<f16>(x); break;
        default: to[0] = narrow_eight<bf16>(x);
    }
}

// Stores what was fetched; of the same type as it is.
DEVICE void store(const View& view, uint64_t first, const Fetched& x) {
    if (view.type != x.type) return store(view, first, x.widened());
    Words* to = words_of(view, first);
    to[0] = x.low;
    if (x.type == F32) to[1] = x.high;
}

// target = f(x...), element by element.
template <typename F, typename... Values>
DEVICE void store_each(const View& target, uint64_t first, F f, const Values&... x) {
    Eight y;
    for (uint32_t i = 0; i < EIGHT; ++i) y.at[i] = f(x.at[i]...);
    store(target, first, y);
}

// The same of what is still as it lay in memory.
template <typename F, typename... Values>
DEVICE void store_each_of(const View& target, uint64_t first, F f, const Values&... fetched) {
    store_each(target, first, f, fetched.widened()...);
}
