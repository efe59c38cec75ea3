"""The same prompts and seeds through diffusers."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# What a job may ask for besides size, steps, guidance and type. The pipeline is called for nothing else.
PLAIN = {"negative_prompt": "", "dynamic_cfg": "constant", "timestep_rule": "reference", "scheduler": None}


class Reference:
    """`CogVideoXPipeline` from a model's folder, with the settings of a vidfit plan."""

    def __init__(self, model: Path, settings: dict):
        other = {name: settings[name] for name, value in PLAIN.items() if settings[name] != value}
        if other or settings["tiling"]:
            raise SystemExit(f"the reference is not made for {other or 'tiling'}; see `vidfit config`")
        from diffusers import CogVideoXPipeline

        self.settings = settings
        self.pipe = CogVideoXPipeline.from_pretrained(model, dtype=DTYPES[settings["dtype"]])
        self.pipe.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def frames(self, prompt: str, seed: int) -> np.ndarray:
        """`uint8 [frames, height, width, 3]`."""
        video = self.pipe(
            prompt=prompt,
            num_frames=self.settings["frames"],
            height=self.settings["height"],
            width=self.settings["width"],
            num_inference_steps=self.settings["steps"],
            guidance_scale=self.settings["guidance"],
            generator=torch.Generator().manual_seed(seed),
            max_sequence_length=self.pipe.transformer.config.max_text_seq_length,
            output_type="np",
        ).frames[0]
        return (video * 255).round().astype(np.uint8)


def write(folder: Path, frames: np.ndarray) -> None:
    """Writes frames as vidfit does, all or none."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(part / f"frame_{number:05}.png")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
