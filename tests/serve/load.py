#!/usr/bin/env python3
"""Many clients at a time, then `kill -9` at random moments: every accepted order becomes one video, whatever happens.

    tests/serve/load.py target/release/vidfit [--requests 500] [--clients 50] [--kills 20] [--seed 1]

First, all requests from all clients, undisturbed; then as many orders as there is time for while the server, its worker
or both are killed. Both with the demo model; the videos of the second part have to be those of the first, byte by byte.
"""

import argparse
import hashlib
import itertools
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from server import DEMO, Claims, Server, frames, resident_mb, within

FRAMES = 9
# What the memory may grow by between the second and the last quarter of a run.
MAX_GROWTH_MB = 6
# No part takes longer, whatever goes wrong.
MAX_SECONDS = 900


def order(number: int) -> dict:
    return {"prompt": f"ball {number} moves right", "num_frames": FRAMES, "num_inference_steps": 4, "seed": number}


class Clients:
    """Threads that order videos, each one after the other, until there are enough of them."""

    def __init__(self, server: Server, count: int, most: int, pause: float = 0):
        self.server, self.most, self.pause = server, most, pause
        self.numbers = itertools.count()
        self.accepted: dict[int, str] = {}
        self.answers, self.problems = Counter(), []
        self.enough = threading.Event()
        self.until = time.monotonic() + MAX_SECONDS
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self):
        while not self.enough.is_set():
            number = next(self.numbers)
            if number >= self.most:
                return
            self.place(number)
            if self.pause:
                self.enough.wait(random.uniform(0, self.pause))

    def place(self, number: int):
        """Orders until it is accepted, with a key, so that an answer that got lost does not make a second video."""
        while time.monotonic() < self.until:
            try:
                answer = self.server.post("/v1/videos", order(number), **{"Idempotency-Key": f"order {number}"})
            except OSError:
                self.answers["no answer"] += 1
                time.sleep(0.2)
                continue
            except Exception as error:
                # Half an answer, from a server that was killed.
                self.answers[type(error).__name__] += 1
                time.sleep(0.2)
                continue
            self.answers[answer.status] += 1
            if answer.status == 200:
                self.accepted[number] = answer.json["id"]
                return
            if answer.status != 429 or not answer.headers.get("Retry-After", "").isdigit():
                self.problems.append((answer.status, answer.body[:200]))
                return
            # At the end of the killing, what was not accepted need not be.
            if self.enough.wait(min(int(answer.headers["Retry-After"]), 60)):
                return

    def wait(self):
        for thread in self.threads:
            thread.join(max(1.0, self.until - time.monotonic()))


class Memory:
    """What the server and its worker hold, four times a second."""

    def __init__(self, server: Server):
        self.server, self.over = server, threading.Event()
        self.held: dict[str, list[float]] = {"server": [], "worker": []}
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.over.wait(0.25):
            processes = [("server", self.server.process.pid), *(("worker", pid) for pid in self.server.workers())]
            for name, pid in processes:
                held = resident_mb(pid)
                if held:
                    self.held[name].append(held)

    def check(self, claim: Claims):
        self.over.set()
        self.thread.join()
        for name, held in self.held.items():
            if len(held) < 16:
                claim(False, f"memory of the {name}: only {len(held)} samples")
                continue
            quarters = [statistics.median(held[len(held) * part // 4 : len(held) * (part + 1) // 4]) for part in range(4)]
            told = ", ".join(f"{quarter:.1f}" for quarter in quarters)
            claim(
                quarters[3] - quarters[1] <= MAX_GROWTH_MB,
                f"memory of the {name} is flat: {told} MB (medians of the quarters of {len(held)} samples), at most {max(held):.1f}",
            )


def all_over(server: Server, seconds: float) -> bool:
    def is_over():
        counts = [server.get(f"/v1/videos?limit=1&status={status}").json["data"] for status in ("queued", "in_progress")]
        return not any(counts)

    return within(seconds, is_over)


def check_videos(server: Server, accepted: dict[int, str], claim: Claims) -> dict[int, str]:
    """Every accepted order is one completed video that plays; gives the digests of all of them."""
    videos = {video["id"]: video for video in server.videos()}
    states = Counter(video["status"] for video in videos.values())
    lost = [number for number, id in accepted.items() if videos.get(id, {}).get("status") != "completed"]
    claim(not lost, f"of {len(accepted)} accepted orders, {len(accepted) - len(lost)} are completed ({dict(states)})")
    for number in lost[:5]:
        print("      ", number, videos.get(accepted[number], {}).get("error"))
    twice = [prompt for prompt, count in Counter(video["prompt"] for video in videos.values()).items() if count > 1]
    claim(not twice, f"{len(videos)} jobs for {len(videos) - len(twice)} orders: none is there twice")
    ended = Counter(line["job"] for line in server.log("job ended"))
    claim(max(ended.values()) == 1, f"no job ended twice: {len(ended)} ended")

    digests, unplayable = {}, []
    for number, id in accepted.items():
        if number in lost:
            continue
        video = server.get(f"/v1/videos/{id}/content").body
        try:
            whole = frames(video) == FRAMES
        except Exception as error:
            whole = False
            print("      ", id, error)
        unplayable += [] if whole else [id]
        digests[number] = hashlib.sha256(video).hexdigest()
    claim(not unplayable, f"{len(digests)} videos have {FRAMES} frames each, whole")
    return digests


def idle(server: Server, claim: Claims):
    claim(within(20, lambda: not server.workers()), "no worker is left when nothing is to do")


def undisturbed(options, folder: Path, claim: Claims) -> dict[int, str]:
    limit = str(max(2, options.requests // 2))
    with Server(options.binary, folder / "load", "--models", str(DEMO), "--max-queue", limit) as server:
        began = time.monotonic()
        memory = Memory(server)
        clients = Clients(server, options.clients, options.requests)
        clients.wait()
        over = all_over(server, MAX_SECONDS)
        seconds = time.monotonic() - began
        claim(over, f"{options.requests} requests of {options.clients} clients, done after {seconds:.0f} s")
        claim(
            not clients.problems and not set(clients.answers) - {200, 429},
            f"no answer but 200 and 429 with Retry-After: {dict(clients.answers)} {clients.problems[:3] or ''}",
        )
        claim(len(clients.accepted) == options.requests, f"{len(clients.accepted)} accepted, none is lost")
        memory.check(claim)
        digests = check_videos(server, clients.accepted, claim)
        accepted = [video["id"] for video in server.videos()]
        ended = [line["job"] for line in server.log("job ended")]
        claim(accepted == ended, f"{len(ended)} completed in the order of acceptance")
        idle(server, claim)
    return digests


def killed(options, folder: Path, wanted: dict[int, str], claim: Claims):
    chance = random.Random(options.seed)
    with Server(options.binary, folder / "kills", "--models", str(DEMO), "--max-queue", "1000") as server:
        # Few clients, so that there is something to order to the end.
        clients = Clients(server, min(4, options.clients), options.requests, pause=2)
        kills, starts, finished = Counter(), [], []
        for number in range(options.kills):
            time.sleep(chance.uniform(0.05, 1.5))
            what = chance.choice(["server", "server", "server and worker", "worker, then server"])
            if what != "server":
                for pid in server.workers():
                    kills["worker"] += kill(pid)
            if what == "worker, then server":
                time.sleep(chance.uniform(0, 3))
            server.kill()
            kills["server"] += 1
            began = time.monotonic()
            server.start()
            starts.append(time.monotonic() - began)
            finished.append(len(server.log("job ended")))
        # And the worker alone, where the server is the one to go on.
        for _ in range(options.kills // 4):
            time.sleep(chance.uniform(0.5, 3))
            for pid in server.workers():
                kills["worker"] += kill(pid)
        clients.enough.set()
        clients.wait()
        over = all_over(server, MAX_SECONDS)
        claim(kills["server"] == options.kills, f"kill -9: {dict(kills)}; up again after {max(starts):.2f} s at most")
        claim(over, f"it goes on after each: jobs ended by then: {finished}, and in the end all")
        claim(not clients.problems, f"answers meanwhile: {dict(clients.answers)} {clients.problems[:3] or ''}")
        digests = check_videos(server, clients.accepted, claim)
        same = sum(wanted[number] == digest for number, digest in digests.items())
        claim(same == len(digests), f"{same} of {len(digests)} videos are those of the undisturbed run, byte by byte")
        again = Counter(line["command"] for line in server.log("job given to the worker"))
        print("       jobs given to workers:", dict(again))
        idle(server, claim)


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    claim = Claims()
    with tempfile.TemporaryDirectory() as folder:
        wanted = undisturbed(options, Path(folder), claim)
        if options.kills:
            killed(options, Path(folder), wanted, claim)
    claim.end()


main()
