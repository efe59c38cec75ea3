// A cuBLASLt over the emulation's driver (driver.cpp): what of the library the device uses. Products are made
// when the driver's stream has come to them. What a caller must not do ends the process, and says on stderr what
// it was.
//
// An element is one chain in the order of the inner dimension, in f32, rounded once: as the CPU device has it.
//
// BLAS_VERSION and BLAS_CREATE in the environment make it another version, and one that does not start, with
// this status; with BLAS_ONLY_F16 it knows no bf16, as on the oldest cards. BLAS_ALGORITHMS names what it
// proposes, the first first: see `Way`.
#include "../kernels/element.cuh"
#include <array>
#include <dlfcn.h>
#include <set>
#include <sstream>

#define API extern "C" __attribute__((visibility("default")))
#define DEMAND(condition) \
    if (!(condition)) emulation::fail(std::string(__func__) + ": not so: " #condition)

namespace {

enum Status : int { SUCCESS = 0, NOT_SUPPORTED = 15 };
enum : int { R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68, OP_T = 1 };
enum : uint32_t { DEFAULT = 1, BIAS = 4, GELU_BIAS = 36 };

// How an algorithm makes products.
enum Way : uint64_t {
    GOOD,
    SPLIT,      // says that it splits sums
    REDUCES,    // says that it reduces partial sums
    WORKSPACE,  // wants a workspace
    NARROW,     // takes no single row
    FAILS,      // takes everything and then refuses it
    LATER,      // refuses what is deeper than 512
    WRONG,      // forgets the bias, and half of a product without one
    FEW,        // sums in halves where there are few rows
    FLAT,       // sums in halves where there are few columns
    LAST,       // sums in halves in the last rows, which are no whole tile
    WAYS
};
const char* const NAMES[WAYS] = {"good",  "split", "reduces", "workspace", "narrow", "fails",
                                 "later", "wrong", "few",     "flat",      "last"};

struct Handle {
    void* context;
};
struct Operation {
    bool transposes = false;
    uint32_t epilogue = DEFAULT;
    uint64_t bias = 0;
};
struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
    bool operator==(const Layout& other) const {
        return type == other.type && rows == other.rows && columns == other.columns && stride == other.stride;
    }
};
struct Preference {
    uint64_t workspace_bytes = ~0ull;
    uint32_t reductions = 7, alignments[4] = {256, 256, 256, 256};
};
struct Algorithm {
    uint64_t mark, way, type, epilogue, unused[4];
};
struct Result {
    Algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Result) == 96, "as the header has it");

constexpr uint64_t MARK = 0x626c6173, ALIGNMENT = 16;

std::set<void*> made;
std::set<std::array<uint64_t, 3>> checked;  // algorithms: way, type, epilogue
uint64_t products = 0;

template <typename T>
T& known(void* handle) {
    if (!made.count(handle)) emulation::fail("cuBLASLt was given what it has not made");
    return *static_cast<T*>(handle);
}
template <typename T>
int make(void** handle, T value) {
    made.insert(*handle = new T(value));
    return SUCCESS;
}
template <typename T>
int destroy(void* handle) {
    delete &known<T>(handle);
    made.erase(handle);
    return SUCCESS;
}
template <typename T>
void take(T& to, const void* value, size_t bytes) {
    if (bytes != sizeof(T)) emulation::fail("an attribute of another size");
    std::memcpy(&to, value, bytes);
}

// A function of the driver that is loaded.
template <typename... Arguments>
int driver(const char* name, Arguments... arguments) {
    void* library = dlopen("libcuda.so", RTLD_NOW | RTLD_NOLOAD);
    auto function = reinterpret_cast<int (*)(Arguments...)>(library ? dlsym(library, name) : nullptr);
    if (!function) emulation::fail(std::string("the driver has no ") + name);
    return function(arguments...);
}

void* current_context() {
    void* context = nullptr;
    driver<void**>("cuCtxGetCurrent", &context);
    return context;
}

// Elements on the card, or nothing if they are not all in one of its allocations.
const uint16_t* elements(uint64_t address, const Layout& layout) {
    uint64_t first = 0;
    size_t bytes = 0;
    if (address % ALIGNMENT) return nullptr;
    if (driver<uint64_t*, size_t*, uint64_t>("cuMemGetAddressRange_v2", &first, &bytes, address)) return nullptr;
    if (address + (uint64_t(layout.stride) * (layout.columns - 1) + layout.rows) * 2 > first + bytes) return nullptr;
    return reinterpret_cast<const uint16_t*>(address);
}

float widened(uint16_t bits, int type) { return type == R_16F ? widen(f16{bits}) : widen(bf16{bits}); }
uint16_t narrowed(float x, int type) { return type == R_16F ? narrow_f16(x).bits : narrow_bf16(x).bits; }

bool overlap(uint64_t a, const Layout& x, uint64_t b, const Layout& y) {
    return a < b + y.rows * y.columns * 2 && b < a + x.rows * x.columns * 2;
}

// What every call with a product must be like; the numbers are those of our operands.
struct Product {
    Operation operation;
    int type;
    uint64_t rows, columns, depth;

    Product(void* handle, void* operation_, void* a_, void* b_, void* c_, void* d_) {
        DEMAND(known<Handle>(handle).context == current_context());
        operation = known<Operation>(operation_);
        const auto &a = known<Layout>(a_), &b = known<Layout>(b_), &c = known<Layout>(c_), &d = known<Layout>(d_);
        DEMAND(operation.transposes && c == d && a.type == d.type && b.type == d.type);
        DEMAND(a.rows == b.rows && a.columns == d.rows && b.columns == d.columns);
        for (const Layout* one : {&a, &b, &d})
            DEMAND(one->stride == int64_t(one->rows) && one->rows * 2 % ALIGNMENT == 0);
        DEMAND(operation.epilogue == DEFAULT || operation.bias);
        DEMAND(operation.bias % ALIGNMENT == 0);
        type = d.type, rows = d.columns, columns = d.rows, depth = a.rows;
    }
};

void demand_own(const Algorithm& algorithm, const Product& product) {
    DEMAND(algorithm.mark == MARK && algorithm.way < WAYS);
    DEMAND(algorithm.type == uint64_t(product.type) && algorithm.epilogue == product.operation.epilogue);
}

bool is_in_halves(uint64_t way, const Product& product, uint64_t row) {
    switch (way) {
        case FEW: return product.rows < 64;
        case FLAT: return product.columns < 64;
        case LAST: return row >= product.rows / 128 * 128;
        default: return false;
    }
}

float finished(float sum, float bias, const Product& product, bool is_wrong) {
    if (is_wrong) return product.operation.epilogue == DEFAULT ? sum / 2 : sum;
    if (product.operation.epilogue == DEFAULT) return sum;
    const float x = sum + bias;
    if (product.operation.epilogue == BIAS) return x;
    return 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
}

void multiply(const Product& product, uint64_t way, const uint16_t* weight, const uint16_t* x, const uint16_t* bias,
              uint16_t* target) {
    const uint64_t columns = product.columns, depth = product.depth;
    std::vector<float> across(depth * columns);
    for (uint64_t n = 0; n < columns; ++n)
        for (uint64_t k = 0; k < depth; ++k) across[k * columns + n] = widened(weight[n * depth + k], product.type);
    for (uint64_t row = 0; row < product.rows; ++row) {
        std::vector<float> sums(columns), second(columns);
        const bool halves = is_in_halves(way, product, row);
        for (uint64_t k = 0; k < depth; ++k) {
            // Products of 16 bits are exact in f32.
            const float factor = widened(x[row * depth + k], product.type), *from = &across[k * columns];
            float* to = (halves && k >= depth / 2 ? second : sums).data();
            for (uint64_t n = 0; n < columns; ++n) to[n] += factor * from[n];
        }
        for (uint64_t n = 0; n < columns; ++n) {
            const float sum = halves ? sums[n] + second[n] : sums[n];
            const float added = bias ? widened(bias[n], product.type) : 0;
            target[row * columns + n] = narrowed(finished(sum, added, product, way == WRONG), product.type);
        }
    }
}

}  // namespace

// How many products were made.
API uint64_t emulated_products() { return products; }

API size_t cublasLtGetVersion() {
    const char* text = std::getenv("BLAS_VERSION");
    return text ? std::strtoull(text, nullptr, 10) : 130100;
}
API int cublasLtCreate(void** handle) {
    if (const char* status = std::getenv("BLAS_CREATE")) return std::atoi(status);
    DEMAND(current_context());
    return make(handle, Handle{current_context()});
}
API int cublasLtDestroy(void* handle) {
    DEMAND(known<Handle>(handle).context == current_context());
    // Whatever was described must have been let go.
    DEMAND(made.size() == 1);
    return destroy<Handle>(handle);
}

API int cublasLtMatmulDescCreate(void** operation, int compute, int scale) {
    DEMAND(compute == COMPUTE_32F && scale == R_32F);
    return make(operation, Operation());
}
API int cublasLtMatmulDescDestroy(void* operation) { return destroy<Operation>(operation); }
API int cublasLtMatmulDescSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    auto& operation = known<Operation>(handle);
    int transposition = OP_T;
    switch (attribute) {
        case 3: take(transposition, value, bytes); operation.transposes = transposition == OP_T; break;
        case 7: take(operation.epilogue, value, bytes); break;
        case 8: take(operation.bias, value, bytes); break;
        default: DEMAND(!"an attribute that is not known here");
    }
    DEMAND(operation.epilogue == DEFAULT || operation.epilogue == BIAS || operation.epilogue == GELU_BIAS);
    return SUCCESS;
}
API int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    DEMAND((type == R_16F || type == R_16BF) && rows && columns && rows < 1u << 31 && columns < 1u << 31);
    return make(layout, Layout{type, rows, columns, stride});
}
API int cublasLtMatrixLayoutDestroy(void* layout) { return destroy<Layout>(layout); }
API int cublasLtMatmulPreferenceCreate(void** preference) { return make(preference, Preference()); }
API int cublasLtMatmulPreferenceDestroy(void* preference) { return destroy<Preference>(preference); }
API int cublasLtMatmulPreferenceSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    auto& preference = known<Preference>(handle);
    switch (attribute) {
        case 1: take(preference.workspace_bytes, value, bytes); break;
        case 3: take(preference.reductions, value, bytes); break;
        case 5: case 6: case 7: case 8: take(preference.alignments[attribute - 5], value, bytes); break;
        default: DEMAND(!"an attribute that is not known here");
    }
    return SUCCESS;
}

API int cublasLtMatmulAlgoGetHeuristic(void* handle, void* operation, void* a, void* b, void* c, void* d,
                                       void* preference_, int wanted, Result* results, int* count) {
    const Product product(handle, operation, a, b, c, d);
    const auto& preference = known<Preference>(preference_);
    DEMAND(preference.workspace_bytes == 0 && preference.reductions == 0);
    for (uint32_t alignment : preference.alignments) DEMAND(alignment == ALIGNMENT);
    // Its low bits tell how well any bias is aligned.
    if (product.operation.epilogue != DEFAULT) DEMAND(product.operation.bias % (2 * ALIGNMENT));
    if (product.type == R_16BF && std::getenv("BLAS_ONLY_F16")) return NOT_SUPPORTED;
    const char* named = std::getenv("BLAS_ALGORITHMS");
    std::istringstream names(named ? named : "good");
    std::string name;
    for (*count = 0; *count < wanted && names >> name;) {
        uint64_t way = 0;
        while (way < WAYS && name != NAMES[way]) ++way;
        DEMAND(way < WAYS);
        Result& result = results[(*count)++];
        result = {};
        result.algorithm = {MARK, way, uint64_t(product.type), product.operation.epilogue, {}};
        result.workspace_bytes = way == WORKSPACE ? 1 << 20 : 0;
    }
    return *count ? SUCCESS : NOT_SUPPORTED;
}
API int cublasLtMatmulAlgoCheck(void* handle, void* operation, void* a, void* b, void* c, void* d,
                                const Algorithm* algorithm, Result* result) {
    const Product product(handle, operation, a, b, c, d);
    demand_own(*algorithm, product);
    checked.insert({algorithm->way, algorithm->type, algorithm->epilogue});
    if (algorithm->way == NARROW && product.rows == 1) return NOT_SUPPORTED;
    result->state = SUCCESS;
    result->workspace_bytes = algorithm->way == WORKSPACE ? 1 << 20 : 0;
    return SUCCESS;
}
API int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* value, size_t bytes,
                                             size_t* written) {
    DEMAND(algorithm->mark == MARK && bytes == 4 && (attribute == 2 || attribute == 3));
    const uint32_t is_said = algorithm->way == (attribute == 2 ? SPLIT : REDUCES);
    const uint32_t configured = attribute == 2 ? 1 + is_said : 2 * is_said;
    std::memcpy(value, &configured, *written = 4);
    return SUCCESS;
}

API int cublasLtMatmul(void* handle, void* operation, const void* alpha, const void* a, void* a_layout, const void* b,
                       void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                       const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream) {
    const Product product(handle, operation, a_layout, b_layout, c_layout, d_layout);
    demand_own(*algorithm, product);
    DEMAND(checked.count({algorithm->way, algorithm->type, algorithm->epilogue}));
    DEMAND(*static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0);
    DEMAND(c == d && !workspace && !workspace_bytes);
    const Layout &weight = known<Layout>(a_layout), &x = known<Layout>(b_layout), &target = known<Layout>(d_layout);
    const Layout along{product.type, product.columns, 1, int64_t(product.columns)};
    const bool is_biased = product.operation.epilogue != DEFAULT;
    const auto weight_at = uint64_t(a), x_at = uint64_t(b), target_at = uint64_t(d), bias_at = product.operation.bias;
    DEMAND(elements(weight_at, weight) && elements(x_at, x) && elements(target_at, target));
    DEMAND(!is_biased || elements(bias_at, along));
    DEMAND(!overlap(target_at, target, weight_at, weight) && !overlap(target_at, target, x_at, x));
    DEMAND(!is_biased || !overlap(target_at, target, bias_at, along));
    if (algorithm->way == FAILS || (algorithm->way == LATER && product.depth > 512)) return NOT_SUPPORTED;
    const auto *weight_data = elements(weight_at, weight), *x_data = elements(x_at, x);
    const auto* bias_data = is_biased ? elements(bias_at, along) : nullptr;
    const std::function<void()> make = [=, way = algorithm->way] {
        multiply(product, way, weight_data, x_data, bias_data, static_cast<uint16_t*>(d));
    };
    const uint64_t used[] = {weight_at, x_at, target_at, bias_at};
    ++products;
    return driver<void*, const std::function<void()>*, const uint64_t*, size_t>("emulatedLaunch", stream, &make, used,
                                                                                is_biased ? 4 : 3);
}
