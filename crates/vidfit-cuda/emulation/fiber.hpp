// Fibers: a block's threads, taking turns on one core.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

/// A stack that code runs on until it gives its turn back.
class Fiber {
public:
    static constexpr size_t STACK_BYTES = 128 << 10;

    Fiber() {
        if (!spare_stacks().empty()) {
            stack_ = spare_stacks().back();
            spare_stacks().pop_back();
            return;
        }
        stack_ = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack_ == MAP_FAILED) {
            std::perror("cannot map a stack");
            std::exit(2);
        }
    }
    ~Fiber() { spare_stacks().push_back(stack_); }
    Fiber(const Fiber&) = delete;

    /// Lets the fiber begin with `body(argument)` at its next turn.
    void start(void (*body)(void*), void* argument) {
        body_ = body;
        argument_ = argument;
        is_done_ = false;
#if !defined(__SANITIZE_ADDRESS__)
        has_begun_ = false;
#endif
        getcontext(&own_);
        own_.uc_stack.ss_sp = stack_;
        own_.uc_stack.ss_size = STACK_BYTES;
        own_.uc_link = nullptr;
        auto self = reinterpret_cast<uintptr_t>(this);
        makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::enter), 2, unsigned(self >> 32), unsigned(self));
    }

    /// Gives it a turn: returns when it gives it back or is done.
    void turn() {
#if defined(__SANITIZE_ADDRESS__)
        void* fake = nullptr;
        __sanitizer_start_switch_fiber(&fake, stack_, STACK_BYTES);
        swapcontext(&caller_, &own_);
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
        // Contexts ask the kernel for the signal mask at every switch, so they only begin a fiber.
        if (_setjmp(caller_)) return;
        if (has_begun_) _longjmp(own_place_, 1);
        has_begun_ = true;
        setcontext(&own_);
#endif
    }

    /// Gives the turn back. Called on the fiber.
    void give_back() {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(is_done_ ? nullptr : &fake_, caller_stack_, caller_stack_bytes_);
        swapcontext(&own_, &caller_);
        __sanitizer_finish_switch_fiber(fake_, &caller_stack_, &caller_stack_bytes_);
#else
        if (!_setjmp(own_place_)) _longjmp(caller_, 1);
#endif
    }

    bool is_done() const { return is_done_; }

private:
    /// Of fibers that are gone: a launch has hundreds, and they are mapped for the first one alone. Never
    /// given back, so that fibers may go when the process does.
    static std::vector<void*>& spare_stacks() {
        static auto* stacks = new std::vector<void*>;
        return *stacks;
    }

    static void enter(unsigned high, unsigned low) {
        auto* self = reinterpret_cast<Fiber*>((uintptr_t(high) << 32) | low);
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_stack_bytes_);
#endif
        self->body_(self->argument_);
        self->is_done_ = true;
        self->give_back();
    }

    void* stack_ = nullptr;
    ucontext_t own_{};
    void (*body_)(void*) = nullptr;
    void* argument_ = nullptr;
    bool is_done_ = true;
#if defined(__SANITIZE_ADDRESS__)
    ucontext_t caller_{};
    void* fake_ = nullptr;
    const void* caller_stack_ = nullptr;
    size_t caller_stack_bytes_ = 0;
#else
    jmp_buf caller_, own_place_;
    bool has_begun_ = false;
#endif
};

}  // namespace emulation
