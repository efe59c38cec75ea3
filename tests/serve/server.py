"""A `vidfit serve` of a test's own, and what the tests ask of it."""

import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[1] / "reference/fixtures"
DEMO = Path(__file__).resolve().parents[2] / "demo/model"


class Claims:
    """What a test claims, one line each."""

    def __init__(self):
        self.broken = 0

    def __call__(self, holds: bool, text: str):
        self.broken += not holds
        print("ok    " if holds else "BROKEN", text, flush=True)

    def end(self):
        sys.exit(1 if self.broken else 0)


def skip(reason: str):
    print("skipped:", reason)
    sys.exit(0)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Answer:
    def __init__(self, status: int, headers, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The word for programs, if it is an error as the API has them."""
        try:
            return self.json["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None


class Server:
    """Runs on 127.0.0.1, on the same port after every start; its log is kept in one file."""

    def __init__(self, binary: str, queue: Path, *options: str, token: str | None = None):
        self.words = [str(Path(binary).resolve()), "serve", "--queue-dir", str(queue), *options]
        self.queue, self.token, self.port = queue, token, free_port()
        self.log_file = queue.with_suffix(".log")
        self.start()

    def start(self):
        with open(self.log_file, "ab") as log:
            words = [*self.words, "--address", f"127.0.0.1:{self.port}", "--log", "json"]
            environment = {**os.environ, **({"VIDFIT_TOKEN": self.token} if self.token else {})}
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, env=environment)
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        if not ready or b"listens on" not in self.process.stdout.readline():
            self.process.kill()
            raise RuntimeError("the server did not start: " + self.log_file.read_text()[-2000:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends it as Ctrl-C does, and by force if that takes too long."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None, timeout=60) -> Answer:
        """One request over a connection of its own."""
        authorization = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {**authorization, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: dict, **headers: str) -> Answer:
        return self.call("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})

    def videos(self) -> list[dict]:
        """All that there are, in the order in which they were accepted."""
        videos, after = [], ""
        while True:
            page = self.get(f"/v1/videos?limit=100&order=asc{after}").json
            videos += page["data"]
            if not page["has_more"]:
                return videos
            after = "&after=" + page["last_id"]

    def log(self, message: str) -> list[dict]:
        """The fields of all lines of the log that say this."""
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [line["fields"] for line in lines if line["fields"]["message"] == message]

    def workers(self) -> list[int]:
        """The worker processes that live, orphans of killed servers too."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"work" in words[1:2] and any(str(self.queue).encode() in word for word in words):
                found.append(int(folder.name))
        return found


def within(seconds: float, holds) -> bool:
    """Whether it comes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.1)
    return False


def resident_mb(pid: int) -> float | None:
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes of an MP4, which have to cover it all."""
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):
            raise ValueError(f"the box {kind} of {size} bytes does not fit")
        found.append((kind, data[at + 8 : at + size]))
        at += size
    return found


def frames(video: bytes) -> int:
    """The frames of an MP4 whose boxes are whole, and which ffprobe can decode if there is one."""

    def into(data: bytes, *path: bytes) -> bytes:
        for kind in path:
            data = dict(boxes(data))[kind]
        return data

    if boxes(video)[0][0] != b"ftyp" or not into(video, b"mdat"):
        raise ValueError("there is no picture in it")
    sizes = into(video, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")
    if shutil.which("ffprobe"):
        words = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", "-"]
        return int(subprocess.run(words, input=video, capture_output=True, check=True, timeout=60).stdout)
    return struct.unpack_from(">I", sizes, 8)[0]
