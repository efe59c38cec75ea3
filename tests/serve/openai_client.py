#!/usr/bin/env python3
"""OpenAI's own Python client orders, waits for, lists, downloads and deletes videos.

    pip install openai
    tests/serve/openai_client.py target/release/vidfit

The server is started here, with the demo model and a fixture for images.
"""

import sys
import tempfile
import warnings
from pathlib import Path

from server import DEMO, FIXTURES, Claims, Server, frames, skip

try:
    import openai
except ImportError:
    skip("openai is missing: pip install openai")

# The service that the client is made for is about to end, and it says so at every call.
warnings.simplefilter("ignore", DeprecationWarning)
TOKEN = "the-token-of-this-test"
IMAGES = FIXTURES / "checkpoints/5b-i2v"
PICTURE = FIXTURES / "pictures/moving/frame0.png"
# What the client has no words for goes beside them.
SHORT = {"num_inference_steps": 2, "num_frames": 9}


def refused(kind: type, call) -> str | None:
    try:
        call()
    except kind as error:
        return str(error)
    return None


def check(server: Server, claim: Claims):
    url = f"http://127.0.0.1:{server.port}/v1"
    client = openai.OpenAI(api_key=TOKEN, base_url=url, max_retries=0, timeout=60)
    videos = client.videos

    first = videos.create(prompt="a red ball moving right", model="model", size="64x64", seconds="4", extra_body=SHORT)
    claim(first.object == "video" and first.status in ("queued", "in_progress"), f"create: {first.id} is {first.status}")
    claim((first.size, first.model) == ("64x64", "model"), f"create: size {first.size}, model {first.model}, seconds {first.seconds}")
    again = videos.retrieve(first.id)
    claim(again.id == first.id and again.prompt == first.prompt, f"retrieve: {again.status}, {again.progress} %")

    done = videos.create_and_poll(prompt="a blue square", model="model", poll_interval_ms=200, extra_body=SHORT)
    claim(done.status == "completed" and done.progress == 100, f"create_and_poll: {done.status}, {done.progress} %")
    ids = [video.id for video in videos.list(limit=1)]
    claim(ids == [done.id, first.id], f"list: {len(ids)} videos over pages of one, the newest first")
    claim([video.id for video in videos.list(order="asc", limit=20)] == ids[::-1], "list: the oldest first, if asked to")

    video = videos.download_content(done.id).read()
    claim(frames(video) == SHORT["num_frames"], f"download_content: an MP4 of {len(video)} bytes, {frames(video)} frames")
    thumbnail = videos.download_content(done.id, variant="thumbnail").read()
    claim(thumbnail.startswith(b"\x89PNG"), f"download_content: a thumbnail of {len(thumbnail)} bytes")
    sheet = refused(openai.BadRequestError, lambda: videos.download_content(done.id, variant="spritesheet"))
    claim(sheet is not None, f"there is no spritesheet: {sheet}")

    started = videos.create(prompt="she turns", model="5b-i2v", input_reference=PICTURE, extra_body={"num_inference_steps": 2})
    started = videos.poll(started.id, poll_interval_ms=200)
    claim(started.status == "completed" and started.task == "i2v", f"input_reference, a file: {started.task}, {started.status}, {started.error}")
    named = ("a portrait.png", PICTURE.read_bytes(), "image/png")
    from_bytes = videos.create_and_poll(prompt="she turns", model="5b-i2v", input_reference=named, poll_interval_ms=200, extra_body={"num_inference_steps": 2})
    claim(from_bytes.status == "completed" and from_bytes.task == "i2v", f"input_reference, bytes with a name: {from_bytes.task}, {from_bytes.status}")

    gone = videos.delete(done.id)
    claim(gone.deleted and gone.object == "video.deleted", f"delete: {gone.object}")
    claim(refused(openai.NotFoundError, lambda: videos.retrieve(done.id)) is not None, "retrieve after delete: NotFoundError")

    stranger = openai.OpenAI(api_key="not-the-token-of-it", base_url=url, max_retries=0)
    before = len(server.videos())
    why = refused(openai.AuthenticationError, lambda: stranger.videos.create(prompt="x"))
    claim(why is not None and len(server.videos()) == before, f"a wrong key: AuthenticationError, nothing is queued: {why}")
    why = refused(openai.BadRequestError, lambda: videos.create(prompt="x", model="sora-2"))
    claim(why is not None, f"an unknown model: BadRequestError: {why}")
    claim("model" in [model.id for model in client.models.list()], "models.list: the demo is there")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    claim = Claims()
    print("openai", openai.__version__)
    with tempfile.TemporaryDirectory() as folder:
        with Server(sys.argv[1], Path(folder, "queue"), "--models", f"{DEMO},{IMAGES}", token=TOKEN) as server:
            check(server, claim)
    claim.end()


main()
