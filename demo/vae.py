"""Trains the demo's VAE: crops first, then whole pictures, whose group norms see what decoding sees.

Twice: first for exact pictures, then for latents that are easy to make. In the second training the
divergence weighs more, so the encoder spends what it says on what matters, and the decoder makes
clean shapes of latents that are a little off, as a transformer's are.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLCogVideoX

import training
import world

CROP_BATCH, CROP = 16, 32
WHOLE_BATCH = 6
CLIP = 9  # frames


class Stage(NamedTuple):
    """One training."""

    name: str
    crop_steps: int
    whole_steps: int
    rate: float
    kl_weight: float  # of the divergence per value


STAGES = (Stage("vae", 2600, 700, 2e-3, 3e-4), Stage("vae-smooth", 700, 400, 1.5e-3, 2e-2))

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=("CogVideoXDownBlock3D",) * 4,
    up_block_types=("CogVideoXUpBlock3D",) * 4,
    block_out_channels=(16, 32, 48, 48),
    latent_channels=16,
    layers_per_block=1,
    act_fn="silu",
    norm_eps=1e-6,
    norm_num_groups=4,
    temporal_compression_ratio=4,
    # Tiles are half of this: a picture of the model's own size is one, and tiles of larger ones join.
    sample_height=192,
    sample_width=160,
    scaling_factor=1.0,  # measured after training
)


def clip(dice, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A piece of a scene of any combination, with the shape in it, and where the shape is."""
    combination = tuple(dice.choice(list(names)) for names in (world.COLOURS, world.SHAPES, world.MOTIONS))
    scene = world.draw_scene(dice, combination)
    start = dice.randint(0, world.FRAMES - CLIP)
    x, y, _ = scene.path[start + CLIP // 2]
    most = world.SIDE - side

    def corner(centre: float) -> int:
        return min(max(round(centre - side / 2 + dice.uniform(-0.6, 0.6) * side), 0), most)

    return world.render(scene, slice(start, start + CLIP), corner(y), corner(x), side)


def train_stage(vae: AutoencoderKLCogVideoX, stage: Stage, work: Path) -> None:
    """Trains the model further."""

    def loss_of(step: int, dice):
        whole = step >= stage.crop_steps
        side, batch = (world.SIDE, WHOLE_BATCH) if whole else (CROP, CROP_BATCH)
        clips, near = (torch.stack(part) for part in zip(*(clip(dice, side) for _ in range(batch))))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(clips).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        error = (decoded.float() - clips).abs()
        weight = 1 + 4 * near
        picture = ((error + error * error) * weight).mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean * mean + logvar.exp() - 1 - logvar).mean()
        numbers = dict(
            error=error.mean(), near=(error * near).sum() / near.sum() / 3, kl=kl, noise=posterior.std.mean()
        )
        return picture + stage.kl_weight * kl, numbers

    training.train(stage.name, vae, loss_of, work, stage.crop_steps + stage.whole_steps, peak=stage.rate)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for states")
    work = options.parse_args().work
    torch.manual_seed(training.SEED)
    vae = AutoencoderKLCogVideoX(**CONFIG)
    for stage in STAGES:
        train_stage(vae, stage, work)
    vae.save_pretrained(work / "vae")


if __name__ == "__main__":
    main()
