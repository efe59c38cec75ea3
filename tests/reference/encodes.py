"""What the reference's VAE encoder makes of videos and pictures, and what it draws from that."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import save_file

import tiny
from cases import DTYPES, rel

# Checkpoint, then frames, height, width, then whether in tiles, and of which size if not the VAE's own.
CASES = {
    "picture": ("5b", (1, 24, 16), False, None),
    "9-frames": ("5b", (9, 16, 24), False, None),
    "10-frames": ("5b", (10, 16, 16), False, None),  # 10, 5, 3: the odd one comes up on the way
    "17-frames": ("5b", (17, 24, 16), False, None),  # two chunks, of 9 and 8
    "22-frames": ("2b", (22, 16, 16), False, None),  # two chunks, of 14 and 8
    "tiled": ("5b", (5, 88, 72), True, None),  # 3x3 tiles, the last row and column 8 pixels wide
    "tiled-17-frames": ("1.5", (17, 56, 48), True, None),  # 2x2 tiles, two chunks
    "tiled-picture": ("2b", (1, 104, 88), True, (96, 80)),  # 2x2 tiles, blends of 2
    "not-tiled": ("5b", (1, 48, 40), True, None),  # one tile holds all
}

# What pipelines draw: video to video multiplies by the factor, image to video of 1.5 divides by it.
SAMPLES = {"video": ("9-frames", "video"), "image-5b": ("picture", "image"), "image-1.5": ("picture", "image")}
SEED = 42


def pixels(frames: int, height: int, width: int) -> torch.Tensor:
    """[1, 3, T, H, W] of multiples of 1/128, which every type holds; the formula is in the README."""
    t, y, x = (torch.arange(n) for n in (frames, height, width))
    c = torch.arange(3)[:, None, None, None]
    t, y, x = t[:, None, None], y[:, None], x
    values = 11 * t + 31 * y + 57 * x + 101 * c + 3 * x * y + 5 * t * x + 7 * t * y
    return ((values % 251) - 125).float()[None] / 128


def vae(root: Path, checkpoint: str, dtype: str) -> AutoencoderKLCogVideoX:
    folder = root / "checkpoints" / checkpoint / "vae"
    return AutoencoderKLCogVideoX.from_pretrained(folder, torch_dtype=DTYPES[dtype])


def encode(root: Path, case: tuple, dtype: str):
    checkpoint, size, tiled, tile = case
    model = vae(root, checkpoint, dtype)
    if tiled:
        height, width = tile or (None, None)
        model.enable_tiling(tile_sample_min_height=height, tile_sample_min_width=width)
    return model, model.encode(pixels(*size).to(DTYPES[dtype])).latent_dist


def draw(root: Path, case: tuple, way: str, dtype: str):
    """Moments, and the latents as the pipelines make them: [1, F, C, h, w]."""
    model, posterior = encode(root, case, dtype)
    latents = posterior.sample(torch.Generator().manual_seed(SEED)).permute(0, 2, 1, 3, 4)
    factor = model.config.scaling_factor
    if way == "image" and model.config.invert_scale_latents:
        latents = 1 / factor * latents
    else:
        latents = factor * latents
    return posterior.parameters, latents


@torch.no_grad()
def write(root: Path) -> None:
    tensors, index = {}, {"encodes": {}, "samples": {}}
    for name, case in CASES.items():
        checkpoint, (frames, height, width), tiled, tile = case
        moments = {dtype: encode(root, case, dtype)[1].parameters.float() for dtype in DTYPES}
        assert all(torch.isfinite(m).all() for m in moments.values()), name
        tensors[f"{name}.moments"] = moments["f32"]
        index["encodes"][name] = dict(
            checkpoint=checkpoint,
            frames=frames,
            height=height,
            width=width,
            tiling=(list(tile) if tile else True) if tiled else False,
            distance_bf16=rel(moments["bf16"], moments["f32"]),
            distance_f16=rel(moments["f16"], moments["f32"]),
        )
    for name, (of, way) in SAMPLES.items():
        case = CASES[of]
        if "-" in name:
            case = (name.split("-")[1], *case[1:])
        entry = dict(checkpoint=case[0], frames=case[1][0], height=case[1][1], width=case[1][2], factor=way, seed=SEED)
        latents = {}
        for dtype in DTYPES:
            moments, latents[dtype] = draw(root, case, way, dtype)
            tensors[f"{name}.moments.{dtype}"], tensors[f"{name}.latents.{dtype}"] = moments, latents[dtype]
        for dtype in ("bf16", "f16"):
            entry[f"distance_{dtype}"] = rel(latents[dtype], latents["f32"])
        index["samples"][name] = entry
    folder = root / "encodes"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "cases.safetensors")
    tiny.write_json(folder / "index.json", index)
