"""A training loop that can be stopped and gone on with at any step.

Every step draws its data from a generator seeded by the step's number, so a run that was stopped
sees what it would have seen. The state is replaced atomically.
"""

import hashlib
import math
import os
import random
import time
from pathlib import Path

import torch

SEED = 20_000
SAVE_EVERY = 250


def dice_of(name: str, step: int) -> random.Random:
    """The chances of one step."""
    torch.manual_seed(hash_of(name, step))
    return random.Random(hash_of(name, step))


def hash_of(name: str, step: int) -> int:
    return sum((i + 1) * ord(c) for i, c in enumerate(name)) * 1_000_003 + SEED + step


def rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warmup, then a half cosine down to a hundredth."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


class Average:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self, model: torch.nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        names, current = zip(*model.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_([self.values[n] for n in names], list(current), 1 - decay)

    def into(self, model: torch.nn.Module) -> None:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(self.values[name])


def save(path: Path, value) -> None:
    """Writes beside the file, then takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(value, part)
    os.replace(part, path)


def digest(folder: Path) -> str:
    """Of all files of a folder, by name and contents."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(hashlib.sha256(f.name.encode() + f.read_bytes()).digest() for f in files)).hexdigest()


def train(
    name: str,
    model: torch.nn.Module,
    loss_of,
    folder: Path,
    steps: int,
    peak: float,
    decay=0.999,
    weight_decay=0.0,
    of="",
):
    """Minimises `loss_of(step, dice)`, a loss and a dict of numbers to print; the average goes into the model.

    `of` says what is trained on: a state that was trained on something else is not gone on with.
    """
    path = folder / f"{name}.state"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
    )
    average, first, seconds = Average(model, decay), 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        if state.get("of", "") != of:
            raise SystemExit(f"{path} was trained on other inputs than there are now: move it away to train anew")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, first, seconds = state["average"], state["step"], state["seconds"]
        print(f"{name}: going on at step {first} of {steps}", flush=True)
    model.train()
    shown: dict[str, float] = {}
    began = time.monotonic()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, peak)
        loss, numbers = loss_of(step, dice_of(name, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        numbers["norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        for key, value in numbers.items():
            shown[key] = shown.get(key, 0.0) + float(torch.as_tensor(value).detach())
        done = step + 1
        if done % 50 == 0:
            spent = seconds + time.monotonic() - began
            line = " ".join(f"{k} {v / 50:.5f}" for k, v in shown.items())
            print(f"{name} {done}/{steps} {line} {spent:.0f} s", flush=True)
            shown.clear()
        if done % SAVE_EVERY == 0 or done == steps:
            save(
                path,
                dict(
                    model=model.state_dict(),
                    optimizer=optimizer.state_dict(),
                    average=average.values,
                    step=done,
                    seconds=seconds + time.monotonic() - began,
                    of=of,
                ),
            )
    average.into(model)
    model.eval()
    return model
