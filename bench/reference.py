"""Times the reference (diffusers, transformers, torch; f32 on the CPU) on fixed shapes.

    VENV/bin/python bench/reference.py [--threads N] [--repeat K] [--only NAME]...

One JSON object a line: `name`, `seconds` (median of K runs after a warm-up), `runs`, `threads`,
`rss_before_bytes` (resident with the weights in place, before the first run) and `peak_rss_bytes`. Each
measurement runs in a process of its own. The versions are those of tests/reference/requirements.txt.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time


def materialize(build, seed: int = 0):
    """Builds a model without its slow initialisation, with small random weights in f32."""
    import torch

    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu").eval()
    if hasattr(model, "shared"):  # to_empty parts the two names of the T5 table
        model.encoder.embed_tokens.weight = model.shared.weight
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        if parameter.dim() == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            parameter.normal_(std=fan_in**-0.5, generator=generator)
    return model


def transformer(layers: int, frames: int, height: int, width: int):
    """CogVideoX-2b: 30 heads of 64; sizes in latents, so that the stored position table fits."""
    import torch
    from diffusers import CogVideoXTransformer3DModel

    model = materialize(
        lambda: CogVideoXTransformer3DModel(
            num_layers=layers, sample_height=height, sample_width=width, sample_frames=(frames - 1) * 4 + 1
        )
    )
    patch = model.patch_embed
    patch.pos_embedding = patch._get_positional_embeddings(height, width, (frames - 1) * 4 + 1)
    generator = torch.Generator().manual_seed(1)
    inputs = dict(
        hidden_states=torch.randn((1, frames, 16, height, width), generator=generator),
        encoder_hidden_states=torch.randn((1, 226, 4096), generator=generator),
        timestep=torch.tensor([500]),
    )
    return lambda: model(**inputs, return_dict=False)[0]


def text_encoder():
    """Two of the 24 layers of T5 XXL on 226 tokens."""
    import torch
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=2,
        num_heads=64,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
    )
    model = materialize(lambda: T5EncoderModel(config))
    ids = torch.randint(0, 32100, (1, 226), generator=torch.Generator().manual_seed(1))
    return lambda: model(ids)[0]


def vae_decode():
    """The published VAE, 3 latent frames of 30x45: 9 frames of 240x360. The encoder is left out."""
    import torch
    from diffusers import AutoencoderKLCogVideoX

    def build():
        model = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(128, 256, 256, 512),
            layers_per_block=3,
        )
        model.encoder = None
        return model

    model = materialize(build)
    latents = torch.randn((1, 16, 3, 30, 45), generator=torch.Generator().manual_seed(1))
    return lambda: model.decode(latents).sample


# name: (build, shape of the result)
MEASUREMENTS = {
    # 226 text tokens and 5*11*18 = 990 of video
    "transformer-2b-4-layers-1216-tokens": (lambda: transformer(4, 5, 22, 36), (1, 5, 16, 22, 36)),
    # 226 and 13*30*45 = 17,550
    "transformer-2b-1-layer-17776-tokens": (lambda: transformer(1, 13, 60, 90), (1, 13, 16, 60, 90)),
    "t5-xxl-2-layers-226-tokens": (text_encoder, (1, 226, 4096)),
    "vae-decode-9-frames-240x360": (vae_decode, (1, 3, 9, 240, 360)),
}


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure(name: str, threads: int, repeat: int) -> None:
    import torch

    torch.set_num_threads(threads)
    with torch.no_grad():
        build, shape = MEASUREMENTS[name]
        run = build()
        before = resident()
        result = run()
        assert tuple(result.shape) == shape and result.isfinite().all(), result.shape
        del result
        runs = []
        for _ in range(repeat):
            start = time.perf_counter()
            run()
            runs.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = dict(
        name=name,
        seconds=round(statistics.median(runs), 4),
        runs=[round(r, 4) for r in runs],
        threads=threads,
        rss_before_bytes=before,
        peak_rss_bytes=peak,
    )
    print(json.dumps(line), flush=True)


def main() -> None:
    import os

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        measure(args.only[0], args.threads, args.repeat)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    for name in args.only or MEASUREMENTS:
        command = [sys.executable, __file__, "--here", "--only", name]
        command += ["--threads", str(args.threads), "--repeat", str(args.repeat)]
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
