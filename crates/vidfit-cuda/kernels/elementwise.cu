// Operations on each element by itself. A thread has eight.
#include "eight.cuh"
#include "math.cuh"

constexpr uint32_t ELEMENTWISE_THREADS = 256;

// The first element of this thread.
DEVICE uint64_t first_of_thread() {
    return (uint64_t(blockIdx.x) * blockDim.x + threadIdx.x) * EIGHT;
}

DEVICE uint64_t end_of_thread(uint64_t first, uint64_t elements) {
    return first + EIGHT < elements ? first + EIGHT : elements;
}

// target = f(sources...), which may be the target.
template <typename F, typename... Views>
DEVICE void map(uint64_t elements, F f, const View& target, const Views&... sources) {
    uint64_t first = first_of_thread();
    if (first + EIGHT <= elements && (is_wide(target) && ... && is_wide(sources))) {
        store_each_of(target, first, f, fetch(sources, first)...);
    } else {
        uint64_t end = end_of_thread(first, elements);
        for (uint64_t i = first; i < end; ++i) target.put(i, f(sources.get(i)...));
    }
}

struct MapArguments {
    View source, target;
    uint64_t elements;
};

// target = source
KERNEL(cast, ELEMENTWISE_THREADS, MapArguments) {
    map(given.elements, [](float x) { return x; }, given.target, given.source);
}

// target += source
KERNEL(add, ELEMENTWISE_THREADS, MapArguments) {
    map(given.elements, [](float y, float x) { return y + x; }, given.target, given.target, given.source);
}

// target = source / (1 + e^-source)
KERNEL(silu, ELEMENTWISE_THREADS, MapArguments) {
    map(given.elements, [](float x) { return silu_of(x); }, given.target, given.source);
}

// target = gelu_tanh(target) * source
KERNEL(gelu_gate, ELEMENTWISE_THREADS, MapArguments) {
    auto gated = [](float y, float x) { return gelu_tanh_of(y) * x; };
    map(given.elements, gated, given.target, given.target, given.source);
}

// `x` rounded to a type, and widened again.
DEVICE float round_to(uint32_t type, float x) {
    switch (type) {
        case F32: return x;
        case F16: return widen(narrow_f16(x));
        default: return widen(narrow_bf16(x));
    }
}

// Not a number stays that.
DEVICE float clamp(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// target = clamp(source / 2 + 1/2, 0, 1) of the source's type. Half of a number is exact, or so small that
// the sum with 1/2 is 1/2; clamping commutes with rounding: only the sum is rounded.
KERNEL(to_unit_range, ELEMENTWISE_THREADS, MapArguments) {
    uint32_t type = given.source.type;
    auto brightness = [type](float x) { return round_to(type, clamp(x * 0.5f + 0.5f, 0.0f, 1.0f)); };
    map(given.elements, brightness, given.target, given.source);
}

struct GuideArguments {
    View unconditional, conditional, target;
    uint64_t elements;
    float scale;
    uint32_t unused;
};

// target = unconditional + scale * (conditional - unconditional)
KERNEL(guide, ELEMENTWISE_THREADS, GuideArguments) {
    float scale = given.scale;
    auto extrapolated = [scale](float x, float y) { return x + __fmul_rn(scale, y - x); };
    map(given.elements, extrapolated, given.target, given.unconditional, given.conditional);
}

constexpr uint32_t COMBINE_TERMS = 4;

struct CombineArguments {
    View target;
    View terms[COMBINE_TERMS];
    float factors[COMBINE_TERMS];
    uint64_t elements;
    uint32_t count, unused;
};

// target = sum of factor * term, in their order, of which the target may be one
KERNEL(combine, ELEMENTWISE_THREADS, CombineArguments) {
    const View* terms = given.terms;
    float f0 = given.factors[0], f1 = given.factors[1], f2 = given.factors[2], f3 = given.factors[3];
    auto one = [=](float a) { return __fmul_rn(f0, a); };
    auto two = [=](float a, float b) { return one(a) + __fmul_rn(f1, b); };
    auto three = [=](float a, float b, float c) { return two(a, b) + __fmul_rn(f2, c); };
    auto four = [=](float a, float b, float c, float d) { return three(a, b, c) + __fmul_rn(f3, d); };
    switch (given.count) {
        case 1: return map(given.elements, one, given.target, terms[0]);
        case 2: return map(given.elements, two, given.target, terms[0], terms[1]);
        case 3: return map(given.elements, three, given.target, terms[0], terms[1], terms[2]);
        default: return map(given.elements, four, given.target, terms[0], terms[1], terms[2], terms[3]);
    }
}

struct GatedResidualArguments {
    View x, gate, target;
    uint64_t elements;
    uint32_t columns, unused;
};

// target += gate * x, where all rows have one gate
KERNEL(gated_residual, ELEMENTWISE_THREADS, GatedResidualArguments) {
    auto sum = [](float y, float x, float gate) { return y + __fmul_rn(gate, x); };
    const View &x = given.x, &gate = given.gate, &target = given.target;
    uint64_t first = first_of_thread();
    if (given.columns % EIGHT == 0 && is_wide(x) && is_wide(gate) && is_wide(target)) {
        if (first >= given.elements) return;
        // Of numbers of 32 bits a remainder is much less work.
        uint32_t column = uint32_t(first / EIGHT) % (given.columns / EIGHT) * EIGHT;
        store_each_of(target, first, sum, fetch(target, first), fetch(x, first), fetch(gate, column));
    } else {
        uint64_t end = end_of_thread(first, given.elements);
        for (uint64_t i = first; i < end; ++i)
            target.put(i, sum(target.get(i), x.get(i), gate.get(i % given.columns)));
    }
}

struct PosteriorArguments {
    View moments, noise, target;
    uint64_t frame_elements;  // of the noise; the moments have twice as many
    float factor;
    uint32_t unused;
};

// target = (mean + exp(clamp(logvar, -30, 20) / 2) * noise) * factor, each operation rounded; a frame is a
// row of blocks
KERNEL(posterior_sample, ELEMENTWISE_THREADS, PosteriorArguments) {
    const View &moments = given.moments, &noise = given.noise, &target = given.target;
    uint32_t type = target.type;
    float factor = given.factor;
    // Half of a 16-bit number is exact, but for some that are so small that e^x is 1.
    auto draw = [type, factor](float mean, float log_variance, float chance) {
        float deviation = round_to(type, exp_of(0.5f * clamp(log_variance, -30.0f, 20.0f)));
        float sum = round_to(type, mean + round_to(type, __fmul_rn(deviation, chance)));
        return __fmul_rn(sum, factor);
    };
    uint64_t elements = given.frame_elements;
    uint64_t first = first_of_thread(), end = end_of_thread(first, elements);
    uint64_t drawn = blockIdx.y * elements, mean = 2 * drawn, log_variance = mean + elements;
    if (elements % EIGHT == 0 && is_wide(moments) && is_wide(noise) && is_wide(target)) {
        if (first >= elements) return;
        store_each_of(target, drawn + first, draw, fetch(moments, mean + first), fetch(moments, log_variance + first),
                      fetch(noise, drawn + first));
    } else {
        for (uint64_t i = first; i < end; ++i)
            target.put(drawn + i, draw(moments.get(mean + i), moments.get(log_variance + i), noise.get(drawn + i)));
    }
}
