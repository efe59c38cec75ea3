"""Trains the demo's transformer: v-prediction with the published schedule, the T5 frozen."""

import argparse
from pathlib import Path

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from transformers import T5EncoderModel, T5Tokenizer

import latents
import text
import training
import world

STEPS, BATCH = 20_000, 32
WITHOUT_PROMPT = 0.1  # of the samples, for classifier-free guidance
# Below this step nearly everything is known from what is given.
FINE, SHARE_OF_FINE = 150, 0.05
LATENT_FRAMES, LATENT_SIDE, PATCH = (world.FRAMES - 1) // 4 + 1, world.SIDE // 8, 2

CONFIG = dict(
    num_attention_heads=3,
    attention_head_dim=64,
    in_channels=16,
    out_channels=16,
    flip_sin_to_cos=True,
    freq_shift=0,
    time_embed_dim=64,
    text_embed_dim=text.WIDTH,
    num_layers=6,
    dropout=0.0,
    attention_bias=True,
    sample_width=LATENT_SIDE,
    sample_height=LATENT_SIDE,
    sample_frames=world.FRAMES,
    patch_size=PATCH,
    temporal_compression_ratio=4,
    max_text_seq_length=text.TOKENS,
    activation_fn="gelu-approximate",
    timestep_activation_fn="silu",
    norm_elementwise_affine=True,
    norm_eps=1e-5,
    spatial_interpolation_scale=1.875,
    temporal_interpolation_scale=1.0,
    use_rotary_positional_embeddings=True,
)
SCHEDULER = dict(
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
    snr_shift_scale=1.0,
)


def new_transformer() -> CogVideoXTransformer3DModel:
    """Random, but every block begins as the identity and the output as zero."""
    torch.manual_seed(training.SEED)
    transformer = CogVideoXTransformer3DModel(**CONFIG)
    with torch.no_grad():
        for block in transformer.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                norm.linear.weight.zero_()
                norm.linear.bias.zero_()
        for layer in (transformer.norm_out.linear, transformer.proj_out):
            layer.weight.zero_()
            layer.bias.zero_()
    return transformer


def draw_steps() -> torch.Tensor:
    """A training step for every sample, seldom a fine one."""
    fine, coarse = torch.randint(0, FINE, (BATCH,)), torch.randint(FINE, 1000, (BATCH,))
    return torch.where(torch.rand(BATCH) < SHARE_OF_FINE, fine, coarse)


def rotary() -> tuple[torch.Tensor, torch.Tensor]:
    """The pipeline's tables at the model's own size."""
    grid = (LATENT_SIDE // PATCH, LATENT_SIDE // PATCH)
    return get_3d_rotary_pos_embed(CONFIG["attention_head_dim"], ((0, 0), grid), grid, LATENT_FRAMES)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for states")
    options.add_argument("--compile", action="store_true", help="compile the model first")
    options.add_argument("--start", type=Path, help="go on from the transformer in this folder")
    options.add_argument("--steps", type=int, default=STEPS)
    given = options.parse_args()
    work = given.work
    tokenizer = T5Tokenizer.from_pretrained(work / "tokenizer")
    encoder = T5EncoderModel.from_pretrained(work / "text_encoder").eval()
    mean, scenes = latents.load(work / "latents")
    # The posterior's means, not samples: its noise is nothing that a transformer could learn, and the
    # decoder, which was trained with it, forgives as much.
    scale = latents.scaling_factor(mean)
    transformer, tables = new_transformer(), rotary()
    if given.start and not (work / "transformer.state").exists():
        transformer.load_state_dict(CogVideoXTransformer3DModel.from_pretrained(given.start).float().state_dict())
    forward = torch.compile(transformer) if given.compile else transformer
    kept = CogVideoXDPMScheduler(**SCHEDULER).alphas_cumprod.float()

    def loss_of(_step: int, dice):
        chosen = [dice.randrange(len(scenes)) for _ in range(BATCH)]
        sentences = [world.describe(dice, scenes[i])[0] if dice.random() >= WITHOUT_PROMPT else "" for i in chosen]
        with torch.no_grad():
            prompts = encoder(text.ids_of(tokenizer, sentences)).last_hidden_state
        clean = mean[chosen].float() * scale
        noise, steps = torch.randn_like(clean), draw_steps()
        signal = kept[steps][:, None, None, None, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        with torch.autocast("cpu", torch.bfloat16):
            guess = forward(
                hidden_states=noisy,
                encoder_hidden_states=prompts,
                timestep=steps,
                image_rotary_emb=tables,
                return_dict=False,
            )[0]
        errors = (guess.float() - velocity).square().mean((1, 2, 3, 4))
        early = errors[steps >= 700]
        return errors.mean(), dict(loss=errors.mean().detach(), early=early.detach().mean() if len(early) else 0.0)

    training.train(
        "transformer", transformer, loss_of, work, given.steps, peak=1e-3, decay=0.9995, weight_decay=0.01
    )
    transformer.save_pretrained(work / "transformer")


if __name__ == "__main__":
    main()
