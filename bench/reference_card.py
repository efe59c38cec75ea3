"""Times the reference (diffusers, torch) on a card: eagerly, with all weights on it, random weights.

    PYTHON bench/reference_card.py --model CogVideoX-5b --dtype bf16 --frames 13 --rows 60 --columns 90

`vidfit bench card --python PYTHON` runs it. Sizes are those of the latents, padding included. The last line
printed is a JSON object: `step_seconds` (the transformer, both halves of guidance in one batch) and
`decode_seconds` (whole, without tiles), each the median of several runs after a warm-up; `step_peak_bytes` and
`decode_peak_bytes` by torch's allocator; `product_tflops` and `upload_gigabytes_per_second`, what the card reaches
in torch's own products and copies.
"""

import argparse
import json
import statistics
import time

import diffusers
import torch

TRANSFORMERS = {
    "CogVideoX-2b": dict(num_attention_heads=30, num_layers=30),
    "CogVideoX-5b": dict(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True),
    "CogVideoX-5b-I2V": dict(
        num_attention_heads=48,
        num_layers=42,
        in_channels=32,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    ),
    "CogVideoX1.5-5B": dict(
        num_attention_heads=48,
        num_layers=42,
        patch_size_t=2,
        patch_bias=False,
        sample_height=300,
        sample_width=300,
        sample_frames=81,
        use_rotary_positional_embeddings=True,
    ),
    "CogVideoX1.5-5B-I2V": dict(
        num_attention_heads=48,
        num_layers=42,
        in_channels=32,
        patch_size_t=2,
        patch_bias=False,
        ofs_embed_dim=512,
        sample_height=300,
        sample_width=300,
        sample_frames=81,
        use_rotary_positional_embeddings=True,
    ),
}
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


def materialize(build, device, dtype):
    """Builds a model on the device without its slow initialisation, with small random weights."""
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model


class Card:
    def __init__(self, name):
        self.device = torch.device(name)
        self.is_cuda = self.device.type == "cuda"

    def wait(self):
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def median(self, run, repeat):
        """Seconds of the median run after one that does not count, and the allocator's peak."""
        run()
        self.wait()
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        laps = []
        for _ in range(repeat):
            began = time.perf_counter()
            run()
            self.wait()
            laps.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated(self.device) if self.is_cuda else 0
        return statistics.median(laps), peak

    def let_go(self):
        if self.is_cuda:
            torch.cuda.empty_cache()


def step(args, card, dtype):
    """A call of the transformer as the pipeline makes it."""
    config = dict(TRANSFORMERS[args.model])
    if args.layers:
        config["num_layers"] = args.layers
    model = materialize(lambda: diffusers.CogVideoXTransformer3DModel(**config), card.device, dtype)
    patch = model.patch_embed
    if hasattr(patch, "pos_embedding") and not config.get("use_learned_positional_embeddings"):
        pixel_frames = (args.frames - 1) * 4 + 1
        table = patch._get_positional_embeddings(args.rows, args.columns, pixel_frames)
        patch.pos_embedding = table.to(card.device, dtype)
    random = lambda *shape: torch.randn(shape, device=card.device, dtype=dtype)
    inputs = dict(
        hidden_states=random(2, args.frames, config.get("in_channels", 16), args.rows, args.columns),
        encoder_hidden_states=random(2, 226, 4096),
        timestep=torch.tensor([500, 500], device=card.device),
    )
    if config.get("use_rotary_positional_embeddings"):
        frames = args.frames // config.get("patch_size_t", 1)
        angles = torch.rand(frames * (args.rows // 2) * (args.columns // 2), 64, device=card.device)
        inputs["image_rotary_emb"] = (angles.cos(), angles.sin())
    if config.get("ofs_embed_dim"):
        inputs["ofs"] = torch.full((1,), 2.0, device=card.device, dtype=dtype)
    return card.median(lambda: model(**inputs, return_dict=False)[0], args.repeat)


def decode(args, card, dtype):
    """The whole decoding as the pipeline does it, frames to the host included."""

    def build():
        model = diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(128, 256, 256, 512),
            layers_per_block=3,
        )
        model.encoder = None
        return model

    model = materialize(build, card.device, dtype)
    # torch's search for the fastest convolutions is off by default; whatever is faster counts.
    shape = (1, 16, args.frames - args.padding, args.rows, args.columns)
    latents = torch.randn(shape, device=card.device, dtype=dtype)
    run = lambda: ((model.decode(latents).sample / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    results = []
    for torch.backends.cudnn.benchmark in (False, True):
        results.append(card.median(run, args.repeat))
    return min(results)


def ceilings(card, dtype):
    """The card's rates in torch's own product and copy."""
    n = 8192 if card.is_cuda else 256
    a, b = (torch.randn(n, n, device=card.device, dtype=dtype) for _ in range(2))
    product, _ = card.median(lambda: [a @ b for _ in range(10)], 3)
    host = torch.empty(1 << (28 if card.is_cuda else 16), dtype=torch.uint8)
    host = host.pin_memory() if card.is_cuda else host
    there = torch.empty_like(host, device=card.device)
    copy, _ = card.median(lambda: there.copy_(host, non_blocking=True), 5)
    return 20 * n**3 / product / 1e12, host.numel() / copy / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=TRANSFORMERS, default="CogVideoX-5b")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--padding", type=int, default=0, help="of the frames, those that are not decoded")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--columns", type=int, default=90)
    parser.add_argument("--layers", type=int, help="fewer than the model has, to try the script")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    args = parser.parse_args()
    card, dtype = Card(args.device), DTYPES[args.dtype]
    with torch.no_grad():
        product, upload = ceilings(card, dtype)
        card.let_go()
        step_seconds, step_peak = step(args, card, dtype)
        card.let_go()
        decode_seconds, decode_peak = decode(args, card, dtype)
    result = dict(
        versions=f"diffusers {diffusers.__version__}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}",
        step_seconds=step_seconds,
        decode_seconds=decode_seconds,
        step_peak_bytes=step_peak,
        decode_peak_bytes=decode_peak,
        product_tflops=product,
        upload_gigabytes_per_second=upload,
    )
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
