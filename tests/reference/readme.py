"""fixtures/README.md."""

from pathlib import Path

TEXT = """# Fixtures

Written by `../make_fixtures.py` (do not edit): tiny random checkpoints in the published layout and what
diffusers, transformers and torch (versions in `../requirements.txt`) make of them on the CPU in float32.
Writing them twice gives the same bytes; `make_fixtures.py --check` compares. Each tensor's type is in its
safetensors header: inputs and frames are stored as f16 where noted.

## checkpoints/

| folder | holds | scheduler | weights | of note |
|---|---|---|---|---|
| `2b` | all | DDIM, snr shift 3 | f16, T5 `wo` f32 | sincos positions, scaling 1.15258426 |
| `5b` | all | DPM | bf16 | transformer in shards with an index |
| `5b-i2v` | transformer, the rest linked to `5b` | DPM | bf16 | learned positions, 1 layer |
| `1.5` | all | DPM | bf16 | patch_size_t 2, text encoder in shards, `invert_scale_latents` |
| `1.5-i2v` | transformer, the rest linked to `1.5` | DPM | bf16 | `ofs`, 1 layer |

2 heads of 64 (D = 128), 2 layers, time embedding 20, text 32 (T5: 2 layers, inner width 128, FF 112, table
of 1120 rows for 1100 tokens), VAE channels 4, 8, 8, 16 in 4 groups, one resnet per encoder block and two per decoder block.
VAE tiles are 48x40 pixels = 6x5 latents (stride 5x4, blend 8x8 pixels), from sample_height 96, sample_width 80.
The rotary base grid of `5b` is 3x4 patches: whole positions at 48x64 pixels, fractions elsewhere. 1.5: at most 10x10 patches.
The tokenizer folders have the four files of the published ones; `spiece.model` is a unigram model of 1000 pieces.
They are all the same: those of `5b`, and links to them.
The random weights are scaled so that mistakes show: `make_fixtures.py --check-sharpness` prints how far each misses.

## cases/NAME.json, cases/NAME.safetensors

Runs of `CogVideoXPipeline`, `CogVideoXImageToVideoPipeline` (`start` image) and `CogVideoXVideoToVideoPipeline` (`start`
video, with its `strength`) with `torch.Generator().manual_seed(seed)`. The JSON holds the request (`checkpoint`,
`prompt`, `negative_prompt`, `num_frames`, `height`, `width`, `steps`, `guidance`, `seed` (u64), `scheduler`
auto|ddim|dpm, `dynamic_cfg`, `tiling` (of encoding and decoding), `dtype`; `input`: which of `inputs/` it starts from), `valid_request` (false: 13 frames, which a command line may refuse),
`tokens` (ids that are not padding), the shapes, `padding_latent_frames` (at the front, dropped before decoding), and in some cases
`distance_bf16`, `distance_f16`: the reference's own distance (norm of the difference / norm) of `prompt_embeds`, `latents` and `frames` from its f32 result when
the checkpoint is loaded and run in that type; `max_abs_*`: the largest difference of a frame value.

| tensor | type | shape |
|---|---|---|
| `input_ids` | i64 | [1,226] |
| `prompt_embeds` | f32 | [1,226,32] |
| `negative_prompt_embeds` | f32 | [1,226,32] |
| `latents` | f32 | [1,F,16,h,w] after the last step, padding frames included |
| `start_latents` | f32 | [1,F,16,h,w] before the first step, where it starts from an image or a video |
| `image_latents` | f32 | [1,16,h,w], scaled, of the image it starts from |
| `frames` | f32, mostly f16 | [frames,H,W,3] in 0..1, before rounding to bytes; of the numbers in `stored_frames` alone where the JSON has that |

Embeddings are stored once per text encoder and prompt: a case lacks those that an earlier case stores;
`negative_prompt_embeds` are also absent without guidance. f16 frames are off by at most 2.5e-4.

## inputs/NAME.safetensors

`pixels` u8 [frames,H,W,3]: what cases start from, of their video's size.

## loras/

LoRAs of the tiny checkpoints, as their makers save them, and runs with them (`loras.py`).

| file | format | of note |
|---|---|---|
| `5b-peft` | diffusers with `lora_adapter_metadata`, f32 | rank 2 and 3, alpha 1 and 3 by pattern |
| `5b-kohya` | Kohya's names and `.alpha`, f16 | the factors of `5b-peft`, and a tensor for a text encoder |
| `5b-plain` | diffusers without metadata, bf16 | attention, feed-forward, modulations, embeddings, `proj_out` and a convolution |
| `2b-sat` | as SAT's exporter writes it, f16 | alpha 1 of rank 2, which it does not say |
| `2b-sat-raw` | SAT's own names | the factors of `2b-sat` |

`index.json` holds the request of each case, its LoRAs with their scales, and how far they move the latents (`moved`).
`case-NAME.safetensors`: `latents` f32 after the last step of the pipeline with the LoRAs loaded and fused in f32; `frames` f16 of `two`.

## transformer/NAME.safetensors, transformer/index.json

One forward of `CogVideoXTransformer3DModel`: `hidden_states` f16 [B,F,C,h,w], `encoder_hidden_states` f16 [B,226,32],
`timestep` i64 [B], `rotary_cos`/`rotary_sin` f32 [tokens,64], `ofs` f32 [1], and `output` f32 of the f32 run. (C is 32 for I2V: noisy and image
channels.) `5b-i2v-sincos` has another number of frames than the learned table, where the reference falls back to sincos positions.
The index names the checkpoint and the reference's own bf16 and f16 distances.

## vae/cases.safetensors, vae/index.json

`NAME.latents` f16, input of `vae.decode` (already divided by the scaling factor); `NAME.frames` f32 [1,3,T,H,W] as it returns them (about
-1..1, not clamped), with the VAE of `5b`. `tiled` has 3x3 tiles with a last row and column of one latent.

## encodes/cases.safetensors, encodes/index.json

`vae.encode` of videos, or of pictures where `frames` is 1. The pixel of frame t, row y, column x and channel c is (k mod 251 - 125) / 128 with
k = 11t + 31y + 57x + 101c + 3xy + 5tx + 7ty, which every type holds exactly. `encodes`: `NAME.moments` f32 [1,32,F,h,w], means before logarithms of variances; `tiling` is false, true (the
VAE's own tiles) or [height, width]; `distance_bf16`, `distance_f16` as above. `samples`: what the pipelines make of moments with `torch.Generator().manual_seed(seed)`:
`NAME.moments.DTYPE` [1,32,F,h,w] and `NAME.latents.DTYPE` [1,F,16,h,w] in each type, multiplied by the scaling factor (`factor` video), or
as image to video does it (`factor` image), which divides where the VAE says `invert_scale_latents`.

## t5/case.safetensors

With the text encoder of `1.5`: `input_ids` i64 [1,41], `hidden.0` (embeddings), `hidden.1` (after block 0), `output`; and `buckets` i64 of
`relative_positions` i64 (key - query).

## tokenizer.json

`strings`: `text` and `ids` up to and with the end of sequence, truncated to 226, from the tokenizer the pipeline uses (transformers 5:
`T5Tokenizer` on the tokenizers library). `slow_ids` where sentencepiece itself, run between the special tokens as the slow tokenizer of
transformers 4 did, gives other ids.

## noise.json, noise.safetensors

`torch.randn` with a CPU generator: per entry a `seed` and successive `draws` from one generator (`dtype`, `shape`, `tensor`); `stored` = `ends32` has the first
and the last 32 values only.

## schedulers.json, schedulers.safetensors

`alphas_cumprod` by snr shift and timestep; `timesteps` by spacing and number of steps (of 1000 steps the first and last three; trailing 61 has 62 entries and ends with -1, as in the reference); `dynamic_guidance` by number of steps (G = 6, trailing);
`dpm_coefficients` per step (`m1`..`m4` the multipliers, strings for infinities); `traces`: tensors [steps,32], the sample after each step, starting from `sample`, with the network output of step i being
`model_output` rolled right by i (`torch.roll`), trailing, noise from a generator with seed 42 drawn in shape [1,2,2,2,4].

## positions.json

For the published 5b and 1.5 configurations and latent sizes [F,h,w]: the crop, row and column positions, and cos/sin of some tokens (`cos`, `sin`: the 32 even columns,
the odd ones are equal). For 2b: values of the sincos table (video tokens, width 1920) at some columns.

## published/

`2b.json`, `5b.json`, `5b-i2v.json`, `1.5.json`, `1.5-i2v.json`: every tensor of the published transformers (`name`, `shape`; with `count` n, `{}` in the name stands
for 0..n-1), the parameters, the number of tensors, the type on disk, the number of shards, and the configurations of the transformer, the VAE and the scheduler and the model index.
`vae.json`, `t5.json`: the same for the components that all share (`dtype`: that of the model).

## pictures/

`resized/HOW_FROM_TO.png`: what Pillow makes of the picture of size FROM that `pixels` in `../pictures.py` counts out: `Image.resize`, `ImageOps.fit`,
`ImageOps.pad`, each with its Lanczos filter. `samples/NAME` and `samples/NAME.rgb.png`: a small picture of each kind, and what the reference's `load_image`
makes of it (`grey16.png`: its upper 8 bits). `moving/`: two animations and their three frames. PNGs of Pillow are stored without compression, which would depend on the machine.

## Sizes

"""


def write(root: Path, files: dict[str, int]) -> None:
    groups: dict[str, list[int]] = {}
    for name, size in files.items():
        if name == "README.md":
            continue
        parts = name.split("/")
        key = "/".join(parts[:2]) + "/" if parts[0] == "checkpoints" else parts[0] + ("/" if len(parts) > 1 else "")
        groups.setdefault(key, []).append(size)
    rows = [f"| `{key}` | {len(sizes)} | {sum(sizes)} |" for key, sizes in groups.items()]
    table = "| path | files | bytes |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    (root / "README.md").write_text(TEXT + table, "utf-8")
