// A thread block on fibers: barriers, warp-wide functions and late copies.
//
// Threads run one at a time until they meet at a barrier or a function of the whole warp. Who runs next is
// drawn by chance, and so is the order of blocks: two threads that touch the same memory with no barrier
// between give other results with other seeds. In half of the blocks all threads are alike; in the others a
// warp runs as far as it can before the next one has a turn, which no fair choice ever makes happen. A
// warp-wide function that not all lanes reach, or where lanes reach different ones, is an error, as is a
// barrier that a thread has left behind by ending.
#pragma once
#include "fiber.hpp"
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulation {

constexpr unsigned WARP = 32;

/// Ends the process with what is wrong with the kernel.
[[noreturn]] inline void fail(const std::string& what) {
    std::fprintf(stderr, "emulation: %s\n", what.c_str());
    std::fflush(stderr);
    std::_Exit(3);
}

/// xorshift64*: the chances of one launch.
class Dice {
public:
    explicit Dice(uint64_t seed) : state_(seed * 2685821657736338717ull + 88172645463325252ull) {}
    /// A number below `count`.
    size_t below(size_t count) {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return size_t((state_ * 2685821657736338717ull) >> 33) % count;
    }

private:
    uint64_t state_;
};

/// What a warp-wide function sees of every lane: a structure of the function's own.
using Lanes = void* const (&)[WARP];
using Collective = void (*)(Lanes);

/// A copy from global to shared memory that has been begun.
struct Copy {
    void* to;
    const void* from;
    size_t bytes;  // 0 writes zeros
    size_t room;
    void make() const {
        std::memcpy(to, from, bytes);
        std::memset(static_cast<char*>(to) + bytes, 0, room - bytes);
    }
};

class Block;

struct Thread {
    Fiber fiber;
    Block* block = nullptr;
    dim3 index;
    unsigned number = 0;  // in the block
    enum { READY, AT_BARRIER, IN_WARP, DONE } state = READY;
    Collective collective = nullptr;
    void* lane = nullptr;
    std::vector<std::vector<Copy>> groups;  // committed, oldest first
    std::vector<Copy> open;
};

/// The thread that has its turn.
inline Thread* current = nullptr;
inline dim3 current_block, block_size, grid_size;
/// Shared memory of the block, of the launch's size, and readable by no byte more.
inline char* shared_memory = nullptr;

class Block {
public:
    Block(unsigned threads, const std::function<void()>& body, Dice& dice) : dice_(dice), body_(body) {
        for (unsigned i = 0; i < threads; ++i) {
            threads_.push_back(std::make_unique<Thread>());
            threads_[i]->block = this;
            threads_[i]->number = i;
            threads_[i]->index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
        }
    }

    /// Runs all threads to their end.
    void run() {
        shuffle_warps(dice_.below(2) == 0);
        for (auto& thread : threads_) {
            thread->state = Thread::READY;
            thread->fiber.start([](void* block) { static_cast<Block*>(block)->body_(); }, this);
            make_ready(thread.get());
        }
        waiting_ = 0;
        size_t running = threads_.size();
        while (running) {
            Thread* thread = choose();
            current = thread;
            thread->fiber.turn();
            current = nullptr;
            if (thread->fiber.is_done()) {
                if (!thread->open.empty() || !thread->groups.empty()) fail("a thread ended before its copies");
                thread->state = Thread::DONE;
                --running;
                if (waiting_) fail("a thread ended while others wait at a barrier for it");
            }
        }
    }

    /// `__syncthreads`.
    void barrier() {
        Thread* self = current;
        self->state = Thread::AT_BARRIER;
        if (++waiting_ == threads_.size()) {
            waiting_ = 0;
            for (auto& thread : threads_) make_ready(thread.get());
        }
        self->fiber.give_back();
    }

    /// Meets the other lanes of the warp; the last one does the work for all.
    void warp(Collective function, void* lane) {
        Thread* self = current;
        self->state = Thread::IN_WARP;
        self->collective = function;
        self->lane = lane;
        unsigned first = self->number / WARP * WARP;
        if (first + WARP > threads_.size()) fail("a warp-wide function in a block whose last warp is not whole");
        void* lanes[WARP];
        for (unsigned i = 0; i < WARP; ++i) {
            Thread* other = threads_[first + i].get();
            if (other->state == Thread::DONE) fail("a warp-wide function after a lane has ended");
            if (other->state != Thread::IN_WARP) return self->fiber.give_back();
            if (other->collective != function) fail("lanes of a warp are in different functions");
            lanes[i] = other->lane;
        }
        function(lanes);
        for (unsigned i = 0; i < WARP; ++i) make_ready(threads_[first + i].get());
        self->fiber.give_back();
    }

    /// Whether a copy is made at once or only when it is waited for.
    bool is_late() { return dice_.below(2) == 0; }

private:
    /// Gives warps their places in the queue: all the same, or each its own.
    void shuffle_warps(bool are_alike) {
        size_t warps = (threads_.size() + WARP - 1) / WARP;
        places_.assign(warps, 0);
        ready_.assign(are_alike ? 1 : warps, {});
        if (are_alike) return;
        for (size_t i = 0; i < warps; ++i) {
            size_t other = dice_.below(i + 1);
            places_[i] = places_[other];
            places_[other] = i;
        }
    }

    /// One of those that are ready, of the first place that has any.
    Thread* choose() {
        for (auto& ready : ready_) {
            if (ready.empty()) continue;
            size_t chosen = dice_.below(ready.size());
            Thread* thread = ready[chosen];
            ready[chosen] = ready.back();
            ready.pop_back();
            return thread;
        }
        fail(stuck());
    }

    void make_ready(Thread* thread) {
        thread->state = Thread::READY;
        ready_[places_[thread->number / WARP]].push_back(thread);
    }

    std::string stuck() const {
        size_t barrier = 0, warp = 0, done = 0;
        for (auto& thread : threads_) {
            barrier += thread->state == Thread::AT_BARRIER;
            warp += thread->state == Thread::IN_WARP;
            done += thread->state == Thread::DONE;
        }
        return "threads wait for each other: " + std::to_string(barrier) + " at a barrier, " + std::to_string(warp) +
               " in a warp-wide function, " + std::to_string(done) + " ended";
    }

    Dice& dice_;
    const std::function<void()>& body_;
    std::vector<std::unique_ptr<Thread>> threads_;
    std::vector<std::vector<Thread*>> ready_;  // by their warps' places
    std::vector<size_t> places_;               // of warps; the lowest runs first
    size_t waiting_ = 0;
};

}  // namespace emulation
