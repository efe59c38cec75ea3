"""Trains the demo's VAE: crops first, then whole pictures, whose group norms see what decoding sees."""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX

import training
import world

CROP_STEPS, CROP_BATCH, CROP = 2600, 16, 32
WHOLE_STEPS, WHOLE_BATCH = 700, 6
CLIP = 9  # frames
KL_WEIGHT = 3e-4  # of the divergence per value

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
    sample_height=world.SIDE,
    sample_width=world.SIDE,
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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for states")
    work = options.parse_args().work
    torch.manual_seed(training.SEED)
    vae = AutoencoderKLCogVideoX(**CONFIG)

    def loss_of(step: int, dice):
        whole = step >= CROP_STEPS
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
        return picture + KL_WEIGHT * kl, dict(error=error.mean(), near=(error * near).sum() / near.sum() / 3, kl=kl)

    training.train("vae", vae, loss_of, work, CROP_STEPS + WHOLE_STEPS, peak=2e-3)
    vae.save_pretrained(work / "vae")


if __name__ == "__main__":
    main()
