"""Writes what was trained as one checkpoint in the published layout, weights in f16."""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5EncoderModel

import latents
import transformer

MOST_BYTES = 12_000_000  # of weights


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def forget_origin(config: Path) -> None:
    """Leaves out where the model was loaded from."""
    write_json(
        config,
        {key: value for key, value in json.loads(config.read_text("utf-8")).items() if key != "_name_or_path"},
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder of the trained states")
    options.add_argument("--output", type=Path, default=Path(__file__).parent / "model")
    given = options.parse_args()
    work, finished = given.work, given.output
    output = finished.with_name(finished.name + ".part")
    shutil.rmtree(output, ignore_errors=True)

    vae = AutoencoderKLCogVideoX.from_pretrained(work / "vae-tuned")
    vae.register_to_config(scaling_factor=latents.scaling_factor(latents.load(work / "latents")[0]))
    vae.half().save_pretrained(output / "vae")
    CogVideoXTransformer3DModel.from_pretrained(work / "transformer").half().save_pretrained(output / "transformer")
    T5EncoderModel.from_pretrained(work / "text_encoder").half().save_pretrained(output / "text_encoder")
    for part in ("vae", "transformer", "text_encoder"):
        forget_origin(output / part / "config.json")
    for path in output.rglob("*.safetensors"):
        path.chmod(0o644)
    shutil.copytree(work / "tokenizer", output / "tokenizer", dirs_exist_ok=True)
    config = dict(_class_name="CogVideoXDPMScheduler", _diffusers_version=diffusers.__version__)
    write_json(output / "scheduler/scheduler_config.json", config | transformer.SCHEDULER)
    write_json(
        output / "model_index.json",
        dict(
            _class_name="CogVideoXPipeline",
            _diffusers_version=diffusers.__version__,
            scheduler=["diffusers", "CogVideoXDPMScheduler"],
            text_encoder=["transformers", "T5EncoderModel"],
            tokenizer=["transformers", "T5Tokenizer"],
            transformer=["diffusers", "CogVideoXTransformer3DModel"],
            vae=["diffusers", "AutoencoderKLCogVideoX"],
        ),
    )
    weights = sum(path.stat().st_size for path in output.rglob("*.safetensors"))
    if weights > MOST_BYTES:
        raise SystemExit(f"{output} has {weights:,} bytes of weights, more than {MOST_BYTES:,}")
    for card in finished.glob("*.md"):
        shutil.copy2(card, output)
    shutil.rmtree(finished, ignore_errors=True)
    output.rename(finished)
    print(f"{finished}: {weights:,} bytes of weights")


if __name__ == "__main__":
    main()
