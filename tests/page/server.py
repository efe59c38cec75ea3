"""A server of the page's test's own, which can be stopped and started again."""

import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`vidfit serve` at an address that stays the same, with a queue that stays unless it is left behind."""

    def __init__(self, program: Path, *options: str):
        self.folder = tempfile.TemporaryDirectory()
        self.command = [str(program.resolve()), "serve", *options]
        self.port = free_port()
        # Cookies do not know ports: another name than the other server's keeps their sessions apart.
        self.url = f"http://localhost:{self.port}/"
        self.process = None
        self.start()

    def start(self, queue: str = "kept"):
        address = f"127.0.0.1:{self.port}"
        with (Path(self.folder.name) / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--address", address, "--queue-dir", f"{self.folder.name}/{queue}"], stdout=log, stderr=log
            )
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"the server did not start:\n{(Path(self.folder.name) / 'log').read_text()[-2000:]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def close(self):
        self.stop()
        self.folder.cleanup()
