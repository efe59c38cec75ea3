#!/usr/bin/env python3
"""Plays an MP4 to its end in headless Chromium and checks what arrives there.

    tests/plays_in_browser.py VIDEO.mp4 WIDTH HEIGHT SECONDS

Needs `chromium` on the path and nothing else. Exits with 1 if the video does not play.
"""

import http.server
import re
import subprocess
import sys
import tempfile
import threading
import time

PAGE = b"""<!doctype html>
<body><video id="video" src="video.mp4" muted></video><img src="hold.png">
<script>
  const say = (text) => { document.body.dataset.result = text; fetch("done"); };
  video.onerror = () => say(`error ${video.error.code} ${video.error.message}`);
  video.onended = () => {
    const shown = video.getVideoPlaybackQuality().totalVideoFrames;
    say(`played ${video.videoWidth}x${video.videoHeight} for ${video.duration.toFixed(2)} s, ${shown} frames shown`);
  };
  video.play().catch((error) => say(`refused ${error}`));
</script></body>
"""


def serve(video: bytes, seconds: float):
    """A server whose page does not finish loading before the video has ended."""
    done = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/done":
                done.set()
            if self.path == "/hold.png":
                done.wait(seconds + 20)
                time.sleep(0.2)
            body, kind = {"/": (PAGE, "text/html"), "/video.mp4": (video, "video/mp4")}.get(self.path, (b"", "text/plain"))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def main() -> int:
    path, width, height, seconds = sys.argv[1:]
    with open(path, "rb") as file:
        url = serve(file.read(), float(seconds))
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    flags += " --disable-component-update --autoplay-policy=no-user-gesture-required --dump-dom"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = ["chromium", *flags.split(), f"--user-data-dir={profile}", url]
        page = subprocess.run(command, capture_output=True, text=True, timeout=float(seconds) + 60).stdout
    result = re.search('data-result="([^"]*)"', page)
    print(result[1] if result else "nothing happened")
    played = re.fullmatch(r"played (\d+)x(\d+) for ([\d.]+) s, (\d+) frames shown", result[1] if result else "")
    return not (
        played
        and (played[1], played[2]) == (width, height)
        and abs(float(played[3]) - float(seconds)) < 0.1
        and int(played[4]) > 0
    )


if __name__ == "__main__":
    sys.exit(main())
