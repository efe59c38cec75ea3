// A driver's library over the emulation, for the tests of what calls the driver: what of libcuda.so.1 the
// device uses, on a card that is not there. Everything is done late (streams.hpp), and memory is taken for each
// thing when it is first used. What a caller must not do ends the process, and says on stderr what it was.
//
// TENSOR_ROUNDING in the environment is how its tensor cores add (emulation.hpp): `exact`, `truncate8`.
// DRIVER_VERSION, CAPABILITY, MEMORY_KIB and COMPILER_SAYS in the environment make it another driver, another
// card, one with less memory, and one whose compiler refuses the kernels; COMPILER_MS, one whose compiler takes
// its time; DRIVER_SEED, one that does its work in another order. DRIVER_TAKES is `once` for one that takes
// memory of its own at the first launch that does anything, and `always` for one that does so at every launch.
// NEIGHBOURS: see desktop.hpp. Under the name of libnvidia-ml.so.1 it is NVML as well.
#include KERNELS
#include "desktop.hpp"
#include "loaded.hpp"
#include "streams.hpp"
#include <algorithm>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#define API extern "C" __attribute__((visibility("default"))) int
#define DEMAND(condition) \
    if (!(condition)) emulation::fail(std::string(__func__) + ": not so: " #condition)

namespace {

enum : int { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, UNSUPPORTED_PTX = 222, NOT_READY = 600 };

constexpr int CARD = 7;
constexpr size_t CONTEXT_BYTES = 300 << 20, MODULE_BYTES = 4 << 20, PAGE_BYTES = 2 << 20;

using emulation::Point;
using emulation::Range;
using emulation::Work;

struct Event {
    std::shared_ptr<Point> last;  // where it was recorded
};

using emulation::Function;
using emulation::Module;

std::recursive_mutex mutex;
int contexts = 0;
size_t used_bytes = 0;
std::map<uintptr_t, size_t> memory, pinned;
std::set<void*> events;
std::set<Module*> modules;
std::map<const void*, Function> functions;
std::set<std::string> set_up;  // what has been used before
std::map<void*, char> roles;   // of streams
thread_local void* current_context = nullptr;
// The copy of this thread from or to memory that is not pinned.
thread_local std::shared_ptr<Point> unpinned_copy;

size_t pages(size_t bytes) { return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

int setting(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

size_t memory_bytes() { return size_t(setting("MEMORY_KIB", 16 << 20)) << 10; }

emulation::Neighbours& neighbours() {
    static emulation::Neighbours all;
    return all;
}

size_t free_bytes() { return memory_bytes() - std::min(used_bytes + neighbours().bytes(), memory_bytes()); }

int capability() { return setting("CAPABILITY", 89); }

// Of a multiprocessor: its shared memory, what of that every block costs besides, and its threads.
int shared_bytes() {
    switch (capability()) {
        case 80: case 87: return 164 << 10;
        case 90: case 100: case 103: return 228 << 10;
        default: return capability() < 80 ? 64 << 10 : 100 << 10;
    }
}
int reserved_bytes() { return capability() < 80 ? 0 : 1 << 10; }
int most_shared_bytes() { return shared_bytes() - reserved_bytes(); }
unsigned most_threads() { return capability() < 80 ? 1024 : 1536; }

// Threads that copy may be there to the very end of the process, and so are the streams.
emulation::Streams& streams() {
    static auto& all = *new emulation::Streams(uint64_t(setting("DRIVER_SEED", 1)));
    return all;
}

// Takes memory for what is used for the first time, as drivers do, and keeps it as long as the context.
void use(const std::string& what) {
    if (set_up.insert(what).second) used_bytes += PAGE_BYTES;
}

// Memory that a driver takes beside what it is asked for, as DRIVER_TAKES has it.
void take_beside() {
    static size_t launches = 0;
    const char* text = std::getenv("DRIVER_TAKES");
    if (text && !std::strcmp(text, "once")) use("beside");
    if (text && !std::strcmp(text, "always")) use("beside, " + std::to_string(++launches));
}

bool holds(const std::map<uintptr_t, size_t>& all, const void* first, size_t bytes) {
    auto after = all.upper_bound(uintptr_t(first));
    if (after == all.begin()) return false;
    --after;
    return uintptr_t(first) + bytes <= after->first + after->second;
}

// Whoever calls must have entered the context; and must wait for what it copies from and to memory that is not
// pinned before it does anything else.
std::unique_lock<std::recursive_mutex> enter(const char* who, bool is_to_wait) {
    std::unique_lock<std::recursive_mutex> lock(mutex);
    if (!contexts || current_context != &contexts) emulation::fail(std::string(who) + ": outside the context");
    if (unpinned_copy && unpinned_copy->is_passed) unpinned_copy = nullptr;
    if (unpinned_copy && !is_to_wait)
        emulation::fail(std::string(who) + ": a copy of memory that is not pinned has not been waited for");
    return lock;
}

// The device has a stream for each: kernels with all else that is to be in order with them, and either way of
// the copies beside.
constexpr char COMPUTING = 'c', UPLOADING = 'u', DOWNLOADING = 'd';

bool has_role(void* stream, char role) {
    return streams().has(stream) && roles.emplace(stream, role).first->second == role;
}

// Host memory is read and written when the copy's turn comes, be it pinned or not.
int copy(void* to, const void* from, size_t bytes, void* on_card, void* stream) {
    if (!holds(memory, on_card, bytes)) return INVALID_VALUE;
    const bool is_upload = on_card == to;
    const void* on_host = is_upload ? from : to;
    const bool is_pinned = holds(pinned, on_host, bytes);
    DEMAND(has_role(stream, !is_pinned ? COMPUTING : is_upload ? UPLOADING : DOWNLOADING));
    use(std::string(is_upload ? "to the card" : "from the card") + (is_pinned ? "" : ", not pinned"));
    std::vector<Range> used = {{uintptr_t(to), bytes}, {uintptr_t(from), bytes}};
    auto done = streams().ask(stream, Work{[=] { std::memcpy(to, from, bytes); }, used, nullptr, nullptr});
    if (!is_pinned) unpinned_copy = done;
    return SUCCESS;
}

}  // namespace

#define ENTERED auto entered = enter(__func__, false)
#define ENTERED_TO_WAIT auto entered = enter(__func__, true)

API cuInit(unsigned flags) {
    DEMAND(flags == 0);
    if (const char* rounding = std::getenv("TENSOR_ROUNDING")) emulation::set_tensor_rounding(rounding);
    return SUCCESS;
}
API cuDriverGetVersion(int* version) {
    *version = setting("DRIVER_VERSION", 12040);
    return SUCCESS;
}
API cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}
API cuDeviceGet(int* device, int index) {
    DEMAND(index == 0);
    *device = CARD;
    return SUCCESS;
}
API cuDeviceGetName(char* name, int length, int device) {
    DEMAND(device == CARD && length > 0);
    std::snprintf(name, size_t(length), "Emulated card");
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int device) {
    DEMAND(device == CARD);
    *bytes = memory_bytes();
    return SUCCESS;
}
API cuDeviceGetAttribute(int* value, int attribute, int device) {
    DEMAND(device == CARD);
    switch (attribute) {
        case 13: *value = 1500000; break;  // clock, in kHz
        case 16: *value = 1; break;  // multiprocessors
        case 75: *value = capability() / 10; break;
        case 76: *value = capability() % 10; break;
        case 81: *value = shared_bytes(); break;        // of a multiprocessor
        case 97: *value = most_shared_bytes(); break;   // of a block
        case 111: *value = reserved_bytes(); break;     // that a block costs besides
        default: DEMAND(!"an attribute that is not known here");
    }
    return SUCCESS;
}
API cuDeviceGetUuid_v2(char* uuid, int device) {
    DEMAND(device == CARD);
    std::memset(uuid, 1, 16);
    return SUCCESS;
}

API cuDevicePrimaryCtxRetain(void** context, int device) {
    DEMAND(device == CARD);
    std::lock_guard<std::recursive_mutex> lock(mutex);
    if (contexts++ == 0) used_bytes += CONTEXT_BYTES;
    *context = &contexts;
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int device) {
    DEMAND(device == CARD);
    std::lock_guard<std::recursive_mutex> lock(mutex);
    DEMAND(contexts > 0);
    if (--contexts == 0) {
        DEMAND(memory.empty() && pinned.empty() && streams().is_empty() && events.empty() && modules.empty());
        used_bytes -= CONTEXT_BYTES + set_up.size() * PAGE_BYTES;
        set_up.clear();
    }
    return SUCCESS;
}
API cuCtxSetCurrent(void* context) {
    current_context = context;
    return SUCCESS;
}

API cuCtxGetCurrent(void** context) {
    *context = current_context;
    return SUCCESS;
}

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTERED;
    neighbours().live();
    *free = free_bytes(), *total = memory_bytes();
    return SUCCESS;
}
API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    ENTERED;
    void* first = nullptr;
    if (bytes > free_bytes() || posix_memalign(&first, 256, bytes)) return OUT_OF_MEMORY;
    *address = uintptr_t(first);
    memory[uintptr_t(first)] = bytes;
    used_bytes += pages(bytes);
    return SUCCESS;
}
API cuMemFree_v2(uint64_t address) {
    ENTERED;
    auto found = memory.find(address);
    DEMAND(found != memory.end());
    // A real driver would wait. Whoever relies on that says nowhere what for.
    DEMAND(!streams().is_used({address, found->second}));
    used_bytes -= pages(found->second);
    std::free(reinterpret_cast<void*>(address));
    memory.erase(found);
    return SUCCESS;
}
API cuMemGetAddressRange_v2(uint64_t* first, size_t* bytes, uint64_t address) {
    ENTERED;
    auto found = memory.upper_bound(address);
    if (found == memory.begin()) return INVALID_VALUE;
    --found;
    *first = found->first, *bytes = found->second;
    return address < *first + *bytes ? SUCCESS : INVALID_VALUE;
}
API cuMemHostAlloc(void** first, size_t bytes, unsigned) {
    ENTERED;
    if (posix_memalign(first, 4096, bytes)) return OUT_OF_MEMORY;
    pinned[uintptr_t(*first)] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void* first) {
    ENTERED;
    auto found = pinned.find(uintptr_t(first));
    DEMAND(found != pinned.end() && !streams().is_used({found->first, found->second}));
    pinned.erase(found);
    std::free(first);
    return SUCCESS;
}

API cuStreamCreate(void** stream, unsigned flags) {
    ENTERED;
    DEMAND(flags == 1);  // non-blocking: does not wait for what others do in this process
    *stream = streams().create();
    return SUCCESS;
}
API cuStreamDestroy_v2(void* stream) {
    ENTERED;
    DEMAND(streams().destroy(stream));
    roles.erase(stream);
    return SUCCESS;
}
API cuStreamWaitEvent(void* stream, void* event, unsigned flags) {
    ENTERED;
    DEMAND(streams().has(stream) && events.count(event) && flags == 0);
    // Where the event is now: if it is recorded again, this stays.
    auto last = static_cast<Event*>(event)->last;
    DEMAND(last);
    streams().ask(stream, Work{nullptr, {}, last, nullptr});
    return SUCCESS;
}
API cuEventCreate(void** event, unsigned flags) {
    ENTERED_TO_WAIT;
    DEMAND(flags == 3);  // whoever waits sleeps; no timing
    events.insert(*event = new Event);
    return SUCCESS;
}
API cuEventDestroy_v2(void* event) {
    ENTERED;
    DEMAND(events.erase(event));
    delete static_cast<Event*>(event);
    return SUCCESS;
}
API cuEventRecord(void* event, void* stream) {
    ENTERED_TO_WAIT;
    DEMAND(events.count(event) && streams().has(stream));
    static_cast<Event*>(event)->last = streams().ask(stream, Work{});
    return SUCCESS;
}
API cuEventQuery(void* event) {
    ENTERED;
    DEMAND(events.count(event) && static_cast<Event*>(event)->last);
    return streams().ask_for(*static_cast<Event*>(event)->last) ? SUCCESS : NOT_READY;
}
API cuEventSynchronize(void* event) {
    ENTERED_TO_WAIT;
    DEMAND(events.count(event) && static_cast<Event*>(event)->last);
    streams().reach(*static_cast<Event*>(event)->last);
    return SUCCESS;
}

API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    ENTERED;
    auto* card = reinterpret_cast<void*>(to);
    return copy(card, from, bytes, card, stream);
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    ENTERED;
    auto* card = reinterpret_cast<void*>(from);
    return copy(to, card, bytes, card, stream);
}
API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    ENTERED;
    DEMAND(has_role(stream, COMPUTING));
    auto* card = reinterpret_cast<void*>(to);
    if (!holds(memory, card, bytes)) return INVALID_VALUE;
    use(to % 4 || bytes % 4 ? "a fill of bytes" : "a fill of words");
    streams().ask(stream, Work{[=] { std::memset(card, value, bytes); }, {{to, bytes}}, nullptr, nullptr});
    return SUCCESS;
}

API cuModuleLoadDataEx(void** module, const void* image, unsigned count, int* options, void** values) {
    ENTERED;
    // The buffer for the compiler's errors, and its size.
    DEMAND(count == 2 && options[0] == 5 && options[1] == 6);
    if (const char* said = std::getenv("COMPILER_SAYS")) {
        std::snprintf(static_cast<char*>(values[0]), size_t(values[1]), "%s", said);
        return UNSUPPORTED_PTX;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(setting("COMPILER_MS", 0)));
    used_bytes += MODULE_BYTES;
    auto* made = new Module{static_cast<char*>(values[0]), size_t(values[1]), values};
    // How much was said: the size's place is where it is told.
    values[1] = nullptr;
    std::memset(made->log, 0, made->log_bytes);
    made->write_log();
    modules.insert(made);
    *module = made;
    (void)image;
    return SUCCESS;
}
API cuModuleUnload(void* module) {
    ENTERED;
    auto* unloaded = static_cast<Module*>(module);
    DEMAND(modules.erase(unloaded));
    unloaded->write_log();
    used_bytes -= MODULE_BYTES;
    delete unloaded;
    return SUCCESS;
}
API cuModuleGetFunction(void** function, void* module, const char* name) {
    ENTERED;
    DEMAND(modules.count(static_cast<Module*>(module)));
    auto found = emulation::kernels().find(name);
    DEMAND(found != emulation::kernels().end());
    *function = &found->second;
    functions[*function] = Function{};
    return SUCCESS;
}
API cuFuncGetAttribute(int* value, int attribute, void* function) {
    ENTERED;
    DEMAND(functions.count(function));
    switch (attribute) {
        case 1: *value = 0; break;   // static shared memory
        case 3: *value = 0; break;   // local memory
        case 4: *value = 32; break;  // registers
        default: DEMAND(!"an attribute that is not known here");
    }
    return SUCCESS;
}
API cuFuncSetAttribute(void* function, int attribute, int value) {
    ENTERED;
    DEMAND(functions.count(function));
    switch (attribute) {
        case 8:  // the most dynamic shared memory
            DEMAND(value == most_shared_bytes());
            functions[function].shared_bytes = value;
            break;
        case 9:  // how much of a multiprocessor's memory is to be shared memory
            DEMAND(value >= -1 && value <= 100);
            functions[function].carveout = value;
            break;
        default: DEMAND(!"an attribute that is not known here");
    }
    return SUCCESS;
}

// A driver that is not asked for more leaves room for one block, and the rest to the cache.
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t dynamic_bytes) {
    ENTERED;
    DEMAND(functions.count(function) && threads > 0);
    const Function& asked = functions[function];
    DEMAND(int(dynamic_bytes) <= asked.shared_bytes);
    const size_t of_block = dynamic_bytes + size_t(reserved_bytes());
    const size_t room = asked.carveout < 0 ? of_block : size_t(shared_bytes()) * size_t(asked.carveout) / 100;
    *blocks = int(std::min(most_threads() / unsigned(threads), unsigned(room / std::max<size_t>(of_block, 1))));
    return SUCCESS;
}

// Work for the computing stream by a library of its own (blas.cpp), and where what it uses begins. It takes the
// place of a launch.
API emulatedLaunch(void* stream, const std::function<void()>* run, const uint64_t* used, size_t count) {
    ENTERED;
    DEMAND(has_role(stream, COMPUTING));
    std::vector<Range> ranges;
    for (size_t i = 0; i < count; ++i) ranges.push_back({used[i], 1});
    streams().launch(stream, Work{*run, ranges, nullptr, nullptr});
    return SUCCESS;
}

namespace {

struct Launch {
    const emulation::Kernel* kernel;
    dim3 grid, block;
    size_t shared_bytes;
    std::vector<uint64_t> arguments;

    void run() const {
        using namespace emulation;
        grid_size = grid, block_size = block;
        Dice dice(1);
        const std::function<void()> body = [&] { kernel->run(arguments.data()); };
        Block threads(block.x * block.y * block.z, body, dice);
        std::vector<char> shared(shared_bytes + 128);
        shared_memory = reinterpret_cast<char*>((uintptr_t(shared.data()) + 127) / 128 * 128);
        for (unsigned z = 0; z < grid.z; ++z)
            for (unsigned y = 0; y < grid.y; ++y)
                for (unsigned x = 0; x < grid.x; ++x) {
                    current_block = {x, y, z};
                    threads.run();
                }
    }

    // Whatever among the arguments is an address of the card.
    std::vector<Range> used() const {
        std::vector<Range> ranges;
        for (uint64_t word : arguments)
            if (holds(memory, reinterpret_cast<const void*>(word), 1)) ranges.push_back({word, 1});
        return ranges;
    }
};

}  // namespace

API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void* stream, void** parameters, void** extra) {
    ENTERED;
    const auto* kernel = static_cast<const emulation::Kernel*>(function);
    DEMAND(has_role(stream, COMPUTING) && !parameters && int(shared_bytes) <= most_shared_bytes());
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
    DEMAND(size_t(extra[0]) == 1 && size_t(extra[2]) == 2 && !extra[4]);
    DEMAND(*static_cast<size_t*>(extra[3]) == kernel->argument_bytes);
    DEMAND(gx && gy && gz && bx * by * bz > 0 && bx * by * bz <= kernel->most_threads);
    for (auto& [name, known] : emulation::kernels())
        if (&known == kernel) use(name);
    for (Module* module : modules) module->write_log();
    // In words as wide as an address, so that addresses among them are found.
    std::vector<uint64_t> arguments((kernel->argument_bytes + 7) / 8);
    std::memcpy(arguments.data(), extra[1], kernel->argument_bytes);
    if (arguments[0]) take_beside();
    auto launch = std::make_shared<Launch>(
        Launch{kernel, {gx, gy, gz}, {bx, by, bz}, shared_bytes, std::move(arguments)});
    streams().launch(stream, Work{[launch] { launch->run(); }, launch->used(), nullptr, nullptr});
    return SUCCESS;
}

// What NVML has of the same card, for who asks by that library's name.

API nvmlInit_v2() { return emulation::NVML_SUCCESS; }
API nvmlShutdown() { return emulation::NVML_SUCCESS; }
API nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
    static int card;
    if (std::strcmp(uuid, "GPU-01010101-0101-0101-0101-010101010101")) return emulation::NVML_NOT_FOUND;
    *device = &card;
    return emulation::NVML_SUCCESS;
}
API nvmlDeviceGetMemoryInfo_v2(void*, emulation::NvmlMemory* memory) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    neighbours().live();
    memory->total = memory_bytes(), memory->reserved = 0, memory->free = free_bytes();
    memory->used = memory->total - memory->free;
    return emulation::NVML_SUCCESS;
}
API nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, emulation::NvmlProcess* processes) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    return emulation::nvml_list(emulation::nvml_pid(), used_bytes, count, processes);
}
API nvmlDeviceGetGraphicsRunningProcesses_v3(void*, unsigned* count, emulation::NvmlProcess* processes) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    neighbours().live();
    return emulation::nvml_list(1, neighbours().bytes(), count, processes);
}
