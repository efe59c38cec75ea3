"""What the reference makes of the tiny checkpoints: whole pipelines and single models."""

import warnings
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from safetensors.torch import save_file
from transformers import T5EncoderModel

import tiny

warnings.filterwarnings("ignore")

PANDA = "A panda sits on a wooden stool in a quiet bamboo forest and plays a small guitar."
NEGATIVE = "Low quality, blurry, distorted, watermark, static image."
LONG = " ".join(
    f"Shot {i}: the camera follows a white vintage car up a steep dirt road, then {what} over the snowy mountain."
    for i, what in enumerate(("birds fly", "clouds drift", "the sun rises", "rain drops fall", "a drone flies") * 3)
)

BASE = dict(
    checkpoint="5b",
    prompt=PANDA,
    negative_prompt="",
    num_frames=9,
    height=32,
    width=48,
    steps=4,
    guidance=6.0,
    seed=42,
    scheduler="auto",
    dynamic_cfg=False,
    tiling=False,
    # False where the request is more than a command line has to accept.
    valid_request=True,
)

# `exact` cases store frames as f32, the others as f16. `low` cases are also run in bf16 and f16.
CASES = {
    "2b-ddim": dict(checkpoint="2b", exact=True, low=True),
    "2b-default-size-dynamic": dict(checkpoint="2b", height=48, width=64, dynamic_cfg=True, steps=5, seed=0),
    "2b-17-frames-six-steps-long-prompt": dict(
        checkpoint="2b", num_frames=17, width=32, steps=6, prompt=LONG, seed=7
    ),
    "2b-dpm-negative": dict(
        checkpoint="2b", scheduler="dpm", height=48, width=32, negative_prompt=NEGATIVE, seed=2**32 - 1, low=True
    ),
    "2b-tall-8-steps": dict(
        checkpoint="2b",
        height=64,
        width=32,
        steps=8,
        guidance=3.5,
        prompt="Маленький кот спит, 一只熊猫坐在竹林里 🐼, ＦＵＬＬ width!",
        seed=3,
    ),
    "5b-dpm": dict(exact=True, low=True),
    "5b-default-size-one-frame-dynamic": dict(
        num_frames=1, height=48, width=64, dynamic_cfg=True, steps=5, seed=1
    ),
    "5b-ddim-no-guidance": dict(
        scheduler="ddim", height=80, width=32, guidance=1.0, seed=5, prompt="Eine Straße, ein Hund.", low=True
    ),
    "5b-tiled": dict(height=64, width=48, steps=3, tiling=True, seed=11, low=True),
    "5b-17-frames-six-steps-empty-prompt": dict(
        num_frames=17, width=16, steps=6, prompt="", guidance=4.0, seed=2**40 + 5
    ),
    "1.5-dpm": dict(checkpoint="1.5", exact=True, low=True),
    "1.5-even-latents": dict(checkpoint="1.5", num_frames=13, width=32, steps=5, seed=13, valid_request=False),
    "1.5-tiled-dynamic": dict(
        checkpoint="1.5", height=64, width=48, tiling=True, dynamic_cfg=True, seed=17, low=True
    ),
    "1.5-17-frames-ddim-negative": dict(
        checkpoint="1.5",
        num_frames=17,
        height=16,
        width=32,
        scheduler="ddim",
        negative_prompt=NEGATIVE,
        guidance=3.0,
        steps=6,
        seed=2**63 + 12345,
    ),
    "1.5-33-frames": dict(checkpoint="1.5", num_frames=33, height=16, width=32, steps=3, seed=23),
}

SCHEDULERS = {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def case_of(name: str, cases: dict = CASES) -> dict:
    return {**BASE, "exact": False, "low": False, **cases[name]}


def signed(seed: int) -> int:
    """torch accepts seeds above 2^63 only as their two's complement."""
    return seed - 2**64 if seed >= 2**63 else seed


def rel(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative distance of `a` from the reference `b`."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm())


def load(root: Path, case: dict, dtype: torch.dtype, pipeline=CogVideoXPipeline):
    folder = root / "checkpoints" / case["checkpoint"]
    pipe = pipeline.from_pretrained(folder, torch_dtype=dtype)
    if case["scheduler"] != "auto":
        pipe.scheduler = SCHEDULERS[case["scheduler"]].from_config(pipe.scheduler.config)
    if case["tiling"]:
        pipe.vae.enable_tiling()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def run(pipe, case: dict, given: dict | None = None) -> dict[str, torch.Tensor]:
    """Runs a pipeline; ids, embeddings, the last latents and the frames, all upcast to f32. `given`
    are the arguments of what it starts from, with the number of frames unless that follows."""
    out = {}
    given = {"num_frames": case["num_frames"]} if given is None else given
    tokens = pipe.tokenizer(
        [case["prompt"]],
        padding="max_length",
        max_length=tiny.MAX_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_tensors="pt",
    )
    out["input_ids"] = tokens.input_ids
    cfg = case["guidance"] > 1.0
    embeds, negative = pipe.encode_prompt(case["prompt"], case["negative_prompt"], cfg, device="cpu")
    out["prompt_embeds"] = embeds
    if cfg:
        out["negative_prompt_embeds"] = negative

    def last(pipe, index, timestep, tensors):
        out["latents"] = tensors["latents"]
        return tensors

    video = pipe(
        prompt=case["prompt"],
        negative_prompt=case["negative_prompt"],
        height=case["height"],
        width=case["width"],
        **given,
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        use_dynamic_cfg=case["dynamic_cfg"],
        generator=torch.Generator().manual_seed(signed(case["seed"])),
        output_type="np",
        callback_on_step_end=last,
    ).frames[0]
    out["frames"] = torch.from_numpy(video)
    for name, tensor in out.items():
        out[name] = tensor.clone() if name == "input_ids" else tensor.float().contiguous().clone()
        assert torch.isfinite(out[name].double()).all(), (case, name)
    return out


def write_case(root: Path, name: str, case: dict, stored: set, run_in) -> None:
    """Writes what `run_in` makes of a case in a type. `stored` holds the text encoders and prompts whose
    embeddings an earlier case has written."""
    folder = root / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    exact, low = case.pop("exact"), case.pop("low")
    out = run_in(case, torch.float32)
    entry = {"name": name, "dtype": "f32", **case}
    entry["tokens"] = int((out["input_ids"] != 0).sum())
    entry["latent_shape"] = list(out["latents"].shape)
    entry["padding_latent_frames"] = out["latents"].shape[1] - ((case["num_frames"] - 1) // 4 + 1)
    entry["frames_shape"] = list(out["frames"].shape)
    if low:
        for dtype in ("bf16", "f16"):
            other = run_in(case, DTYPES[dtype])
            entry[f"distance_{dtype}"] = {
                key: rel(other[key], out[key]) for key in ("prompt_embeds", "latents", "frames")
            }
            entry[f"max_abs_{dtype}"] = {"frames": float((other["frames"] - out["frames"]).abs().max())}
    text_encoder = case["checkpoint"].removesuffix("-i2v")
    for key, prompt in (("prompt_embeds", case["prompt"]), ("negative_prompt_embeds", case["negative_prompt"])):
        if (text_encoder, prompt) in stored:
            out.pop(key, None)
        elif key in out:
            stored.add((text_encoder, prompt))
    if "stored_frames" in case:
        out["frames"] = out["frames"][case["stored_frames"]].contiguous()
    if not exact:
        out["frames"] = out["frames"].half()
    save_file(out, folder / f"{name}.safetensors")
    tiny.write_json(folder / f"{name}.json", entry)


def write_pipeline_cases(root: Path) -> set:
    stored = set()
    for name in CASES:
        write_case(root, name, case_of(name), stored, lambda case, dtype: run(load(root, case, dtype), case))
    return stored


# --- single models ---------------------------------------------------------------------------

# Latent size (frames, height, width) of each transformer case.
TRANSFORMER_CASES = {
    "2b": ("2b", (2, 4, 10)),
    "5b": ("5b", (3, 4, 10)),
    "5b-i2v": ("5b-i2v", (3, 6, 8)),
    "5b-i2v-sincos": ("5b-i2v", (2, 6, 8)),  # not sample_frames: the stored table is not used
    "1.5": ("1.5", (4, 6, 4)),
    "1.5-i2v": ("1.5-i2v", (4, 4, 6)),
}


def rotary(config, frames: int, height: int, width: int):
    """The tables as the pipeline makes them, for a latent size."""
    from types import SimpleNamespace

    pipe = SimpleNamespace(transformer=SimpleNamespace(config=config), vae_scale_factor_spatial=8)
    return CogVideoXPipeline._prepare_rotary_positional_embeddings(
        pipe, height * 8, width * 8, frames, torch.device("cpu")
    )


def halves(shape, *names) -> torch.Tensor:
    """Random values that f16 holds exactly."""
    return torch.randn(shape, generator=tiny.generator(*names)).half()


@torch.no_grad()
def write_transformer_cases(root: Path) -> None:
    folder = root / "transformer"
    folder.mkdir(parents=True, exist_ok=True)
    index = {}
    for name, (variant, (frames, height, width)) in TRANSFORMER_CASES.items():
        checkpoint = root / "checkpoints" / variant / "transformer"
        channels = tiny.transformer_config(variant)["in_channels"]
        batch = 2 if name == "5b" else 1
        tensors = {
            "hidden_states": halves((batch, frames, channels, height, width), "hidden", name),
            "encoder_hidden_states": halves((batch, tiny.MAX_TOKENS, tiny.TEXT_DIM), "text", name),
            "timestep": torch.tensor([437] * batch),
        }
        result = {}
        for dtype in ("f32", "bf16", "f16"):
            model = CogVideoXTransformer3DModel.from_pretrained(checkpoint, torch_dtype=DTYPES[dtype])
            kwargs = {}
            if model.config.use_rotary_positional_embeddings:
                cos, sin = rotary(model.config, frames, height, width)
                tensors["rotary_cos"], tensors["rotary_sin"] = cos, sin
                kwargs["image_rotary_emb"] = (cos, sin)
            if model.config.ofs_embed_dim is not None:
                tensors["ofs"] = torch.full((1,), 2.0)
                kwargs["ofs"] = tensors["ofs"].to(DTYPES[dtype])
            result[dtype] = model(
                hidden_states=tensors["hidden_states"].to(DTYPES[dtype]),
                encoder_hidden_states=tensors["encoder_hidden_states"].to(DTYPES[dtype]),
                timestep=tensors["timestep"],
                return_dict=False,
                **kwargs,
            )[0].float()
        tensors["output"] = result["f32"]
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.safetensors")
        index[name] = dict(
            checkpoint=variant,
            distance_bf16=rel(result["bf16"], result["f32"]),
            distance_f16=rel(result["f16"], result["f32"]),
        )
    tiny.write_json(folder / "index.json", index)


@torch.no_grad()
def write_vae_cases(root: Path) -> None:
    model = AutoencoderKLCogVideoX.from_pretrained(root / "checkpoints/5b/vae", torch_dtype=torch.float32)
    tensors, index = {}, {}
    cases = {f"{n}-latents": (n, 2, 3, False) for n in (1, 2, 5)}
    cases["tiled"] = (1, 11, 9, True)  # 3x3 tiles, the last row and column one latent wide
    for name, (frames, height, width, tiled) in cases.items():
        latents = (halves((1, 16, frames, height, width), "vae", name) * 1.5).half()
        model.use_tiling = tiled
        decoded = model.decode(latents.float()).sample
        tensors[f"{name}.latents"], tensors[f"{name}.frames"] = latents, decoded.contiguous()
        index[name] = dict(checkpoint="5b", tiling=tiled, latents=list(latents.shape), frames=list(decoded.shape))
    (root / "vae").mkdir(parents=True, exist_ok=True)
    save_file(tensors, root / "vae/cases.safetensors")
    tiny.write_json(root / "vae/index.json", index)


@torch.no_grad()
def write_t5_case(root: Path) -> None:
    model = T5EncoderModel.from_pretrained(root / "checkpoints/1.5/text_encoder", dtype=torch.float32)
    ids = torch.randint(3, tiny.EMBEDDINGS, (1, 41), generator=tiny.generator("t5 ids"))
    out = model(ids, output_hidden_states=True)
    tensors = {"input_ids": ids, "output": out.last_hidden_state}
    # Before the first block and after it; the last entry of the reference is the output again.
    for i, hidden in enumerate(out.hidden_states[:-1]):
        tensors[f"hidden.{i}"] = hidden
    bucket = model.encoder.block[0].layer[0].SelfAttention._relative_position_bucket
    tensors["relative_positions"] = torch.arange(-299, 300)
    tensors["buckets"] = bucket(tensors["relative_positions"])
    (root / "t5").mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, root / "t5/case.safetensors")


def write(root: Path) -> None:
    write_transformer_cases(root)
    write_vae_cases(root)
    write_t5_case(root)
