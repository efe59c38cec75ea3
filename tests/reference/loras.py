"""LoRAs in each format, and what the reference makes of the tiny checkpoints with them."""

import json
from pathlib import Path

import torch
from diffusers import CogVideoXPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

import cases
import tiny

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
# As SAT's exporter, tools/export_sat_lora_weight.py of the CogVideo repository, renames.
SAT_NAMES = {
    "attention.query_key_value.matrix_A.0": "attn1.to_q.lora_A.weight",
    "attention.query_key_value.matrix_A.1": "attn1.to_k.lora_A.weight",
    "attention.query_key_value.matrix_A.2": "attn1.to_v.lora_A.weight",
    "attention.query_key_value.matrix_B.0": "attn1.to_q.lora_B.weight",
    "attention.query_key_value.matrix_B.1": "attn1.to_k.lora_B.weight",
    "attention.query_key_value.matrix_B.2": "attn1.to_v.lora_B.weight",
    "attention.dense.matrix_A.0": "attn1.to_out.0.lora_A.weight",
    "attention.dense.matrix_B.0": "attn1.to_out.0.lora_B.weight",
}
SAT_RANK = 2

# name: checkpoint, then LoRA files with the scales that the user gives.
CASES = {
    "peft": ("5b", [("5b-peft", 0.75)]),
    "plain": ("5b", [("5b-plain", 1.0)]),
    "two": ("5b", [("5b-peft", 0.5), ("5b-plain", -0.6)]),
    # SAT's alpha is 1, which the exported file does not say.
    "sat": ("2b", [("2b-sat", 1.0 / SAT_RANK)]),
}


def random_factors(state: dict, *names) -> dict:
    """Factors as large as it takes for a mistake in any to show."""
    out = {}
    for key, value in state.items():
        noise = torch.randn(value.shape, generator=tiny.generator("lora", *names, key))
        # Modulations and times are large already.
        gain = 0.02 if "norm" in key or "time" in key else 0.15
        # Values that f16 holds exactly: the same factors are stored in several types.
        out[key] = (noise * (gain if ".lora_B." in key else value[0].numel() ** -0.5)).half().float()
    return out


def adapter(root: Path, checkpoint: str, config: LoraConfig) -> tuple[dict, dict]:
    """What a trainer would save of a new adapter: its state and its metadata."""
    pipe = cases.load(root, {**cases.BASE, "checkpoint": checkpoint}, torch.float32)
    pipe.transformer.add_adapter(config)
    state = get_peft_model_state_dict(pipe.transformer)
    metadata = _collate_lora_metadata({"transformer": pipe.transformer})
    return state, metadata["transformer_lora_adapter_metadata"]


def sortable(metadata: dict) -> dict:
    """Sets in a fixed order, so that the file has the same bytes each time."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in metadata.items()}


def save_peft(folder: Path, name: str, state: dict, metadata: dict | None) -> None:
    CogVideoXPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=state,
        weight_name=f"{name}.safetensors",
        transformer_lora_adapter_metadata=metadata,
    )
    settle(folder / f"{name}.safetensors")


def settle(path: Path) -> None:
    """Puts a header's free text into a fixed order: safetensors writes it in that of a hash map."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def write_files(root: Path, folder: Path) -> None:
    config = LoraConfig(
        r=2,
        lora_alpha=1,
        target_modules=ATTENTION,
        rank_pattern={"to_k": 3},
        alpha_pattern={"transformer_blocks.1.attn1.to_q": 3},
    )
    state, metadata = adapter(root, "5b", config)
    state = random_factors(state, "peft")
    save_peft(folder, "5b-peft", state, sortable(metadata))
    write_kohya(folder, "5b-kohya", state, config)

    everywhere = ["to_q", "to_v", "proj", "net.2", "norm1.linear", "text_proj", "linear_1", "proj_out"]
    state, _ = adapter(root, "5b", LoraConfig(r=2, lora_alpha=2, target_modules=everywhere))
    state = {key: value.bfloat16() for key, value in random_factors(state, "plain").items()}
    save_peft(folder, "5b-plain", state, None)

    write_sat(folder, "2b-sat")


def write_kohya(folder: Path, name: str, state: dict, config: LoraConfig) -> None:
    """The same factors as Kohya's trainers name them. Their alphas are those of `config`."""
    tensors = {}
    for key, value in state.items():
        module, factor = key.split(".lora_")
        flat = "lora_unet_" + module.replace(".", "_")
        tensors[f"{flat}.lora_{'down' if factor == 'A.weight' else 'up'}.weight"] = value.half().contiguous()
        alpha = next((a for m, a in config.alpha_pattern.items() if module.endswith(m)), config.lora_alpha)
        tensors[f"{flat}.alpha"] = torch.tensor(float(alpha))
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.zeros(1, 2)
    save_file(tensors, folder / f"{name}.safetensors")


def write_sat(folder: Path, name: str) -> None:
    """SAT's own keys, and what its exporter makes of them."""
    width = 128
    raw, exported = {}, {}
    for layer in range(2):
        for sat, peft in SAT_NAMES.items():
            key = f"transformer.layers.{layer}.{sat}"
            shape = (SAT_RANK, width) if "matrix_A" in sat else (width, SAT_RANK)
            noise = torch.randn(shape, generator=tiny.generator("lora", "sat", key))
            factor = (noise * (0.3 if "matrix_B" in sat else width**-0.5)).half()
            raw[f"model.diffusion_model.{key}"] = factor
            exported[key.replace(sat, peft).replace("layers", "transformer_blocks")] = factor
    save_file(raw, folder / f"{name}-raw.safetensors")
    LoraBaseMixin.write_lora_layers(
        state_dict=exported,
        save_directory=folder,
        is_main_process=True,
        weight_name=f"{name}.safetensors",
        save_function=None,
        safe_serialization=True,
    )


def load_lora(pipe: CogVideoXPipeline, path: Path, name: str) -> None:
    """As the pipeline loads it, in f32: PEFT would round the product of bf16 factors to bf16."""
    with safe_open(path, "pt") as file:
        has_metadata = "lora_adapter_metadata" in (file.metadata() or {})
        state = {key: file.get_tensor(key) for key in file.keys()}
    if all(value.dtype == torch.float32 for value in state.values()):
        return pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=name)
    assert not has_metadata, "a state dict has none"
    pipe.load_lora_weights({key: value.float() for key, value in state.items()}, adapter_name=name)


def write(root: Path) -> None:
    folder = root / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    write_files(root, folder)
    index = {}
    for name, (checkpoint, used) in CASES.items():
        case = {**cases.BASE, "checkpoint": checkpoint, "height": 16, "width": 16, "steps": 3, "seed": 19}
        pipe = cases.load(root, case, torch.float32)
        without = cases.run(pipe, case)["latents"]
        for file, _ in used:
            load_lora(pipe, folder / f"{file}.safetensors", file)
        pipe.set_adapters([file for file, _ in used], [scale for _, scale in used])
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        out = cases.run(pipe, case)
        kept = {"latents": out["latents"]}
        if name == "two":
            kept["frames"] = out["frames"].half()
        save_file(kept, folder / f"case-{name}.safetensors")
        index[name] = dict(
            **{key: case[key] for key in ("checkpoint", "prompt", "num_frames", "height", "width", "steps", "seed")},
            loras=[dict(file=f"{file}.safetensors", scale=scale) for file, scale in used],
            moved=cases.rel(out["latents"], without),
        )
        print(json.dumps({name: index[name]["moved"]}))
    tiny.write_json(folder / "index.json", index)
