"""Encodes the scenes that the transformer is trained on: means of the VAE's posterior, many at a time."""

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX

import training
import world

SCENES, PART = 15_000, 1_500  # in all, and in one file
BATCH = 12


def scenes_of(part: int) -> list[world.Scene]:
    """The scenes of one file: every combination of the training side about equally often."""
    dice = random.Random(training.hash_of("latents", part))
    combinations = world.combinations(held_out=False)
    numbers = range(part * PART, (part + 1) * PART)
    return [world.draw_scene(dice, combinations[n % len(combinations)]) for n in numbers]


def encode(vae: AutoencoderKLCogVideoX, scenes: list[world.Scene]) -> torch.Tensor:
    """The means, `[scenes, frames, 16, 8, 8]`."""
    means = []
    for first in range(0, len(scenes), BATCH):
        pixels = torch.stack([world.render(scene)[0] for scene in scenes[first : first + BATCH]])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            means.append(vae.encode(pixels).latent_dist.mean.half().transpose(1, 2))
    return torch.cat(means)


def load(folder: Path) -> tuple[torch.Tensor, list[world.Scene]]:
    """All that is encoded, with its scenes."""
    parts = sorted(folder.glob("*.latents"))
    tensors = [torch.load(path, weights_only=True) for path in parts]
    scenes = [scene for path in parts for scene in scenes_of(int(path.stem))]
    return torch.cat([t["mean"] for t in tensors]), scenes


def scaling_factor(mean: torch.Tensor) -> float:
    """What gives latents a deviation of one, as the VAE's configuration stores it."""
    return round(1 / mean.float().std().item(), 4)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for states")
    options.add_argument("--parts", type=int, default=SCENES // PART, help="how many files there shall be")
    given = options.parse_args()
    vae = AutoencoderKLCogVideoX.from_pretrained(given.work / "vae").eval()
    for part in range(given.parts):
        path = given.work / "latents" / f"{part:03}.latents"
        if not path.exists():
            mean = encode(vae, scenes_of(part))
            training.save(path, dict(mean=mean))
            print(
                f"latents {part + 1}/{given.parts}: mean {mean.float().mean():.3f}, deviation {mean.float().std():.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
