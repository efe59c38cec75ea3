"""Trains the VAE's decoder on, alone, on latents as the transformer makes them.

What a transformer makes is a little off from what the encoder would say, and a decoder that never saw
such latents draws some of its shapes worse than need be. Scenes of the training side are made noisy and cleaned again by the
transformer, so that they show what they showed before with its mistakes in them. The decoder learns
to draw the exact picture of these and of the encoder's own, one half each.
"""

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from transformers import T5EncoderModel, T5Tokenizer

import latents
import text
import training
import transformer as denoiser
import world

STEPS, BATCH, RATE = 3_000, 4, 1e-3
MADE, MADE_BATCH = 2_400, 32
# The noise that is added, as a training step: enough for mistakes, too little for another scene (at 450
# a third of the power is still the scene's).
LEAST_NOISE, MOST_NOISE = 100, 450
CLEANING_STEPS, GUIDANCE = 8, 2.5
NEAR = 9  # how much more the shape and its edge weigh than the background


class Cleaner:
    """The transformer with its prompts, and the schedule."""

    def __init__(self, work: Path):
        self.tokenizer = T5Tokenizer.from_pretrained(work / "tokenizer")
        self.encoder = T5EncoderModel.from_pretrained(work / "text_encoder").eval()
        self.transformer = CogVideoXTransformer3DModel.from_pretrained(work / "transformer").float().eval()
        self.kept = CogVideoXDPMScheduler(**denoiser.SCHEDULER).alphas_cumprod.float()
        self.tables = denoiser.rotary()

    def signal(self, steps: torch.Tensor) -> torch.Tensor:
        """The scene's share of the power at each step, for latents."""
        return self.kept[steps][:, None, None, None, None]

    def clean(self, noisy: torch.Tensor, first: torch.Tensor, sentences: list[str]) -> torch.Tensor:
        """Deterministic steps (DDIM) with guidance, from the training step `first` of each down to nothing."""
        prompts = ["" for _ in sentences] + sentences
        prompts = self.encoder(text.ids_of(self.tokenizer, prompts)).last_hidden_state
        shares = torch.linspace(1, 0, CLEANING_STEPS + 1)
        for share, after in zip(shares, shares[1:]):
            steps = (first * share).long()
            velocity = self.transformer(
                hidden_states=torch.cat([noisy, noisy]),
                encoder_hidden_states=prompts,
                timestep=torch.cat([steps, steps]),
                image_rotary_emb=self.tables,
                return_dict=False,
            )[0].float()
            without, with_prompt = velocity.chunk(2)
            velocity = without + GUIDANCE * (with_prompt - without)
            signal = self.signal(steps)
            clean = signal.sqrt() * noisy - (1 - signal).sqrt() * velocity
            noise = signal.sqrt() * velocity + (1 - signal).sqrt() * noisy
            signal = self.signal((first * after).long()) if after else torch.ones(())
            noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        return noisy


def make(work: Path, mean: torch.Tensor, scenes: list[world.Scene]) -> torch.Tensor:
    """The first `MADE` scenes as the transformer cleans them."""
    cleaner, scale, made = Cleaner(work), latents.scaling_factor(mean), []
    for first in range(0, MADE, MADE_BATCH):
        dice = training.dice_of("made", first)
        sentences = [world.describe(dice, scene)[0] for scene in scenes[first : first + MADE_BATCH]]
        clean = mean[first : first + MADE_BATCH].float() * scale
        steps = torch.randint(LEAST_NOISE, MOST_NOISE + 1, (len(clean),))
        signal = cleaner.signal(steps)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * torch.randn_like(clean)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            made.append((cleaner.clean(noisy, steps, sentences) / scale).half())
    return torch.cat(made)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for states")
    options.add_argument("--steps", type=int, default=STEPS)
    given = options.parse_args()
    work = given.work
    mean, scenes = latents.load(work / "latents")
    path, of = work / "made.latents", training.digest(work / "transformer")
    if not path.exists() or torch.load(path, weights_only=True)["of"] != of:
        training.save(path, dict(of=of, made=make(work, mean, scenes)))
        print(f"decoder: {MADE} scenes made", flush=True)
    made = torch.load(path, weights_only=True)["made"]
    vae = AutoencoderKLCogVideoX.from_pretrained(work / "vae")
    vae.encoder.requires_grad_(False)

    def loss_of(_step: int, dice: random.Random):
        own = [dice.randrange(len(scenes)) for _ in range(BATCH // 2)]
        others = [dice.randrange(len(made)) for _ in range(BATCH - len(own))]
        given = torch.cat([mean[own], made[others]]).float().transpose(1, 2)
        pixels, near = (torch.stack(part) for part in zip(*(world.render(scenes[i]) for i in own + others)))
        with torch.autocast("cpu", torch.bfloat16):
            decoded = vae.decode(given).sample
        error = (decoded.float() - pixels).abs()
        loss = ((error + error * error) * (1 + NEAR * near)).mean()
        by_kind = (error * near).sum((1, 2, 3, 4)) / near.sum((1, 2, 3, 4)) / 3
        return loss, dict(error=error.mean(), own=by_kind[: len(own)].mean(), made=by_kind[len(own) :].mean())

    training.train("decoder", vae.decoder, loss_of, work, given.steps, peak=RATE, of=of)
    vae.save_pretrained(work / "vae-tuned")


if __name__ == "__main__":
    main()
