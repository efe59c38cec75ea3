// Pieces of rows: eight adjacent elements, or as many as the row has left, that begin anywhere.
//
// Who has which elements never depends on where they begin: only how they are fetched does, so that the
// same values have the same results everywhere.
#pragma once
#include "eight.cuh"

// Whether all pieces of rows of so many elements are whole, and begin at multiples of sixteen bytes.
DEVICE bool is_wide(const View& view, uint32_t columns) { return columns % EIGHT == 0 && is_wide(view); }

// Elements of a piece that begins at `column`; none beyond the row's end.
DEVICE uint32_t width_of_piece(uint32_t column, uint32_t columns) {
    uint32_t left = column < columns ? columns - column : 0;
    return left < EIGHT ? left : EIGHT;
}

// A piece of `width` elements; the others are zero. If `wide`, it is whole or empty.
DEVICE Fetched fetch_piece(const View& view, uint64_t first, uint32_t width, bool wide) {
    if (wide && width) return fetch(view, first);
    Fetched fetched{view.type, {}, {}};
    if (view.type == F32) {
        const auto* from = static_cast<const uint32_t*>(view.data) + first;
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            if (i < width) fetched.low.at[i] = from[i];
            if (i + 4 < width) fetched.high.at[i] = from[i + 4];
        }
    } else {
        const auto* from = static_cast<const uint16_t*>(view.data) + first;
#pragma unroll
        for (uint32_t i = 0; i < EIGHT; ++i) {
            if (i < width) fetched.low.at[i / 2] |= uint32_t(from[i]) << i % 2 * 16;
        }
    }
    return fetched;
}

// Stores the first `width` elements. If `wide`, those are all or none.
DEVICE void store_piece(const View& view, uint64_t first, uint32_t width, bool wide, const Eight& x) {
    if (wide) {
        if (width) store(view, first, x);
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < EIGHT; ++i) {
        if (i < width) view.put(first + i, x.at[i]);
    }
}

// In pairs, and pairs of pairs.
DEVICE float sum_of_piece(const Eight& x) {
    return ((x.at[0] + x.at[1]) + (x.at[2] + x.at[3])) + ((x.at[4] + x.at[5]) + (x.at[6] + x.at[7]));
}
