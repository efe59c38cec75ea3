"""What the reference makes of the tiny checkpoints from an image or a video."""

from pathlib import Path

import torch
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXVideoToVideoPipeline
from PIL import Image
from safetensors.torch import save_file

import cases
import tiny

# Frames, height and width.
INPUTS = {
    "image-48x64": (1, 48, 64),
    "image-32x48": (1, 32, 48),
    "video-9x32x48": (9, 32, 48),
    "video-9x64x16": (9, 64, 16),
    "video-13x32x32": (13, 32, 32),
}

IMAGE = dict(start="image", strength=None, stored_frames=[0, 4, 8])
VIDEO = dict(start="video", input="video-9x32x48", stored_frames=[0, 4, 8])

CASES = {
    # 48x64 pixels and 9 frames are what the learned positions are for.
    "5b-i2v-dpm": dict(
        **IMAGE, checkpoint="5b-i2v", input="image-48x64", height=48, width=64, seed=31, low=True
    ),
    "5b-i2v-ddim-no-guidance": dict(
        **{**IMAGE, "stored_frames": [0, 8]},
        checkpoint="5b-i2v",
        input="image-48x64",
        height=48,
        width=64,
        scheduler="ddim",
        guidance=1.0,
        seed=32,
    ),
    "5b-i2v-25-frames-dynamic": dict(
        **{**IMAGE, "stored_frames": [24]},
        checkpoint="5b-i2v",
        input="image-48x64",
        num_frames=25,
        height=48,
        width=64,
        steps=5,
        dynamic_cfg=True,
        seed=33,
    ),
    # Three latent frames and one that fills them up.
    "1.5-i2v-dpm": dict(**IMAGE, checkpoint="1.5-i2v", input="image-32x48", seed=34, low=True),
    "1.5-i2v-ddim-one-frame": dict(
        **{**IMAGE, "stored_frames": [0]},
        checkpoint="1.5-i2v",
        input="image-32x48",
        num_frames=1,
        scheduler="ddim",
        negative_prompt=cases.NEGATIVE,
        seed=35,
    ),
    "5b-v2v-dpm": dict(**VIDEO, strength=0.8, steps=5, seed=36, low=True),
    "5b-v2v-ddim-weak-dynamic": dict(**VIDEO, strength=0.4, steps=8, scheduler="ddim", dynamic_cfg=True, seed=37),
    "5b-v2v-tiled": dict(
        **{**VIDEO, "input": "video-9x64x16"}, strength=0.75, height=64, width=16, tiling=True, seed=38, low=True
    ),
    "2b-v2v-all": dict(**VIDEO, checkpoint="2b", strength=1.0, steps=3, negative_prompt=cases.NEGATIVE, seed=39),
    # Four latent frames, of which sixteen frames are made.
    "1.5-v2v-13-frames": dict(
        **{**VIDEO, "input": "video-13x32x32", "stored_frames": [0, 7, 15]},
        checkpoint="1.5",
        strength=0.6,
        steps=6,
        num_frames=13,
        width=32,
        seed=40,
    ),
}


def pixels_of(name: str) -> torch.Tensor:
    """Coarse squares, fine noise and a brightness that moves, [frames, height, width, 3]."""
    frames, height, width = INPUTS[name]
    random = tiny.generator("input", name)
    coarse = torch.randint(0, 160, (height // 8, width // 8, 3), generator=random)
    fine = torch.randint(0, 40, (frames, height, width, 3), generator=random)
    t, y, x = torch.meshgrid(*map(torch.arange, (frames, height, width)), indexing="ij")
    ramp = (3 * x + 5 * y + 11 * t) % 56
    squares = coarse.repeat_interleave(8, 0).repeat_interleave(8, 1)
    return (squares + fine + ramp[..., None]).to(torch.uint8)


def run(root: Path, case: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    images = [Image.fromarray(frame.numpy()) for frame in pixels_of(case["input"])]
    if case["start"] == "image":
        pipeline = CogVideoXImageToVideoPipeline
        given = dict(image=images[0], num_frames=case["num_frames"])
    else:
        pipeline = CogVideoXVideoToVideoPipeline
        given = dict(video=images, strength=case["strength"])
    pipe = cases.load(root, case, dtype, pipeline)
    prepare, prepared = pipe.prepare_latents, []

    def remember(*args, **kwargs):
        prepared.append(prepare(*args, **kwargs))
        return prepared[0]

    pipe.prepare_latents = remember
    out = cases.run(pipe, case, given)
    if case["start"] == "image":
        latents, image_latents = prepared[0]
        assert not image_latents[:, 1:].any()
        out["image_latents"] = image_latents[:, 0].float().contiguous().clone()
    else:
        latents = prepared[0]
    out["start_latents"] = latents.float().contiguous().clone()
    return out


def write(root: Path, stored: set) -> None:
    (root / "inputs").mkdir(parents=True, exist_ok=True)
    for name in INPUTS:
        save_file({"pixels": pixels_of(name)}, root / "inputs" / f"{name}.safetensors")
    for name in CASES:
        case = cases.case_of(name, CASES)
        cases.write_case(root, name, case, stored, lambda case, dtype: run(root, case, dtype))
