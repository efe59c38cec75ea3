// A driver's library over the emulation, for the tests of what calls the driver: what of libcuda.so.1 the
// device uses, on a card that is not there. Everything is done when it is asked for. What a caller must not
// do ends the process, and says on stderr what it was.
//
// DRIVER_VERSION, CAPABILITY, MEMORY_KIB and COMPILER_SAYS in the environment make it another driver, another
// card, one with less memory, and one whose compiler refuses the kernels.
#include KERNELS
#include <mutex>
#include <set>

#define API extern "C" __attribute__((visibility("default"))) int
#define DEMAND(condition) \
    if (!(condition)) emulation::fail(std::string(__func__) + ": not so: " #condition)

namespace {

enum : int { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, UNSUPPORTED_PTX = 222, NOT_READY = 600 };

constexpr int CARD = 7, SHARED_BYTES = 99 << 10;
constexpr size_t CONTEXT_BYTES = 300 << 20, PAGE_BYTES = 2 << 20;

struct Event {
    bool is_recorded;
};

std::recursive_mutex mutex;
int contexts = 0;
size_t used_bytes = 0;
std::map<uintptr_t, size_t> memory, pinned;
std::set<void*> streams, events, modules;
void* computing = nullptr;  // the stream that has had kernels or fills
thread_local void* current_context = nullptr;

size_t pages(size_t bytes) { return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

int setting(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

size_t memory_bytes() { return size_t(setting("MEMORY_KIB", 16 << 20)) << 10; }

bool holds(const std::map<uintptr_t, size_t>& all, const void* first, size_t bytes) {
    auto after = all.upper_bound(uintptr_t(first));
    if (after == all.begin()) return false;
    --after;
    return uintptr_t(first) + bytes <= after->first + after->second;
}

// Whoever calls must have entered the context.
std::unique_lock<std::recursive_mutex> enter(const char* who) {
    std::unique_lock<std::recursive_mutex> lock(mutex);
    if (!contexts || current_context != &contexts) emulation::fail(std::string(who) + ": outside the context");
    return lock;
}

int copy(void* to, const void* from, size_t bytes, const void* on_card) {
    if (!holds(memory, on_card, bytes)) return INVALID_VALUE;
    std::memcpy(to, from, bytes);
    return SUCCESS;
}

}  // namespace

#define ENTERED auto entered = enter(__func__)

API cuInit(unsigned flags) {
    DEMAND(flags == 0);
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
    int capability = setting("CAPABILITY", 89);
    switch (attribute) {
        case 16: *value = 1; break;  // multiprocessors
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 97: *value = SHARED_BYTES; break;
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
        DEMAND(memory.empty() && pinned.empty() && streams.empty() && events.empty() && modules.empty());
        used_bytes -= CONTEXT_BYTES;
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
    *free = memory_bytes() - used_bytes, *total = memory_bytes();
    return SUCCESS;
}
API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    ENTERED;
    void* first = nullptr;
    if (bytes > memory_bytes() - used_bytes || posix_memalign(&first, 256, bytes)) return OUT_OF_MEMORY;
    *address = uintptr_t(first);
    memory[uintptr_t(first)] = bytes;
    used_bytes += pages(bytes);
    return SUCCESS;
}
API cuMemFree_v2(uint64_t address) {
    ENTERED;
    auto found = memory.find(address);
    DEMAND(found != memory.end());
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
    DEMAND(pinned.erase(uintptr_t(first)));
    std::free(first);
    return SUCCESS;
}

API cuStreamCreate(void** stream, unsigned flags) {
    ENTERED;
    DEMAND(flags == 1);  // non-blocking: does not wait for what others do in this process
    streams.insert(*stream = new char);
    return SUCCESS;
}
API cuStreamDestroy_v2(void* stream) {
    ENTERED;
    DEMAND(streams.erase(stream));
    delete static_cast<char*>(stream);
    return SUCCESS;
}
API cuStreamQuery(void* stream) {
    ENTERED;
    DEMAND(streams.count(stream));
    return stream == computing ? SUCCESS : NOT_READY;
}
API cuStreamWaitEvent(void* stream, void* event, unsigned flags) {
    ENTERED;
    DEMAND(streams.count(stream) && events.count(event) && flags == 0);
    DEMAND(static_cast<Event*>(event)->is_recorded);
    return SUCCESS;
}
API cuEventCreate(void** event, unsigned flags) {
    ENTERED;
    DEMAND(flags == 3);  // whoever waits sleeps; no timing
    events.insert(*event = new Event{false});
    return SUCCESS;
}
API cuEventDestroy_v2(void* event) {
    ENTERED;
    DEMAND(events.erase(event));
    delete static_cast<Event*>(event);
    return SUCCESS;
}
API cuEventRecord(void* event, void* stream) {
    ENTERED;
    DEMAND(events.count(event) && streams.count(stream));
    static_cast<Event*>(event)->is_recorded = true;
    return SUCCESS;
}
API cuEventQuery(void* event) {
    ENTERED;
    DEMAND(events.count(event) && static_cast<Event*>(event)->is_recorded);
    static unsigned asked = 0;
    return ++asked % 3 ? NOT_READY : SUCCESS;
}
API cuEventSynchronize(void* event) {
    ENTERED;
    DEMAND(events.count(event) && static_cast<Event*>(event)->is_recorded);
    return SUCCESS;
}

API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    ENTERED;
    DEMAND(streams.count(stream));
    auto* card = reinterpret_cast<void*>(to);
    return copy(card, from, bytes, card);
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    ENTERED;
    DEMAND(streams.count(stream));
    auto* card = reinterpret_cast<const void*>(from);
    return copy(to, card, bytes, card);
}
API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    ENTERED;
    DEMAND(streams.count(stream));
    auto* card = reinterpret_cast<void*>(to);
    if (!holds(memory, card, bytes)) return INVALID_VALUE;
    computing = stream;
    std::memset(card, value, bytes);
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
    modules.insert(*module = new std::string(static_cast<const char*>(image)));
    return SUCCESS;
}
API cuModuleUnload(void* module) {
    ENTERED;
    DEMAND(modules.erase(module));
    delete static_cast<std::string*>(module);
    return SUCCESS;
}
API cuModuleGetFunction(void** function, void* module, const char* name) {
    ENTERED;
    DEMAND(modules.count(module));
    auto found = emulation::kernels().find(name);
    DEMAND(found != emulation::kernels().end());
    *function = &found->second;
    return SUCCESS;
}
API cuFuncGetAttribute(int* value, int attribute, void*) {
    ENTERED;
    switch (attribute) {
        case 1: *value = 0; break;   // static shared memory
        case 3: *value = 0; break;   // local memory
        case 4: *value = 32; break;  // registers
        default: DEMAND(!"an attribute that is not known here");
    }
    return SUCCESS;
}
API cuFuncSetAttribute(void*, int attribute, int value) {
    ENTERED;
    DEMAND(attribute == 8 && value == SHARED_BYTES);  // the most dynamic shared memory
    return SUCCESS;
}

API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void* stream, void** parameters, void** extra) {
    using namespace emulation;
    ENTERED;
    const auto& kernel = *static_cast<const Kernel*>(function);
    DEMAND(streams.count(stream) && !parameters && int(shared_bytes) <= SHARED_BYTES);
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
    DEMAND(size_t(extra[0]) == 1 && size_t(extra[2]) == 2 && !extra[4]);
    DEMAND(*static_cast<size_t*>(extra[3]) == kernel.argument_bytes);
    DEMAND(gx && gy && gz && bx * by * bz > 0 && bx * by * bz <= kernel.most_threads);
    computing = stream;
    grid_size.x = gx, grid_size.y = gy, grid_size.z = gz;
    block_size.x = bx, block_size.y = by, block_size.z = bz;
    Dice dice(1);
    const std::function<void()> body = [&] { kernel.run(extra[1]); };
    Block block(bx * by * bz, body, dice);
    std::vector<char> shared(shared_bytes + 128);
    shared_memory = reinterpret_cast<char*>((uintptr_t(shared.data()) + 127) / 128 * 128);
    for (unsigned z = 0; z < gz; ++z)
        for (unsigned y = 0; y < gy; ++y)
            for (unsigned x = 0; x < gx; ++x) {
                current_block = {x, y, z};
                block.run();
            }
    return SUCCESS;
}
