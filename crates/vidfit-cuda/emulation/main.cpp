// Runs kernels for whoever holds the other ends of stdin and stdout.
//
//     emulation FILE BYTES ROUNDING
//
// ROUNDING is how tensor cores add (`set_tensor_rounding`).
//
// The device's memory is FILE, mapped at a fixed address in both processes. A launch names the ranges that
// the kernel may touch; all other memory is poisoned meanwhile, so that the address sanitizer ends the
// process at the first access outside, and says on stderr where. A launch, in the host's byte order:
//
//     u32 length, name · u32 grid[3] · u32 block[3] · u32 shared bytes · u64 seed
//     u32 length, arguments · u32 count, count times (u64 address, u64 bytes)
//
// One byte, 0, is the answer once it is done. End of file ends the program.
#include KERNELS
#include "matrix_check.cu"
#include <fcntl.h>
#include <numeric>
#include <unistd.h>

namespace {

constexpr uintptr_t BASE = 0x200000000000;

bool read_all(void* to, size_t bytes) {
    auto* place = static_cast<char*>(to);
    while (bytes) {
        ssize_t got = read(STDIN_FILENO, place, bytes);
        if (got <= 0) return false;
        place += got;
        bytes -= size_t(got);
    }
    return true;
}

template <typename T>
T take() {
    T value;
    if (!read_all(&value, sizeof value)) emulation::fail("a launch was cut off");
    return value;
}

std::string take_bytes() {
    std::string bytes(take<uint32_t>(), '\0');
    if (!read_all(bytes.data(), bytes.size())) emulation::fail("a launch was cut off");
    return bytes;
}

dim3 take_dim3() {
    dim3 size;
    size.x = take<uint32_t>(), size.y = take<uint32_t>(), size.z = take<uint32_t>();
    return size;
}

void launch(const emulation::Kernel& kernel, const std::string& arguments, size_t shared_bytes, uint64_t seed) {
    using namespace emulation;
    Dice dice(seed);
    unsigned threads = block_size.x * block_size.y * block_size.z;
    const std::function<void()> body = [&] { kernel.run(arguments.data()); };
    Block block(threads, body, dice);
    std::vector<unsigned> order(size_t(grid_size.x) * grid_size.y * grid_size.z);
    std::iota(order.begin(), order.end(), 0u);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[dice.below(i)]);
    for (unsigned number : order) {
        current_block = {number % grid_size.x, number / grid_size.x % grid_size.y,
                         number / (grid_size.x * grid_size.y)};
        // Of exactly this size, and full of what makes every sum wrong.
        void* memory = nullptr;
        if (posix_memalign(&memory, 128, shared_bytes ? shared_bytes : 1)) fail("no memory for shared memory");
        std::memset(memory, 0xff, shared_bytes);
        shared_memory = static_cast<char*>(memory);
        block.run();
        std::free(memory);
    }
}

}  // namespace

int main(int count, char** arguments) {
    using namespace emulation;
    if (count != 4) fail("emulation FILE BYTES ROUNDING");
    set_tensor_rounding(arguments[3]);
    size_t bytes = std::strtoull(arguments[2], nullptr, 10);
    int file = open(arguments[1], O_RDWR);
    if (file < 0) fail(std::string("cannot open ") + arguments[1]);
    void* memory = mmap(reinterpret_cast<void*>(BASE), bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED_NOREPLACE, file, 0);
    if (memory != reinterpret_cast<void*>(BASE)) fail("the device's memory cannot be mapped at its address");

    uint32_t length;
    while (read_all(&length, sizeof length)) {
        std::string name(length, '\0');
        if (!read_all(name.data(), length)) fail("a launch was cut off");
        grid_size = take_dim3();
        block_size = take_dim3();
        size_t shared_bytes = take<uint32_t>();
        uint64_t seed = take<uint64_t>();
        std::string given = take_bytes();
        ASAN_POISON_MEMORY_REGION(memory, bytes);
        for (uint32_t ranges = take<uint32_t>(); ranges; --ranges) {
            uint64_t first = take<uint64_t>(), length = take<uint64_t>();
            if (first < BASE || first - BASE > bytes || length > bytes - (first - BASE))
                fail(name + " may touch what is not the device's memory");
            ASAN_UNPOISON_MEMORY_REGION(reinterpret_cast<void*>(first), length);
        }
        auto kernel = kernels().find(name);
        if (kernel == kernels().end()) fail("there is no kernel " + name);
        if (given.size() != kernel->second.argument_bytes)
            fail(name + " takes " + std::to_string(kernel->second.argument_bytes) + " bytes of arguments, not " +
                 std::to_string(given.size()));
        if (block_size.x * block_size.y * block_size.z > kernel->second.most_threads)
            fail(name + " takes at most " + std::to_string(kernel->second.most_threads) + " threads");
        launch(kernel->second, given, shared_bytes, seed);
        char done = 0;
        if (write(STDOUT_FILENO, &done, 1) != 1) return 1;
    }
}
