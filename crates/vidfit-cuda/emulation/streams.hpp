// The streams of the emulation's driver: queues of work that do nothing before they must.
//
// What is asked of a stream waits until somebody waits for it, or until the dice have it done. Each stream has
// a mood, which the dice change now and then: some do nothing of themselves, others nearly all at once. So the
// streams come to lie in any order that their events allow, and what is right only because a card is fast, or
// because it is slow, goes wrong here.
#pragma once
#include "block.hpp"
#include <deque>

namespace emulation {

/// Launches that may be asked for before the host has waited for any: who asks a real driver for more is held
/// up in it, with everybody else who asks it for something.
constexpr size_t MOST_LAUNCHES = 1000;

struct Stream;

/// The point behind everything that had been asked of a stream.
struct Point {
    Stream* stream;
    size_t launches;  // of the stream before it
    bool is_passed = false;
};

struct Range {
    uintptr_t first;
    size_t bytes;
};

/// One thing that a stream is asked for.
struct Work {
    std::function<void()> run;
    std::vector<Range> used;       // memory of the card and of the host
    std::shared_ptr<Point> after;  // what must be passed before it
    std::shared_ptr<Point> point;  // what is passed with it
};

struct Stream {
    std::deque<Work> queue;
    size_t launches = 0, launches_known_done = 0;
    size_t mood = 0;  // of four times that it might do something of itself, how often it does
};

class Streams {
public:
    explicit Streams(uint64_t seed) : dice_(seed) {}

    void* create() {
        all_.push_back(std::make_unique<Stream>());
        all_.back()->mood = dice_.below(4);
        return all_.back().get();
    }

    bool has(void* stream) const { return find(stream) < all_.size(); }
    bool is_empty() const { return all_.empty(); }

    /// Forgets a stream: whether there was one, with nothing left to do but to pass points.
    bool destroy(void* stream) {
        size_t place = find(stream);
        if (place == all_.size()) return false;
        Stream& destroyed = *all_[place];
        for (const Work& work : destroyed.queue)
            if (work.run) return false;
        if (!destroyed.queue.empty()) reach(*std::shared_ptr<Point>(destroyed.queue.back().point));
        all_.erase(all_.begin() + long(place));
        return true;
    }

    /// Puts work at the end of a stream's queue, and returns the point behind it.
    std::shared_ptr<Point> ask(void* stream, Work work) {
        auto* asked = static_cast<Stream*>(stream);
        work.point = std::make_shared<Point>(Point{asked, asked->launches});
        auto point = work.point;
        asked->queue.push_back(std::move(work));
        dawdle();
        return point;
    }

    /// The same of work that takes a place among a driver's launches.
    void launch(void* stream, Work work) {
        auto* asked = static_cast<Stream*>(stream);
        if (++asked->launches - asked->launches_known_done > MOST_LAUNCHES)
            fail("the host is more than " + std::to_string(MOST_LAUNCHES) + " launches ahead of the card");
        ask(stream, std::move(work));
    }

    /// Does no more than what a point needs. The host is waiting for it.
    void reach(Point& point) {
        while (!point.is_passed) {
            const std::shared_ptr<Point> after = point.stream->queue.front().after;
            if (after && !after->is_passed) reach(*after);
            step(*point.stream);
        }
        note_known(point);
    }

    /// Whether a point is passed, as the host learns.
    bool ask_for(Point& point) {
        dawdle();
        if (point.is_passed) note_known(point);
        return point.is_passed;
    }

    /// Whether anything that was not done uses some of this memory.
    bool is_used(Range memory) const {
        auto overlaps = [&](const Range& used) {
            return used.first < memory.first + memory.bytes && memory.first < used.first + used.bytes;
        };
        for (auto& stream : all_)
            for (const Work& work : stream->queue)
                for (const Range& used : work.used)
                    if (overlaps(used)) return true;
        return false;
    }

private:
    size_t find(void* stream) const {
        size_t place = 0;
        while (place < all_.size() && all_[place].get() != stream) ++place;
        return place;
    }

    /// Does some work, as a card does it while nobody looks.
    void dawdle() {
        if (dice_.below(32) == 0)
            for (auto& stream : all_) stream->mood = dice_.below(4);
        for (auto& stream : all_)
            while (dice_.below(4) < stream->mood && step(*stream)) {
            }
    }

    /// Does the first that a stream was asked for, unless there is nothing or it has to wait.
    bool step(Stream& stream) {
        if (stream.queue.empty()) return false;
        Work& work = stream.queue.front();
        if (work.after && !work.after->is_passed) return false;
        if (work.run) work.run();
        work.point->is_passed = true;
        stream.queue.pop_front();
        return true;
    }

    static void note_known(const Point& point) {
        size_t& known = point.stream->launches_known_done;
        known = known < point.launches ? point.launches : known;
    }

    Dice dice_;
    std::vector<std::unique_ptr<Stream>> all_;
};

}  // namespace emulation
