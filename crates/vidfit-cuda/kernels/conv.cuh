// What convolutions are given, and how they end.
//
// In a padded frame no tap of the filter needs to ask where the frame ends: the pixel that a tap meets is
// that of the target, so many rows and columns on. With stride 2 the filter begins behind the border.
#pragma once
#include "element.cuh"

// The most targets of a launch.
constexpr uint32_t CONV_TARGETS = 4;

// Block z makes a part of target z, of the frames from z on.
struct ConvArguments {
    View frames[CONV_TARGETS + 2];  // [stride height + 2, stride width + 2, channels in], all of one type
    View targets[CONV_TARGETS];     // [height, width, channels out], all of one type
    View weight;                    // [9 frame_count, channels in, channels out]
    View bias;                      // [channels out]
    uint32_t frame_count;           // that make a target: 1 or 3
    uint32_t stride;
    uint32_t height, width;
    uint32_t channels_in, channels_out;
    uint32_t accumulate;
    // Whether runs of channels may be read 16 bytes at a time, and written four at a time.
    uint32_t frames_in_chunks, weight_in_chunks, target_in_quads;
};

// One of the frames that make this block's target.
DEVICE View conv_frame(const ConvArguments& given, uint32_t frame) { return given.frames[blockIdx.z + frame]; }

struct alignas(16) ConvQuad {
    float values[4];
};
struct alignas(8) ConvShortQuad {
    uint32_t words[2];
};

DEVICE ConvQuad conv_get_quad(const View& view, uint64_t i) {
    if (view.type == F32) return *reinterpret_cast<const ConvQuad*>(static_cast<const float*>(view.data) + i);
    const ConvShortQuad quad = *reinterpret_cast<const ConvShortQuad*>(static_cast<const uint16_t*>(view.data) + i);
    ConvQuad wide;
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
        const uint16_t bits = uint16_t(quad.words[j / 2] >> j % 2 * 16);
        wide.values[j] = view.type == F16 ? widen(f16{bits}) : widen(bf16{bits});
    }
    return wide;
}

DEVICE void conv_put_quad(const View& view, uint64_t i, const ConvQuad& quad) {
    if (view.type == F32) {
        *reinterpret_cast<ConvQuad*>(static_cast<float*>(view.data) + i) = quad;
        return;
    }
    ConvShortQuad narrow = {};
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
        const float x = quad.values[j];
        const uint32_t bits = view.type == F16 ? narrow_f16(x).bits : narrow_bf16(x).bits;
        narrow.words[j / 2] |= bits << j % 2 * 16;
    }
    *reinterpret_cast<ConvShortQuad*>(static_cast<uint16_t*>(view.data) + i) = narrow;
}

// Bias, sum and store of four channels of a pixel, some of which, or all, may lie beyond the last.
DEVICE void conv_finish(const ConvArguments& given, uint64_t pixel, uint32_t channel, ConvQuad sums) {
    const uint64_t at = pixel * given.channels_out + channel;
    if (channel >= given.channels_out) return;
    const View target = given.targets[blockIdx.z];
    if (given.target_in_quads) {
        ConvQuad before = {};
        if (given.accumulate) before = conv_get_quad(target, at);
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
            const float sum = sums.values[j] + given.bias.get(channel + j);
            sums.values[j] = given.accumulate ? sum + before.values[j] : sum;
        }
        conv_put_quad(target, at, sums);
        return;
    }
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
        if (channel + j >= given.channels_out) return;
        const float sum = sums.values[j] + given.bias.get(channel + j);
        target.put(at + j, given.accumulate ? sum + target.get(at + j) : sum);
    }
}
