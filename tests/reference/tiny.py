"""Tiny random checkpoints in the published layout.

The shapes are small; the code, the configuration keys and the files are those of the published
models. The weights are random but scaled so that every part of the network matters: see
`transformer_rule`, `vae_rule` and `t5_rule`, and `make_fixtures.py --check-sharpness`.
"""

import hashlib
import io
import json
import math
from pathlib import Path

import sentencepiece
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
)
from transformers import T5Config, T5EncoderModel

HERE = Path(__file__).resolve().parent

PIECES = 1000  # sentencepiece vocabulary; 100 sentinels follow it
EXTRA_IDS = 100
EMBEDDINGS = 1120  # rows of the embedding table, padded past the vocabulary as in the real T5
TEXT_DIM = 32
MAX_TOKENS = 226

# On-disk types: those of the published checkpoints.
DTYPE = {
    "2b": torch.float16,
    "5b": torch.bfloat16,
    "5b-i2v": torch.bfloat16,
    "1.5": torch.bfloat16,
    "1.5-i2v": torch.bfloat16,
}
# The others share all but the transformer with one of their family.
COMPLETE = ("2b", "5b", "1.5")
SHARED = ("scheduler", "text_encoder", "tokenizer", "vae")
# All tokenizers are one; this checkpoint's files are the ones that are there.
TOKENIZER = "5b"
TOKENIZER_FILES = ("spiece.model", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
VARIANTS = tuple(DTYPE)


def transformer_config(variant: str) -> dict:
    config = dict(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=32 if variant.endswith("i2v") else 16,
        out_channels=16,
        flip_sin_to_cos=True,
        freq_shift=0,
        time_embed_dim=20,
        ofs_embed_dim=None,
        text_embed_dim=TEXT_DIM,
        num_layers=1 if variant.endswith("i2v") else 2,
        dropout=0.0,
        attention_bias=True,
        # A grid of 3 by 4 patches: 48x64 pixels gives whole rotary positions, other sizes fractions.
        sample_width=8,
        sample_height=6,
        sample_frames=9,
        patch_size=2,
        patch_size_t=None,
        temporal_compression_ratio=4,
        max_text_seq_length=MAX_TOKENS,
        activation_fn="gelu-approximate",
        timestep_activation_fn="silu",
        norm_elementwise_affine=True,
        norm_eps=1e-5,
        spatial_interpolation_scale=1.875,
        temporal_interpolation_scale=1.0,
        use_rotary_positional_embeddings=variant != "2b",
        use_learned_positional_embeddings=variant == "5b-i2v",
        patch_bias=True,
    )
    if variant.startswith("1.5"):
        config.update(patch_size_t=2, patch_bias=False, sample_width=20, sample_height=20, sample_frames=81)
    if variant == "1.5-i2v":
        # The pipeline adds this to the time embedding, so the two widths are one.
        config.update(ofs_embed_dim=20)
    return config


def vae_config(variant: str) -> dict:
    return dict(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 8, 8, 16),
        latent_channels=16,
        layers_per_block=1,
        act_fn="silu",
        norm_eps=1e-6,
        norm_num_groups=4,
        temporal_compression_ratio=4,
        # Tiles of half of this: 48x40 pixels, 6x5 latents.
        sample_height=96,
        sample_width=80,
        scaling_factor=1.15258426 if variant == "2b" else 0.7,
        invert_scale_latents=variant.startswith("1.5"),
    )


def scheduler_config(variant: str) -> dict:
    return dict(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0 if variant == "2b" else 1.0,
    )


def t5_config() -> T5Config:
    return T5Config(
        vocab_size=EMBEDDINGS,
        d_model=TEXT_DIM,
        d_kv=64,
        d_ff=112,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        dropout_rate=0.1,
        layer_norm_epsilon=1e-6,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
    )


# --- weights ---------------------------------------------------------------------------------


def generator(*names: str) -> torch.Generator:
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def normal(shape, std, mean, *names):
    return torch.randn(shape, generator=generator(*names)) * std + mean


def fan_in(shape) -> int:
    return math.prod(shape[1:])


def transformer_rule(name: str, shape):
    """(standard deviation, mean) of a tensor of the transformer."""
    last = name.rsplit(".", 1)[1] if "." in name else name
    if name == "patch_embed.pos_embedding":
        return 0.7, 0.0
    if "norm_q" in name or "norm_k" in name:  # large enough for peaked attention
        return (0.3, 1.5) if last == "weight" else (0.3, 0.0)
    if name.endswith(("norm.weight", "norm_final.weight")):
        return 0.2, 1.0
    if name.endswith(("norm.bias", "norm_final.bias")):
        return 0.2, 0.0
    if ".linear." in name and ".norm" in "." + name:  # modulation: shift, scale, gate of about 0.5
        return (0.6 / math.sqrt(shape[1]), 0.0) if last == "weight" else (0.4, 0.0)
    if last == "bias":
        return 0.2, 0.0
    gain = 1.0
    if name.startswith(("time_embedding", "ofs_embedding")):
        gain = 1.7
    if name == "proj_out.weight":
        gain = 0.35
    return gain / math.sqrt(fan_in(shape)), 0.0


def vae_rule(name: str, shape):
    last = name.rsplit(".", 1)[1]
    if "conv_y" in name:  # multiplies the normalised value
        return (0.3 / math.sqrt(fan_in(shape)), 0.0) if last == "weight" else (0.2, 1.0)
    if "conv_b" in name:
        return (0.3 / math.sqrt(fan_in(shape)), 0.0) if last == "weight" else (0.2, 0.0)
    if "norm" in name:
        return (0.2, 1.0) if last == "weight" else (0.2, 0.0)
    if last == "bias":
        return 0.1, 0.0
    gain = 1.2
    if name == "decoder.conv_out.conv.weight":
        gain = 0.5
    return gain / math.sqrt(fan_in(shape)), 0.0


def t5_rule(name: str, shape):
    if "layer_norm" in name:
        return 0.2, 1.0
    if "shared" in name or "embed_tokens" in name or "relative_attention_bias" in name:
        return 1.0, 0.0
    gain = 1.0
    if name.endswith((".q.weight", ".k.weight")):  # T5 does not scale the scores
        gain = 0.5
    return gain / math.sqrt(fan_in(shape)), 0.0


def fill(model: torch.nn.Module, rule, *names: str) -> torch.nn.Module:
    """Gives every stored tensor of a model its random values."""
    done = set()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() in done:
                continue  # a tied table
            done.add(tensor.data_ptr())
            std, mean = rule(name, tensor.shape)
            tensor.copy_(normal(tensor.shape, std, mean, *names, name))
    return model.eval()


# --- tokenizer -------------------------------------------------------------------------------


def train_tokenizer() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((HERE / "corpus.txt").read_text("utf-8").splitlines()),
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_json(path: Path, value, indent: int | None = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", "utf-8")


def link(path: Path, target: str) -> None:
    """Makes a relative link, in the place of another if there is one."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def write_tokenizer(folder: Path, variant: str, model: bytes) -> None:
    """The four files of the published tokenizer folders."""
    folder.mkdir(parents=True, exist_ok=True)
    if variant != TOKENIZER:
        for name in TOKENIZER_FILES:
            link(folder / name, f"../../{TOKENIZER}/tokenizer/{name}")
        return
    (folder / "spiece.model").write_bytes(model)
    extra = [f"<extra_id_{i}>" for i in range(EXTRA_IDS)]
    ids = {token: PIECES + EXTRA_IDS - 1 - i for i, token in enumerate(extra)}
    ids = dict(sorted(ids.items(), key=lambda item: item[1]))

    def token(content, strip):
        return dict(
            content=content, lstrip=strip, normalized=False, rstrip=strip, single_word=False, special=True
        )

    decoder = {str(i): token(t, False) for i, t in enumerate(("<pad>", "</s>", "<unk>"))}
    decoder.update({str(i): token(t, True) for t, i in ids.items()})
    special = {
        name: {k: v for k, v in token(t, False).items() if k != "special"}
        for name, t in (("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>"))
    }
    write_json(folder / "added_tokens.json", ids)
    write_json(folder / "special_tokens_map.json", dict(additional_special_tokens=extra, **special))
    write_json(
        folder / "tokenizer_config.json",
        dict(
            add_prefix_space=True,
            added_tokens_decoder=decoder,
            additional_special_tokens=extra,
            clean_up_tokenization_spaces=True,
            eos_token="</s>",
            extra_ids=EXTRA_IDS,
            legacy=True,
            model_max_length=MAX_TOKENS,
            pad_token="<pad>",
            sp_model_kwargs={},
            tokenizer_class="T5Tokenizer",
            unk_token="<unk>",
        ),
    )


# --- checkpoints -----------------------------------------------------------------------------


def scheduler_class(variant: str):
    return CogVideoXDDIMScheduler if variant == "2b" else CogVideoXDPMScheduler


def model_index(variant: str) -> dict:
    import diffusers

    pipeline = "CogVideoXImageToVideoPipeline" if variant.endswith("i2v") else "CogVideoXPipeline"
    return dict(
        _class_name=pipeline,
        _diffusers_version=diffusers.__version__,
        scheduler=["diffusers", scheduler_class(variant).__name__],
        text_encoder=["transformers", "T5EncoderModel"],
        tokenizer=["transformers", "T5Tokenizer"],
        transformer=["diffusers", "CogVideoXTransformer3DModel"],
        vae=["diffusers", "AutoencoderKLCogVideoX"],
    )


def write_checkpoint(root: Path, variant: str, tokenizer: bytes) -> None:
    folder, dtype = root / variant, DTYPE[variant]
    write_json(folder / "model_index.json", model_index(variant))

    transformer = CogVideoXTransformer3DModel(**transformer_config(variant))
    fill(transformer, transformer_rule, "transformer", variant)
    # One checkpoint in several shards.
    shard = {"max_shard_size": "400KB"} if variant == "5b" else {}
    transformer.to(dtype).save_pretrained(folder / "transformer", **shard)
    if variant not in COMPLETE:
        for component in SHARED:
            link(folder / component, f"../{variant.removesuffix('-i2v')}/{component}")
        return

    vae = AutoencoderKLCogVideoX(**vae_config(variant))
    fill(vae, vae_rule, "vae", variant)
    vae.to(dtype).save_pretrained(folder / "vae")

    text_encoder = fill(T5EncoderModel(t5_config()), t5_rule, "text_encoder", variant).to(dtype)
    if variant == "2b":  # what a T5 loaded as f16 saves: the last projection in f32
        for block in text_encoder.encoder.block:
            block.layer[-1].DenseReluDense.wo.float()
    shard = {"max_shard_size": "100KB"} if variant == "1.5" else {}
    text_encoder.save_pretrained(folder / "text_encoder", **shard)
    scheduler_class(variant)(**scheduler_config(variant)).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer", variant, tokenizer)


def write_checkpoints(root: Path) -> None:
    tokenizer = train_tokenizer()
    for variant in VARIANTS:
        write_checkpoint(root, variant, tokenizer)
