#!/usr/bin/env python3
"""What strangers and broken clients may send: nothing crashes, hangs, is let in, tells a path of the server or gets a 5xx.

    pip install schemathesis                      (left out if it is not there)
    tests/serve/hostile.py target/release/vidfit [--seconds 120] [--no-slow]

The server is started here, with the demo model. --seconds is the time for schemathesis. With --no-slow, what has to wait
for the server's patience to end (five minutes) is left out. The attacks themselves are in attacks.py.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import attacks
from server import DEMO, Claims, Server, resident_mb, within

TOKEN = "the-token-of-this-test"
# Bodies may be so large; bombs are smaller.
MAX_BODY = 16_000_000
# More than this for an answer is a hang.
PATIENCE = 30
# A server that holds more than this has been blown up.
MAX_HELD_MB = 600

# Not asked of the answers, and why:
# - positive_data_acceptance: what a model can make (sides in steps of 16, 8n+1 frames, what fits in memory) stands in no
#   schema, so an order that the schema allows may be refused, with 400 and a reason.
EXCLUDED_CHECKS = "positive_data_acceptance"
# Event streams do not end by themselves; they are tried by hand.
EXCLUDED_PATHS = "events$"


class Watch:
    """The most that the server holds, and whether it answers others meanwhile."""

    def __init__(self, server: Server):
        self.server, self.held, self.held_by_worker, self.slowest, self.silent = server, 0.0, 0.0, 0.0, 0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while self.server.process.poll() is None:
            self.held = max(self.held, resident_mb(self.server.process.pid) or 0)
            for worker in self.server.workers():
                self.held_by_worker = max(self.held_by_worker, resident_mb(worker) or 0)
            began = time.monotonic()
            try:
                self.silent += self.server.call("GET", "/healthz", timeout=PATIENCE).status != 200
            except OSError:
                self.silent += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(0.2)


def leaks(folder: str) -> list[str]:
    """What no answer may have in it."""
    home = str(Path.home())
    return [folder, "/tmp", home, "/root", "/work", str(Path.cwd()), "panicked", "root:x:0", "SQLite format"]


def check_attacks(server: Server, folder: str, video: bytes, claim: Claims):
    """All of attacks.py, one after the other; what is wrong with an answer is said."""
    kinds, wrong, slowest = Counter(), [], (0.0, "")
    for name, wanted, answer, seconds in attacks.all_of(server, PATIENCE, video):
        kind = name.split(":")[0]
        kinds[kind] += 1
        slowest = max(slowest, (seconds, name))
        status, text = attacks.status(answer), answer.decode("latin-1")
        leaked = [word for word in leaks(folder) if word in text]
        if status not in wanted or seconds > PATIENCE or leaked:
            wrong.append(f"{name}: {status}, wanted {wanted}, {seconds:.1f} s, leaks {leaked}: {text[-300:]!r}")
    for line in wrong:
        print("      ", line)
    claim(not wrong, f"{kinds.total()} hostile requests are answered as they should be, the slowest after {slowest[0]:.2f} s ({slowest[1]})")
    print("       of these:", dict(kinds))


def check_jobs(server: Server, claim: Claims):
    """What was taken is made, or fails with a reason."""
    open_states = ("queued", "in_progress")
    over = within(240, lambda: not any(video["status"] in open_states for video in server.videos()))
    videos = server.videos()
    failed = [video["error"] and video["error"]["message"] for video in videos if video["status"] == "failed"]
    leaked = [video["id"] for video in videos if any(word in json.dumps(video) for word in leaks(str(server.queue)))]
    crashed = server.log("the worker ended under a job")
    told = dict(Counter(video["status"] for video in videos))
    claim(over and all(failed) and not leaked, f"what was taken comes to an end: {told}, {sorted(set(failed))[:3]} {leaked or ''}")
    claim(not crashed, f"the worker has lived through all of it {crashed[:2] or ''}")


def check_schema(server: Server, folder: Path, seconds: int, claim: Claims):
    program = shutil.which("schemathesis") or shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if not program or not seconds:
        print("skipped: schemathesis", "is not asked for" if program else "is missing: pip install schemathesis")
        return
    url = f"http://127.0.0.1:{server.port}/openapi.json"
    har = folder / "answers.har"
    words = [program, "run", url, "-H", f"Authorization: Bearer {TOKEN}", "--exclude-path-regex", EXCLUDED_PATHS]
    words += ["--exclude-checks", EXCLUDED_CHECKS, "--max-time", str(seconds), "--seed", "1", "--continue-on-failure"]
    words += ["--request-timeout", str(PATIENCE), "--report", "har", "--report-har-path", str(har)]
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=seconds * 3 + 120)
    if run.returncode:
        print(run.stdout[-8000:], run.stderr[-2000:])
    entries = json.loads(har.read_text())["log"]["entries"] if har.exists() else []
    statuses = Counter(entry["response"]["status"] // 100 for entry in entries)
    told = ", ".join(f"{count} of {kind}xx" for kind, count in sorted(statuses.items()))
    claim(run.returncode == 0 and bool(entries), f"schemathesis finds nothing in {len(entries)} requests (without {EXCLUDED_CHECKS}): {told}")
    claim(statuses[5] == 0, "none of them is a 5xx")
    texts = [entry["response"]["content"].get("text") or "" for entry in entries]
    leaked = [text for text in texts if any(word in text for word in leaks(str(server.queue)))]
    claim(not leaked, f"none of them tells a path of the server {leaked[:1] or ''}")


def check_token(server: Server, claim: Claims):
    before = len(server.videos())
    answers = []
    for header in ["", "Authorization: Bearer wrong-token-wrong-token\r\n", f"Authorization: Basic {TOKEN}\r\n", "Cookie: vidfit_session=0\r\n"]:
        # The body is announced and never sent: who waits for it does not answer.
        head = f"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\n{header}Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        answer, seconds = attacks.raw(server.port, head.encode(), 5)
        answers.append((attacks.status(answer), seconds < 4))
    for method, path in [("GET", "/v1/videos"), ("DELETE", "/v1/videos/x"), ("GET", "/v1/events"), ("GET", "/metrics"), ("POST", "/v1/videos/x/cancel")]:
        answer, seconds = attacks.raw(server.port, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(), 5)
        answers.append((attacks.status(answer), seconds < 4))
    order = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}x"}
    answers.append((server.call("POST", "/v1/videos", b'{"prompt": "a"}', order).status, True))
    refused = all(answer == (401, True) for answer in answers)
    claim(refused and len(server.videos()) == before, f"{len(answers)} requests without the token: 401 at once, nothing is read or queued {'' if refused else answers}")


def check_slow_heads(server: Server, claim: Claims):
    """Many connections that send their headers byte by byte."""
    slow = attacks.Drips(server.port, 150, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", every=2)
    began, answered = time.monotonic(), []
    while time.monotonic() - began < 25 and slow.open:
        start = time.monotonic()
        answered.append((server.get("/v1/models").status, time.monotonic() - start))
        time.sleep(0.2)
    others = all(status == 200 for status, _ in answered)
    worst = max(seconds for _, seconds in answered)
    claim(not slow.open, f"150 connections with slow headers are closed, the last after {slow.last_closed:.1f} s")
    claim(others and worst < 5, f"meanwhile {len(answered)} requests of others are answered, within {worst:.2f} s")
    slow.close()


def check_events(server: Server, claim: Claims):
    head = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    streams = [attacks.opened(server.port, head.encode()) for _ in range(200)]
    statuses = Counter(attacks.first_status(stream) for stream in streams)
    claim(set(statuses) == {200, 429}, f"200 clients wait for events: {dict(statuses)}")
    began = time.monotonic()
    served = server.get("/v1/videos?limit=1").status
    claim(served == 200, f"others are served meanwhile, within {time.monotonic() - began:.2f} s")
    for stream in streams:
        stream.close()

    def takes_one():
        stream = attacks.opened(server.port, head.encode())
        status = attacks.first_status(stream)
        stream.close()
        return status == 200

    claim(within(40, takes_one), "once they are gone, others can wait for events")


def make_video(server: Server) -> tuple[str, bytes]:
    """A video that is done: the path of its content, and that."""
    order = {"prompt": "a red ball", "num_inference_steps": 1, "num_frames": 9}
    path = f"/v1/videos/{server.post('/v1/videos', order).json['id']}/content"
    if not within(60, lambda: server.get(path).status == 200):
        raise RuntimeError(f"no video is made: {server.get(path).body}")
    return path, server.get(path).body


def check_ranges(server: Server, path: str, whole: bytes, claim: Claims):
    size = len(whole)
    beyond = [f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=-0", "bytes=99999999999999999999999-", "bytes=18446744073709551615-"]
    parts = {"bytes=0-0": whole[:1], f"bytes=0-{size * 9}": whole, f"bytes=-{size * 9}": whole, f"bytes={size - 1}-": whole[-1:]}
    nothing = ["bytes=5-2", "bytes=a-b", "bytes=-", "lines=1-2", "bytes=" + ",".join(f"{n}-{n}" for n in range(5000)), "bytes=--5", "bytes=0x1-2"]
    wrong = [value for value in beyond if server.get(path, Range=value).status != 416]
    wrong += [value for value, part in parts.items() if (it := server.get(path, Range=value)).status != 206 or it.body != part]
    wrong += [value[:40] for value in nothing if (it := server.get(path, Range=value)).status != 200 or it.body != whole]
    claim(not wrong, f"{len(beyond)} ranges beyond the end get 416, {len(parts)} their part, {len(nothing)} that say nothing all {wrong or ''}")


def empty(server: Server):
    for video in server.videos():
        server.call("DELETE", f"/v1/videos/{video['id']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--no-slow", action="store_true")
    options = parser.parse_args()
    random.seed(1)
    claim = Claims()
    with tempfile.TemporaryDirectory() as folder:
        # The worker takes little of this machine, and large orders do not fit.
        limits = ["--max-body", str(MAX_BODY), "--threads", "1", "--ram", "500MB"]
        with Server(options.binary, Path(folder, "queue"), "--models", str(DEMO), *limits, token=TOKEN) as server:
            watch, pid = Watch(server), server.process.pid
            slow = None if options.no_slow else attacks.slow_bodies(server)
            check_token(server, claim)
            path, video = make_video(server)
            check_ranges(server, path, video, claim)
            check_attacks(server, str(server.queue), video, claim)
            check_jobs(server, claim)
            empty(server)
            check_slow_heads(server, claim)
            check_events(server, claim)
            check_schema(server, Path(folder), options.seconds, claim)
            empty(server)
            if slow:
                closed = within(330 - slow["dripping"].seconds(), lambda: not any(drips.open for drips in slow.values()))
                told = ", ".join(f"{name} after {drips.last_closed:.0f} s" for name, drips in slow.items())
                claim(closed, f"slow bodies are given up: {told}; {[drips.statuses() for drips in slow.values()]}")
            claim(server.videos() == [], "all that was queued can be deleted")
            claim(within(60, lambda: not server.workers()), "no worker is left")
            claim(server.process.poll() is None and server.process.pid == pid, "the server has lived through it")
            claim(not watch.silent, f"it has answered others all the time, within {watch.slowest:.2f} s")
            held = max(watch.held, watch.held_by_worker)
            claim(held < MAX_HELD_MB, f"it has held {watch.held:.0f} MB at most, and its worker {watch.held_by_worker:.0f} MB")
        log = server.log_file.read_text()
        claim("panicked" not in log, f"nothing has panicked; {log.count(chr(34) + 'ERROR' + chr(34))} errors in its log")
    claim.end()


main()
