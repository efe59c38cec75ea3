// Frames: cut, joined, enlarged. A row of blocks has a line of what is written; a thread has a unit of it,
// which is eight elements where all the lines and pixels allow that, and one element elsewhere.
#include "eight.cuh"

constexpr uint32_t FRAME_THREADS = 256;

// The unit of this thread in its line.
DEVICE uint32_t unit_of_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// target = source, a unit. Of one type, not a number stays the one that it is.
DEVICE void copy_unit(uint32_t unit, const View& target, uint64_t to, const View& source, uint64_t from) {
    if (unit == EIGHT) store(target, to, fetch(source, from));
    else target.put(to, source.get(from));
}

DEVICE void clear_unit(uint32_t unit, const View& target, uint64_t to) {
    if (unit == EIGHT) store(target, to, Eight{});
    else target.put(to, 0.0f);
}

// target = f(a, b), a unit.
template <typename F>
DEVICE void map_unit(uint32_t unit, F f, const View& target, uint64_t to, const View& a, uint64_t at, const View& b,
                     uint64_t bt) {
    if (unit == EIGHT) store_each_of(target, to, f, fetch(a, at), fetch(b, bt));
    else target.put(to, f(a.get(at), b.get(bt)));
}

struct CropArguments {
    View source, target;
    uint64_t first, source_pitch, target_pitch;  // in elements
    uint32_t units, unit;                        // of a line; elements of one
};

// target = source from element `first` on, line by line
KERNEL(crop, FRAME_THREADS, CropArguments) {
    uint32_t i = unit_of_thread();
    if (i >= given.units) return;
    uint64_t along = uint64_t(i) * given.unit, line = blockIdx.y;
    copy_unit(given.unit, given.target, line * given.target_pitch + along, given.source,
              given.first + line * given.source_pitch + along);
}

struct BlendArguments {
    View before, tile;
    uint64_t first, before_pitch, tile_pitch;  // in elements
    uint32_t units, unit;                      // of a line; elements of one
    uint32_t extent;
    uint32_t pixel;  // elements of a pixel, or 0 where whole lines have one share
};

// tile = before * (1 - share) + tile * share. The CPU device finds both shares as f64 numbers and rounds
// them to f32: these quotients of small whole numbers lie too far from where f32 rounds the other way for
// that to make a difference.
KERNEL(blend, FRAME_THREADS, BlendArguments) {
    uint32_t i = unit_of_thread();
    if (i >= given.units) return;
    uint64_t along = uint64_t(i) * given.unit, line = blockIdx.y;
    uint32_t position = given.pixel ? uint32_t(along) / given.pixel : blockIdx.y;
    float share = float(position) / float(given.extent);
    float rest = float(given.extent - position) / float(given.extent);
    auto mix = [=](float old, float now) { return __fmul_rn(old, rest) + __fmul_rn(now, share); };
    uint64_t to = line * given.tile_pitch + along, from = given.first + line * given.before_pitch + along;
    map_unit(given.unit, mix, given.tile, to, given.before, from, given.tile, to);
}

// A frame to a padded one.
struct PadArguments {
    View frames[2];
    View target;
    uint32_t height, width;         // of the frame
    uint32_t channel_units, unit;   // of a pixel; elements of one
    uint32_t count, unused;
};

// target = frame, twice as high and wide, with a border. A row of blocks has both lines of the target that
// come of one line of the frame, and the last row of blocks has the first and last line.
KERNEL(upsample, FRAME_THREADS, PadArguments) {
    uint32_t i = unit_of_thread(), unit = given.unit, units = given.channel_units;
    uint32_t pixel = i / units, y = blockIdx.y;
    uint64_t pixels = 2 * uint64_t(given.width) + 2;
    if (pixel >= pixels) return;
    bool is_border = y == given.height;
    uint64_t upper = is_border ? 0 : 2 * uint64_t(y) + 1, lower = is_border ? 2 * uint64_t(y) + 1 : upper + 1;
    uint64_t along = uint64_t(i) * unit, pitch = pixels * units * unit;
    if (is_border || pixel == 0 || pixel == pixels - 1) {
        clear_unit(unit, given.target, upper * pitch + along);
        clear_unit(unit, given.target, lower * pitch + along);
        return;
    }
    uint64_t from = ((uint64_t(y) * given.width + (pixel - 1) / 2) * units + i % units) * unit;
    if (unit == EIGHT) {
        Fetched x = fetch(given.frames[0], from);
        store(given.target, upper * pitch + along, x);
        store(given.target, lower * pitch + along, x);
    } else {
        float x = given.frames[0].get(from);
        given.target.put(upper * pitch + along, x);
        given.target.put(lower * pitch + along, x);
    }
}

// target = mean of one frame or two, with a border
KERNEL(mean_of_frames, FRAME_THREADS, PadArguments) {
    uint32_t i = unit_of_thread(), unit = given.unit, units = given.channel_units;
    uint32_t pixel = i / units, line = blockIdx.y;
    uint64_t pixels = uint64_t(given.width) + 2;
    if (pixel >= pixels) return;
    uint64_t to = (line * pixels * units + i) * unit;
    if (line == 0 || line == given.height + 1 || pixel == 0 || pixel == pixels - 1)
        return clear_unit(unit, given.target, to);
    uint64_t from = ((uint64_t(line - 1) * given.width + pixel - 1) * units + i % units) * unit;
    if (given.count == 1) return copy_unit(unit, given.target, to, given.frames[0], from);
    auto mean = [](float x, float y) { return (x + y) / 2.0f; };
    map_unit(unit, mean, given.target, to, given.frames[0], from, given.frames[1], from);
}

// A rectangle of a latent frame [C, H, W], and a frame [h, w, C] with a border of so many pixels.
struct LatentArguments {
    View latent, frame;
    uint64_t plane;                  // H * W
    uint32_t latent_width, corner;   // W; the rectangle's first element of a plane
    uint32_t height, width, channels, border;
    float factor;
    uint32_t unused;
};

// frame = factor * latent, with zeros in the border. A row of blocks has a line of the frame.
KERNEL(latent_frame, FRAME_THREADS, LatentArguments) {
    uint32_t i = unit_of_thread(), line = blockIdx.y;
    uint32_t pixel = i / given.channels, channel = i % given.channels, border = given.border;
    uint32_t pixels = given.width + 2 * border;
    if (pixel >= pixels) return;
    uint64_t to = uint64_t(line) * pixels * given.channels + i;
    // Below the border this is beyond the other end.
    uint32_t y = line - border, x = pixel - border;
    if (y >= given.height || x >= given.width) return given.frame.put(to, 0.0f);
    uint64_t from = channel * given.plane + given.corner + uint64_t(y) * given.latent_width + x;
    given.frame.put(to, given.factor * given.latent.get(from));
}

// latent = frame. A row of blocks has a line of each channel.
KERNEL(store_latent, FRAME_THREADS, LatentArguments) {
    uint32_t i = unit_of_thread(), y = blockIdx.y;
    uint32_t channel = i / given.width, x = i % given.width;
    if (channel >= given.channels) return;
    uint64_t to = channel * given.plane + given.corner + uint64_t(y) * given.latent_width + x;
    given.latent.put(to, given.frame.get((uint64_t(y) * given.width + x) * given.channels + channel));
}
