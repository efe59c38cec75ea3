"""Noise, schedulers, positions, tokeniser strings and the manifests of the published models."""

import math
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_sincos_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, T5Tokenizer

import tiny
from cases import rotary, signed
from strings import STRINGS


# --- noise -----------------------------------------------------------------------------------

SEEDS = (0, 42, 2**32 - 1, 2**40 + 5, 2**64 - 3)
SIZES = (1, 2, 3, 5, 15, 16, 17, 31, 32, 100, 1000)
# Several draws from one generator. Sizes below 16 take another way through the generator and
# leave a second normal behind, which the next small draw uses.
SEQUENCES = {
    "small-large-small": ["f32:3", "f32:32", "f32:2", "f32:1", "f32:17", "f32:5", "f32:16", "f32:1"],
    "odd-small": ["f32:1", "f32:1", "f32:1", "f32:5", "f32:2"],
    "types": ["f32:48", "bf16:48", "f16:48", "f32:48", "bf16:17", "f16:17", "f32:17"],
    "small-types": ["bf16:3", "f16:3", "f32:3", "bf16:1", "f16:2", "f32:1"],
    "past-one-block": ["f32:624", "f32:623", "f32:15", "f32:1250", "f32:16"],
    "latents": ["f32:1,3,16,8,12", "f32:1,3,16,8,12"],
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def write_noise(root: Path) -> None:
    tensors, index = {}, []

    def record(name, seed, draws):
        generator = torch.Generator().manual_seed(signed(seed))
        entry = dict(name=name, seed=seed, draws=[])
        for i, draw in enumerate(draws):
            dtype, shape = draw.split(":")
            shape = [int(n) for n in shape.split(",")]
            key = f"{name}.{i}"
            value = torch.randn(shape, generator=generator, dtype=DTYPES[dtype])
            # Of long draws only the ends.
            flat = value.flatten()
            tensors[key] = value if flat.numel() <= 100 else torch.cat([flat[:32], flat[-32:]])
            entry["draws"].append(
                dict(tensor=key, dtype=dtype, shape=shape, stored="all" if flat.numel() <= 100 else "ends32")
            )
        index.append(entry)

    for seed in SEEDS:
        for size in SIZES:
            record(f"seed{seed}-size{size}", seed, [f"f32:{size}"])
    for name, draws in SEQUENCES.items():
        for seed in (42, 2**40 + 5):
            record(f"{name}-seed{seed}", seed, draws)
    save_file(tensors, root / "noise.safetensors")
    tiny.write_json(root / "noise.json", index, indent=None)


# --- schedulers ------------------------------------------------------------------------------


def number(value) -> float | str:
    """JSON has no infinities."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def scheduler(kind, snr_shift: float, spacing="trailing"):
    config = {**tiny.scheduler_config("5b"), "snr_shift_scale": snr_shift, "timestep_spacing": spacing}
    return {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}[kind](**config)


def dynamic_guidance(steps: int, guidance: float, timestep: int) -> float:
    """The formula of the pipeline."""
    return 1 + guidance * ((1 - math.cos(math.pi * ((steps - timestep) / steps) ** 5.0)) / 2)


def write_schedulers(root: Path) -> None:
    out = {"alphas_cumprod": {}, "timesteps": {}, "dynamic_guidance": {}, "dpm_coefficients": {}, "traces": []}
    for shift in (1.0, 3.0):
        alphas = scheduler("dpm", shift).alphas_cumprod
        assert torch.equal(alphas, scheduler("ddim", shift).alphas_cumprod)
        probes = (0, 1, 2, 19, 99, 166, 250, 332, 499, 500, 749, 833, 979, 997, 998, 999)
        out["alphas_cumprod"][str(shift)] = {str(t): float(alphas[t]) for t in probes}
    for spacing in ("trailing", "linspace", "leading"):
        table = {}
        # 48: the rounding of numpy.arange decides; 61: one timestep more than asked for, -1.
        for steps in (1, 2, 3, 4, 5, 6, 7, 8, 10, 20, 30, 48, 50, 55, 60, 61, 75, 96, 100, 1000):
            values = []
            for kind in ("ddim", "dpm"):
                s = scheduler(kind, 1.0, spacing)
                s.set_timesteps(steps)
                values.append(s.timesteps.tolist())
            assert values[0] == values[1]
            table[str(steps)] = values[0] if steps < 1000 else values[0][:3] + values[0][-3:]
        out["timesteps"][spacing] = table
    for steps in (50, 30, 6):
        s = scheduler("dpm", 1.0)
        s.set_timesteps(steps)
        out["dynamic_guidance"][str(steps)] = [dynamic_guidance(steps, 6.0, t) for t in s.timesteps.tolist()]

    # One small sample; the output of the "network" at step i is `model_output` rolled by i.
    sample = torch.randn(32, generator=tiny.generator("sample"))
    output = torch.randn(32, generator=tiny.generator("model output"))
    tensors = {"sample": sample, "model_output": output}
    for kind in ("ddim", "dpm"):
        for shift in (1.0, 3.0):
            for steps in (1, 2, 4, 6, 10, 50, 60):
                s = scheduler(kind, shift)
                s.set_timesteps(steps)
                x, old, rows = sample.reshape(1, 2, 2, 2, 4), None, []
                generator = torch.Generator().manual_seed(42)
                timesteps, coefficients = s.timesteps, []
                for i, t in enumerate(timesteps):
                    v = output.roll(i).reshape(x.shape)
                    if kind == "ddim":
                        x = s.step(v, t, x, return_dict=False)[0]
                    else:
                        back = timesteps[i - 1] if i else None
                        x, old = s.step(v, old, t, back, x, generator=generator, return_dict=False)
                        previous = int(t) - 1000 // steps
                        a = s.alphas_cumprod
                        a_prev = a[previous] if previous >= 0 else s.final_alpha_cumprod
                        args = (a[t], a_prev, a[back] if i else None)
                        h, r, _, _ = s.get_variables(*args)
                        mult = s.get_mult(h, r, *args)
                        sigma = (1 - a_prev) ** 0.5 * (1 - (-2 * h).exp()) ** 0.5
                        row = dict(t=int(t), prev=previous, h=number(h), r=None if r is None else number(r))
                        row.update({f"m{j + 1}": number(m) for j, m in enumerate(mult)}, sigma=number(sigma))
                        coefficients.append(row)
                    x = x.float()  # as the pipeline casts the latents back
                    rows.append(x.flatten())
                key = f"{kind}.snr{shift:g}.{steps}"
                tensors[key] = torch.stack(rows)
                out["traces"].append(dict(tensor=key, scheduler=kind, snr_shift_scale=shift, steps=steps, seed=42))
                if coefficients and steps in (4, 6, 50):
                    out["dpm_coefficients"][f"snr{shift:g}.{steps}"] = coefficients
    save_file(tensors, root / "schedulers.safetensors")
    tiny.write_json(root / "schedulers.json", out, indent=None)


# --- positions -------------------------------------------------------------------------------


def write_positions(root: Path) -> None:
    """Rotary and sincos positions of the published configurations for several sizes."""
    out = {"rotary": [], "sincos": []}
    sizes = {
        "5b": [(13, 60, 90), (13, 90, 60), (5, 48, 80), (13, 96, 170), (3, 40, 60), (2, 6, 10), (1, 2, 2)],
        "1.5": [(22, 96, 170), (4, 60, 90), (2, 170, 96)],
    }
    for variant, entries in sizes.items():
        config = published_transformer(variant).config
        for frames, height, width in entries:
            cos, sin = rotary(config, frames, height, width)
            gh, gw = height // 2, width // 2
            entry = dict(variant=variant, latent=[frames, height, width], tokens=cos.shape[0])
            if variant == "5b":
                (top, left), (bottom, right) = get_resize_crop_region_for_grid((gh, gw), 45, 30)
                entry["crop"] = [[top, left], [bottom, right]]
                rows = torch.linspace(top, bottom * (gh - 1) / gh, gh, dtype=torch.float32)
                columns = torch.linspace(left, right * (gw - 1) / gw, gw, dtype=torch.float32)
            else:
                rows, columns = torch.arange(gh).float(), torch.arange(gw).float()
            # The first rotary column of each axis has frequency 1.
            grid = cos.reshape(-1, gh, gw, 64)
            assert (grid[0, :, 0, 16] - rows.cos()).abs().max() < 1e-5
            assert (grid[0, 0, :, 40] - columns.cos()).abs().max() < 1e-5
            entry["rows"], entry["columns"] = rows.tolist(), columns.tolist()
            tokens = sorted({0, 1, gw, cos.shape[0] // 2, cos.shape[0] - 1} & set(range(cos.shape[0])))
            entry["probes"] = [
                dict(token=t, cos=cos[t, ::2].tolist(), sin=sin[t, ::2].tolist()) for t in tokens
            ]
            assert torch.equal(cos[:, ::2], cos[:, 1::2]) and torch.equal(sin[:, ::2], sin[:, 1::2])
            out["rotary"].append(entry)
    columns = [0, 1, 239, 240, 479, 480, 481, 839, 840, 1199, 1200, 1201, 1559, 1560, 1919]
    for frames, height, width in [(13, 60, 90), (3, 8, 4), (2, 40, 60)]:
        table = get_3d_sincos_pos_embed(1920, (width // 2, height // 2), frames, 1.875, 1.0, output_type="pt")
        table = table.flatten(0, 1)
        tokens = sorted({0, 1, width // 2, len(table) // 2, len(table) - 1})
        out["sincos"].append(
            dict(
                latent=[frames, height, width],
                columns=columns,
                probes=[dict(token=t, values=[float(table[t, c]) for c in columns]) for t in tokens],
            )
        )
    tiny.write_json(root / "positions.json", out, indent=None)


# --- tokeniser -------------------------------------------------------------------------------


def slow_ids(model, text: str) -> list[int]:
    """sentencepiece itself, between the special tokens, as the slow T5 tokenizer used it: the
    sentinels swallow the white space on both sides, the other special tokens nothing, and a text
    that ends with the end of sequence gets no second one."""
    import re

    ids = []
    pattern = re.compile(r"\s*<extra_id_([1-9]?\d)>\s*|(<pad>)|(</s>)|(<unk>)")
    start = 0
    for match in [*pattern.finditer(text), None]:
        chunk = text[start : match.start() if match else len(text)]
        ids += model.encode(chunk) if chunk else []
        if match:
            start = match.end()
            number, pad, eos, _ = match.groups()
            ids.append(tiny.PIECES + 99 - int(number) if number else 0 if pad else 1 if eos else 2)
    ids = ids[: tiny.MAX_TOKENS - 1]
    return ids if ids[-1:] == [1] else ids + [1]


def write_tokenizer(root: Path) -> None:
    import sentencepiece

    folder = root / "checkpoints/2b/tokenizer"
    tokenizer = T5Tokenizer.from_pretrained(folder)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    entries, differing = [], 0
    for text in STRINGS:
        padded = tokenizer(
            text, padding="max_length", max_length=tiny.MAX_TOKENS, truncation=True, add_special_tokens=True
        )
        ids = [i for i, keep in zip(padded.input_ids, padded.attention_mask) if keep]
        entry = dict(text=text, ids=ids)
        raw = slow_ids(model, text)
        if raw != ids:
            entry["slow_ids"] = raw
            differing += 1
        entries.append(entry)
    assert len(entries) >= 200 and len({e["text"] for e in entries}) == len(entries)
    tiny.write_json(
        root / "tokenizer.json",
        dict(tokenizer="checkpoints/2b/tokenizer", max_length=tiny.MAX_TOKENS, differing=differing, strings=entries),
        indent=None,
    )


# --- published models ------------------------------------------------------------------------

PUBLISHED = {  # parameters with the stored position table, tensors, shards
    "2b": (1_693_783_872, 736, 1),
    "5b": (5_570_283_072, 1024, 2),
    "5b-i2v": (5_570_479_680 + 54_607_872, 1025, 3),
    "1.5": (5_570_676_352, 1024, 3),
    "1.5-i2v": (5_571_594_880, 1028, 3),
}


def published_transformer(variant: str) -> CogVideoXTransformer3DModel:
    config = tiny.transformer_config(variant)
    config.update(
        num_attention_heads=30 if variant == "2b" else 48,
        num_layers=30 if variant == "2b" else 42,
        time_embed_dim=512,
        text_embed_dim=4096,
        sample_width=90,
        sample_height=60,
        sample_frames=49,
    )
    if variant.startswith("1.5"):
        config.update(sample_width=300, sample_height=300, sample_frames=81)
    if variant == "1.5-i2v":
        config.update(ofs_embed_dim=512)
    with torch.device("meta"):
        return CogVideoXTransformer3DModel(**config)


def published_vae(variant: str) -> AutoencoderKLCogVideoX:
    config = tiny.vae_config(variant)
    config.update(
        block_out_channels=(128, 256, 256, 512),
        layers_per_block=3,
        norm_num_groups=32,
        sample_height=480,
        sample_width=720,
    )
    with torch.device("meta"):
        return AutoencoderKLCogVideoX(**config)


def published_t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        layer_norm_epsilon=1e-6,
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return T5EncoderModel(config)


def manifest(model: torch.nn.Module, repeated: str) -> tuple[list[dict], int, int]:
    """Names and shapes; tensors of the numbered blocks once, with the number of blocks."""
    state = dict(model.state_dict())
    state.pop("encoder.embed_tokens.weight", None)  # tied to shared.weight; files store one
    groups: dict[tuple, list[int]] = {}
    for name, tensor in state.items():
        if repeated and name.startswith(repeated + "."):
            number, rest = name[len(repeated) + 1 :].split(".", 1)
            groups.setdefault((f"{repeated}.{{}}.{rest}", tuple(tensor.shape)), []).append(int(number))
        else:
            groups[(name, tuple(tensor.shape))] = []
    entries = []
    for (name, shape), numbers in groups.items():
        entry = dict(name=name, shape=list(shape))
        if numbers == [0]:
            entry["name"] = name.replace("{}", "0")
        elif numbers:
            assert numbers == list(range(len(numbers)))
            entry["count"] = len(numbers)
        entries.append(entry)
    return entries, len(state), sum(t.numel() for t in state.values())


def config_of(model) -> dict:
    import json

    if isinstance(model, T5EncoderModel):
        model.config.architectures = ["T5EncoderModel"]
        return json.loads(model.config.to_json_string())
    return json.loads(model.to_json_string())


def write_published(root: Path) -> None:
    folder = root / "published"
    for variant, (parameters, tensors, shards) in PUBLISHED.items():
        model = published_transformer(variant)
        entries, count, total = manifest(model, "transformer_blocks")
        assert (total, count) == (parameters, tensors), (variant, total, count)
        tiny.write_json(
            folder / f"{variant}.json",
            dict(
                dtype="F16" if variant == "2b" else "BF16",
                parameters=total,
                tensors=count,
                shards=shards,
                configs=dict(
                    model_index=tiny.model_index(variant),
                    transformer=config_of(model),
                    vae=config_of(published_vae(variant)),
                    scheduler=config_of(tiny.scheduler_class(variant)(**tiny.scheduler_config(variant))),
                ),
                transformer=entries,
            ),
            indent=None,
        )
    vae = published_vae("5b")
    entries, count, total = manifest(vae, "")
    assert (total, count) == (215_583_907, 436), (total, count)
    tiny.write_json(
        folder / "vae.json", dict(parameters=total, tensors=count, shards=1, vae=entries), indent=None
    )
    t5 = published_t5()
    entries, count, total = manifest(t5, "encoder.block")
    assert (total, count) == (4_762_310_656, 219), (total, count)
    tiny.write_json(
        folder / "t5.json",
        dict(parameters=total, tensors=count, shards=2, config=config_of(t5), text_encoder=entries),
        indent=None,
    )


def write(root: Path) -> None:
    write_noise(root)
    write_schedulers(root)
    write_positions(root)
    write_tokenizer(root)
    write_published(root)
