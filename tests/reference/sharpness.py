"""Do deliberate mistakes show in the fixtures, and does rounding noise not?

Each mistake is patched into the reference and the case is run again. A test that compares within
1e-4 (latents, embeddings) and 2e-3 (frames) must miss by ten times or more: LATENTS and FRAMES.
"""

from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers.models import attention_processor, embeddings, normalization
from diffusers.models.autoencoders import autoencoder_kl_cogvideox as vae_module
from diffusers.schedulers import scheduling_dpm_cogvideox as dpm_module
from transformers.models.t5 import modeling_t5

import cases

LATENTS, FRAMES = 1e-3, 2e-2
NOISE = 1e-5  # the most that rounding in f32 may move the latents


# --- transformer -----------------------------------------------------------------------------


@contextmanager
def rope_off(pipe):
    original = pipe._prepare_rotary_positional_embeddings

    def tables(*args, **kwargs):
        cos, sin = original(*args, **kwargs)
        return torch.ones_like(cos), torch.zeros_like(sin)

    with patch.object(pipe, "_prepare_rotary_positional_embeddings", tables):
        yield


@contextmanager
def rope_halves(pipe):
    """Pairs (i, i + 32) in place of adjacent ones."""
    original = embeddings.apply_rotary_emb

    def apply(x, freqs):
        cos, sin = (torch.cat([f[:, ::2], f[:, 1::2]], -1) for f in freqs)
        return original(x, (cos, sin), use_real_unbind_dim=-2)

    with patch.object(embeddings, "apply_rotary_emb", apply):
        yield


@contextmanager
def rope_on_text(pipe):
    """Text rows rotated too, by the positions of the first video tokens."""
    original = attention_processor.CogVideoXAttnProcessor2_0.__call__

    def call(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, image_rotary_emb=None):
        text = encoder_hidden_states.shape[1]
        index = torch.arange(text) % image_rotary_emb[0].shape[0]
        freqs = tuple(torch.cat([f[index], f]) for f in image_rotary_emb)
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        out, _ = original(self, attn, joint, joint[:, :0], attention_mask, freqs)
        return out[:, text:], out[:, :text]

    with patch.object(attention_processor.CogVideoXAttnProcessor2_0, "__call__", call):
        yield


@contextmanager
def qk_norm_dropped(pipe):
    with ExitStack() as stack:
        for block in pipe.transformer.transformer_blocks:
            for name in ("norm_q", "norm_k"):
                stack.enter_context(replaced(block.attn1, name, None))
        yield


@contextmanager
def replaced(module, name, value):
    original = getattr(module, name)
    setattr(module, name, value)
    yield
    setattr(module, name, original)


def modulation(change):
    """A mistake in the six chunks of a modulation: shift, scale, gate; the same for the text."""

    @contextmanager
    def mistake(pipe):
        def forward(self, hidden_states, encoder_hidden_states, temb):
            chunks = change(*self.linear(self.silu(temb)).chunk(6, dim=1))
            shift, scale, gate, text_shift, text_scale, text_gate = (c[:, None] for c in chunks)
            hidden_states = self.norm(hidden_states) * (1 + scale) + shift
            encoder_hidden_states = self.norm(encoder_hidden_states) * (1 + text_scale) + text_shift
            return hidden_states, encoder_hidden_states, gate, text_gate

        with patch.object(normalization.CogVideoXLayerNormZero, "forward", forward):
            yield

    return mistake


gates_swapped = modulation(lambda a, b, c, d, e, f: (a, b, f, d, e, c))
streams_swapped = modulation(lambda a, b, c, d, e, f: (d, e, f, a, b, c))
shift_scale_swapped = modulation(lambda a, b, c, d, e, f: (b, a, c, e, d, f))


@contextmanager
def tail_shift_scale_swapped(pipe):
    def forward(self, x, timestep=None, temb=None):
        scale, shift = self.linear(self.silu(temb))[:, None].chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift

    with patch.object(normalization.AdaLayerNorm, "forward", forward):
        yield


@contextmanager
def norm_final_dropped(pipe):
    with replaced(pipe.transformer, "norm_final", torch.nn.Identity()):
        yield


@contextmanager
def norm_out_norm_dropped(pipe):
    with replaced(pipe.transformer.norm_out, "norm", torch.nn.Identity()):
        yield


@contextmanager
def sin_before_cos(pipe):
    with replaced(pipe.transformer.time_proj, "flip_sin_to_cos", False):
        yield


@contextmanager
def gelu_erf(pipe):
    """The exact GELU where the tanh form belongs: a mistake of 1e-4 in one operation."""
    with ExitStack() as stack:
        for block in pipe.transformer.transformer_blocks:
            stack.enter_context(replaced(block.ff.net[0], "approximate", "none"))
        yield


@contextmanager
def positions_dropped(pipe):
    """2b: no sincos positions."""
    with replaced(pipe.transformer.patch_embed, "use_positional_embeddings", False):
        yield


@contextmanager
def guidance_halves_swapped(pipe):
    def swap(module, args, output):
        return (torch.cat(output[0].chunk(2)[::-1]),)

    handle = pipe.transformer.register_forward_hook(swap)
    yield
    handle.remove()


@contextmanager
def dynamic_guidance_by_step(pipe):
    """The step index in place of the timestep value."""
    import math

    steps = []
    original = pipe.transformer.forward

    def forward(*args, **kwargs):
        steps.append(0)
        return original(*args, **kwargs)

    class Scale:
        def __get__(self, instance, owner=None):
            total = instance._num_timesteps
            progress = ((len(steps) - 1) / total) ** 5.0
            return 1 + 6.0 * (1 - math.cos(math.pi * progress)) / 2

    with patch.object(pipe.transformer, "forward", forward), patch.object(type(pipe), "guidance_scale", Scale()):
        yield


# --- scheduler -------------------------------------------------------------------------------


@contextmanager
def dpm_first_draw_skipped(pipe):
    """One draw per step; the reference draws twice in the middle ones."""
    step, draw = dpm_module.CogVideoXDPMScheduler.step, dpm_module.randn_tensor

    def once(self, model_output, old, timestep, *args, **kwargs):
        middle = old is not None and timestep - 1000 // self.num_inference_steps >= 0
        drawn = []

        def randn(shape, **options):
            drawn.append(0)
            return torch.zeros(shape) if middle and len(drawn) == 1 else draw(shape, **options)

        with patch.object(dpm_module, "randn_tensor", randn):
            return step(self, model_output, old, timestep, *args, **kwargs)

    with patch.object(dpm_module.CogVideoXDPMScheduler, "step", once):
        yield


@contextmanager
def dpm_first_order(pipe):
    """The second order term left out."""
    step = dpm_module.CogVideoXDPMScheduler.get_mult

    def get_mult(self, h, r, *args):
        mult = step(self, h, r, *args)
        return mult if len(mult) == 2 else (mult[0], mult[1], torch.tensor(1.0), torch.tensor(0.0))

    with patch.object(dpm_module.CogVideoXDPMScheduler, "get_mult", get_mult):
        yield


@contextmanager
def other_snr_shift(pipe):
    config = dict(pipe.scheduler.config)
    config["snr_shift_scale"] = 4.0 - config["snr_shift_scale"]
    with replaced(pipe, "scheduler", type(pipe.scheduler).from_config(config)):
        yield


# --- text encoder ----------------------------------------------------------------------------


@contextmanager
def t5_bias_dropped(pipe):
    weight = pipe.text_encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    kept = weight.data.clone()
    weight.data.zero_()
    yield
    weight.data.copy_(kept)


@contextmanager
def t5_bias_mirrored(pipe):
    bucket = modeling_t5.T5Attention._relative_position_bucket

    def mirrored(relative_position, **kwargs):
        return bucket(-relative_position, **kwargs)

    with patch.object(modeling_t5.T5Attention, "_relative_position_bucket", staticmethod(mirrored)):
        yield


@contextmanager
def t5_scaled(pipe):
    with ExitStack() as stack:
        for block in pipe.text_encoder.encoder.block:
            stack.enter_context(replaced(block.layer[0].SelfAttention, "scaling", 0.125))
        yield


# --- VAE -------------------------------------------------------------------------------------


def blend_mistake(horizontal_first: bool, unblended: bool):
    @contextmanager
    def mistake(pipe):
        def tiled_decode(self, z, return_dict=True):
            height, width, batch = self.tile_latent_min_height, self.tile_latent_min_width, 2
            stride_h = int(height * (1 - self.tile_overlap_factor_height))
            stride_w = int(width * (1 - self.tile_overlap_factor_width))
            blend_h = int(self.tile_sample_min_height * self.tile_overlap_factor_height)
            blend_w = int(self.tile_sample_min_width * self.tile_overlap_factor_width)
            rows = []
            with replaced(self, "use_tiling", False):
                for i in range(0, z.shape[3], stride_h):
                    row = []
                    for j in range(0, z.shape[4], stride_w):
                        row.append(self._decode(z[:, :, :, i : i + height, j : j + width]).sample)
                    rows.append(row)
            source = [[tile.clone() for tile in row] for row in rows] if unblended else rows
            result = []
            for i, row in enumerate(rows):
                for j, tile in enumerate(row):
                    if horizontal_first and j > 0:
                        self.blend_h(source[i][j - 1], tile, blend_w)
                    if i > 0:
                        self.blend_v(source[i - 1][j], tile, blend_h)
                    if not horizontal_first and j > 0:
                        self.blend_h(source[i][j - 1], tile, blend_w)
                limit_h = self.tile_sample_min_height - blend_h
                limit_w = self.tile_sample_min_width - blend_w
                result.append(torch.cat([tile[..., :limit_h, :limit_w] for tile in row], dim=4))
            return vae_module.DecoderOutput(sample=torch.cat(result, dim=3))

        with patch.object(vae_module.AutoencoderKLCogVideoX, "tiled_decode", tiled_decode):
            yield

    return mistake


nothing_changed_in_tiling = blend_mistake(False, False)  # a check of the copy above
blend_order = blend_mistake(True, False)
blend_with_unblended = blend_mistake(False, True)


@contextmanager
def tiling_off(pipe):
    with replaced(pipe.vae, "use_tiling", False):
        yield


@contextmanager
def conv_cache_zeroed(pipe):
    original = vae_module.CogVideoXCausalConv3d.forward

    def forward(self, inputs, conv_cache=None):
        if conv_cache is not None:
            conv_cache = torch.zeros_like(conv_cache)
        return original(self, inputs, conv_cache)

    with patch.object(vae_module.CogVideoXCausalConv3d, "forward", forward):
        yield


@contextmanager
def conv_cache_dropped(pipe):
    original = vae_module.CogVideoXCausalConv3d.forward

    def forward(self, inputs, conv_cache=None):
        return original(self, inputs, None)

    with patch.object(vae_module.CogVideoXCausalConv3d, "forward", forward):
        yield


@contextmanager
def norm_over_whole_video(pipe):
    """All latent frames in one chunk: only the group norm statistics differ."""
    with replaced(pipe.vae, "num_latent_frames_batch_size", 1000):
        yield


@contextmanager
def spatial_norm_one_plus(pipe):
    original = vae_module.CogVideoXSpatialNorm3D.forward

    def forward(self, f, zq, conv_cache=None):
        out, cache = original(self, f, zq, conv_cache)
        return out + self.norm_layer(f), cache

    with patch.object(vae_module.CogVideoXSpatialNorm3D, "forward", forward):
        yield


@contextmanager
def first_frame_not_apart(pipe):
    """The conditioning of an odd chunk resized as a whole."""
    original = vae_module.CogVideoXSpatialNorm3D.forward

    def forward(self, f, zq, conv_cache=None):
        if f.shape[2] > 1 and f.shape[2] % 2 == 1:
            zq = torch.nn.functional.interpolate(zq, size=f.shape[-3:])
        return original(self, f, zq, conv_cache)

    with patch.object(vae_module.CogVideoXSpatialNorm3D, "forward", forward):
        yield


ROPE, PLAIN, TILED = ("5b-dpm", "1.5-dpm"), ("2b-ddim", "5b-dpm", "1.5-dpm"), ("5b-tiled", "1.5-tiled-dynamic")
CHUNKS = ("2b-17-frames-six-steps-long-prompt", "1.5-33-frames", "1.5-even-latents")
# mistake: (what must move, cases)
MISTAKES = {
    "rope_off": (rope_off, "latents", ROPE),
    "rope_halves": (rope_halves, "latents", ROPE),
    "rope_on_text": (rope_on_text, "latents", ROPE),
    "positions_dropped": (positions_dropped, "latents", ("2b-ddim",)),
    "qk_norm_dropped": (qk_norm_dropped, "latents", PLAIN),
    "gates_swapped": (gates_swapped, "latents", PLAIN),
    "streams_swapped": (streams_swapped, "latents", PLAIN),
    "shift_scale_swapped": (shift_scale_swapped, "latents", PLAIN),
    "tail_shift_scale_swapped": (tail_shift_scale_swapped, "latents", PLAIN),
    "norm_final_dropped": (norm_final_dropped, "latents", PLAIN),
    "norm_out_norm_dropped": (norm_out_norm_dropped, "latents", PLAIN),
    "sin_before_cos": (sin_before_cos, "latents", PLAIN),
    "guidance_halves_swapped": (guidance_halves_swapped, "latents", PLAIN),
    "dynamic_guidance_by_step": (
        dynamic_guidance_by_step,
        "latents",
        ("2b-default-size-dynamic", "5b-default-size-one-frame-dynamic", "1.5-tiled-dynamic"),
    ),
    "dpm_first_draw_skipped": (dpm_first_draw_skipped, "latents", ROPE + ("2b-dpm-negative",)),
    "dpm_first_order": (dpm_first_order, "latents", ROPE + ("2b-dpm-negative",)),
    "other_snr_shift": (other_snr_shift, "latents", PLAIN),
    "t5_bias_dropped": (t5_bias_dropped, "prompt_embeds", PLAIN),
    "t5_bias_mirrored": (t5_bias_mirrored, "prompt_embeds", PLAIN),
    "t5_scaled": (t5_scaled, "prompt_embeds", PLAIN),
    "blend_order": (blend_order, "frames", TILED),
    "blend_with_unblended": (blend_with_unblended, "frames", TILED),
    "tiling_off": (tiling_off, "frames", TILED),
    "conv_cache_zeroed": (conv_cache_zeroed, "frames", CHUNKS),
    "conv_cache_dropped": (conv_cache_dropped, "frames", CHUNKS),
    "norm_over_whole_video": (norm_over_whole_video, "frames", CHUNKS),
    "spatial_norm_one_plus": (spatial_norm_one_plus, "frames", PLAIN),
    "first_frame_not_apart": (first_frame_not_apart, "frames", PLAIN),
    # Smaller than the rest: shown, not demanded.
    "(gelu_erf)": (gelu_erf, "latents", PLAIN),
}


def distances(a, b) -> dict[str, float]:
    result = {key: cases.rel(a[key], b[key]) for key in ("prompt_embeds", "latents")}
    result["frames"] = float((a["frames"].double() - b["frames"].double()).abs().max())
    return result


def check(root: Path) -> bool:
    names = sorted({name for _, _, used in MISTAKES.values() for name in used})
    pipes, reference, good = {}, {}, True
    print("rounding: one thread against two, and f32 against f64 (the rotation stays in f32)")
    for name in names:
        case = cases.case_of(name)
        pipes[name] = cases.load(root, case, torch.float32)
        reference[name] = cases.run(pipes[name], case)
        torch.set_num_threads(1)
        single = distances(cases.run(pipes[name], case), reference[name])
        torch.set_num_threads(2)
        noise = distances(run_f64(root, case), reference[name])
        clamped = (reference[name]["frames"] <= 0) | (reference[name]["frames"] >= 1)
        frames = reference[name]["frames"]
        ok = max(single["latents"], noise["latents"]) <= NOISE and noise["frames"] <= FRAMES / 100
        good &= ok
        print(
            f"  {name:36} threads: latents {single['latents']:.1e} frames {single['frames']:.1e}   "
            f"f64: embeds {noise['prompt_embeds']:.1e} latents {noise['latents']:.1e} frames {noise['frames']:.1e}   "
            f"frames mean {frames.mean():.2f} std {frames.std():.2f} clamped {clamped.float().mean():.1%}"
            f"{'' if ok else '   TOO MUCH'}"
        )
    copy = pipes["5b-tiled"]
    with nothing_changed_in_tiling(copy):
        assert torch.equal(cases.run(copy, cases.case_of("5b-tiled"))["frames"], reference["5b-tiled"]["frames"])

    print(f"mistakes: at least {LATENTS} (latents, embeddings: relative), {FRAMES} (frames: largest difference)")
    for mistake, (patched, what, used) in MISTAKES.items():
        for name in used:
            with patched(pipes[name]):
                moved = distances(cases.run(pipes[name], cases.case_of(name)), reference[name])
            need = FRAMES if what == "frames" else LATENTS
            ok = moved[what] >= need
            shown = mistake.startswith("(")
            good &= ok or shown
            print(
                f"  {mistake:26} {name:36} {what:13} {moved[what]:.2e} = {moved[what] / need:7.1f} x needed"
                f"   (frames {moved['frames']:.2e}){'' if ok or shown else '   BLUNT'}"
            )
    print("sharp" if good else "not sharp enough")
    return good


def run_f64(root: Path, case) -> dict[str, torch.Tensor]:
    """The same pipeline in f64, with the noise of the f32 run."""
    from diffusers.pipelines.cogvideo import pipeline_cogvideox as module

    pipe = cases.load(root, case, torch.float32).to(torch.float64)
    drawn = module.randn_tensor

    def draw(shape, generator=None, device=None, dtype=None, layout=None):
        return drawn(shape, generator=generator, dtype=torch.float32).double()

    with patch.object(module, "randn_tensor", draw), patch.object(dpm_module, "randn_tensor", draw):
        return cases.run(pipe, case)
