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
import training
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


def trained_transformer(work: Path) -> CogVideoXTransformer3DModel:
    """The averaged weights: those of the newest state, which need not be the last."""
    model = transformer.new_transformer()
    average = training.Average(model, 0.0)
    average.values = torch.load(work / "transformer.state", weights_only=True)["average"]
    average.into(model)
    return model


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder of the trained states")
    options.add_argument("--output", type=Path, default=Path(__file__).parent / "model")
    given = options.parse_args()
    work, output = given.work, given.output

    vae = AutoencoderKLCogVideoX.from_pretrained(work / "vae")
    vae.register_to_config(scaling_factor=latents.scaling_factor(latents.load(work / "latents")[0]))
    vae.half().save_pretrained(output / "vae")
    trained_transformer(work).half().save_pretrained(output / "transformer")
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
    print(f"{output}: {weights:,} bytes of weights")
    assert weights <= MOST_BYTES, weights


if __name__ == "__main__":
    main()
