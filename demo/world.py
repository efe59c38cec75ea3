"""The world that the demo model knows: one coloured shape that moves over a quiet background.

A scene is drawn from signed distances, so every frame is exact and anti-aliased, and described by
one of many English sentences. Combinations of colour, shape and motion are divided by a digest of
their names: those that are held out are never shown to what reads prompts, the text encoder and the
transformer (see `is_held_out`); the VAE, which reads none, is trained on all.
"""

import hashlib
import math
import random
from dataclasses import dataclass

import torch

SIDE = 64  # pixels
FRAMES = 17
FPS = 8

COLOURS = {
    "red": (225, 45, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 220, 50),
    "green": (50, 185, 75),
    "cyan": (60, 205, 215),
    "blue": (45, 95, 230),
    "purple": (150, 60, 205),
    "white": (245, 245, 245),
}
SHAPES = ("ball", "square", "triangle", "star")
SIZES = {"small": 7.0, "medium": 10.0, "large": 13.0}  # radius in pixels
# Right and down are positive, as in a picture.
DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up-left": (-1, -1),
    "up-right": (1, -1),
    "down-left": (-1, 1),
    "down-right": (1, 1),
}
MOTIONS = (*DIRECTIONS, "growing", "shrinking", "bouncing", "still")
BACKGROUNDS = {
    "black": (12, 12, 16),
    "gray": (85, 88, 92),
    "navy": (18, 26, 78),
    "brown": (74, 48, 28),
    "dark green": (16, 62, 40),
}
GROWTH = (0.5, 1.25)  # of the radius, from the least to the most

# How far a shape's corners are from its centre, as a multiple of its radius.
REACH = {"ball": 1.0, "square": 0.88 * math.sqrt(2), "triangle": 1.3, "star": 1.4}
HELD_OUT_PERCENT = 15


@dataclass(frozen=True)
class Scene:
    """One video, described completely."""

    colour: str
    shape: str
    size: str
    motion: str
    background: tuple[str, str]  # at the top and at the bottom; the same one twice where it is plain
    path: tuple[tuple[float, float, float], ...]  # centre and radius in every frame, in pixels


def is_held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether the combination is kept from the training of the text encoder and the transformer."""
    digest = hashlib.sha256(f"{colour} {shape} {motion}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def combinations(held_out: bool) -> list[tuple[str, str, str]]:
    """Every colour, shape and motion of one side of the division."""
    return [
        (colour, shape, motion)
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        if is_held_out(colour, shape, motion) == held_out
    ]


def draw_scene(dice: random.Random, combination: tuple[str, str, str]) -> Scene:
    """A scene of a combination, the rest by chance."""
    colour, shape, motion = combination
    size = dice.choice(list(SIZES))
    top = dice.choice(list(BACKGROUNDS))
    bottom = dice.choice([b for b in BACKGROUNDS if b != top]) if dice.random() < 0.4 else top
    path = draw_path(dice, shape, size, motion)
    return Scene(colour, shape, size, motion, (top, bottom), path)


def draw_path(dice, shape: str, size: str, motion: str) -> tuple[tuple[float, float, float], ...]:
    """Centre and radius of every frame; the shape never leaves the picture."""
    radius, last = SIZES[size], FRAMES - 1
    reach = REACH[shape] * radius * (GROWTH[1] if motion in ("growing", "shrinking") else 1.0) + 1.0
    room = max(SIDE / 2 - reach, 0.0)  # from the middle, in every direction

    def aside() -> float:
        return SIDE / 2 + dice.uniform(-1, 1) * room * 0.6

    if motion in DIRECTIONS:
        x_step, y_step = DIRECTIONS[motion]
        travel = 2 * room * dice.uniform(0.75, 1.0)
        slack = room - travel / 2
        middle = [SIDE / 2 + dice.uniform(-1, 1) * (slack if step else room * 0.6) for step in (x_step, y_step)]
        return tuple(
            (middle[0] + x_step * travel * (t / last - 0.5), middle[1] + y_step * travel * (t / last - 0.5), radius)
            for t in range(FRAMES)
        )
    x, y = aside(), aside()
    if motion == "still":
        return ((x, y, radius),) * FRAMES
    if motion == "bouncing":  # two hops from the floor
        floor, height = SIDE / 2 + room, 2 * room * dice.uniform(0.75, 1.0)
        return tuple((x, floor - height * abs(math.sin(2 * math.pi * t / last)), radius) for t in range(FRAMES))
    least, most = GROWTH if motion == "growing" else GROWTH[::-1]
    return tuple((x, y, radius * (least + (most - least) * t / last)) for t in range(FRAMES))


# --- pictures ----------------------------------------------------------------------------------


def distance(shape: str, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Pixels to the shape's edge, negative inside it."""
    if shape == "ball":
        return torch.hypot(x, y) - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.88 * radius
    if shape == "triangle":
        below, beside = y, math.sqrt(0.75) * x.abs() - 0.5 * y
        return torch.maximum(below, beside) - REACH[shape] / 2 * radius
    # A fifth of the star, folded onto half of itself: one straight edge.
    fold = math.pi / 5
    angle = (torch.remainder(torch.atan2(x, -y) + fold, 2 * fold) - fold).abs()
    far = torch.hypot(x, y)
    along, across = far * torch.cos(angle), far * torch.sin(angle)
    inner_x, inner_y = 0.45 * math.cos(fold) - 1.0, 0.45 * math.sin(fold)
    length = math.hypot(inner_x, inner_y)
    return (inner_y * (along - REACH[shape] * radius) - inner_x * across) / length


def render(scene: Scene, frames=slice(None), top=0, left=0, side=SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """`[3, frames, side, side]` in -1..1, and where the shape or its edge is, `[1, frames, side, side]`."""
    path = torch.tensor(scene.path[frames])[:, :, None, None]
    rows = torch.arange(top, top + side)[None, :, None] + 0.5
    columns = torch.arange(left, left + side)[None, None, :] + 0.5
    far = distance(scene.shape, columns - path[:, 0], rows - path[:, 1], path[:, 2])
    cover = (0.5 - far).clamp(0, 1)[None]
    from_top = (rows / SIDE).expand_as(far)[None]

    def paint(rgb) -> torch.Tensor:
        return (torch.tensor(rgb) / 127.5 - 1)[:, None, None, None]

    above, below = (paint(BACKGROUNDS[name]) for name in scene.background)
    behind = above + (below - above) * from_top
    return behind + (paint(COLOURS[scene.colour]) - behind) * cover, (far < 3)[None].float()


# --- sentences ---------------------------------------------------------------------------------

SHAPE_WORDS = {
    "ball": ("ball", "ball", "circle", "disc"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle",),
    "star": ("star",),
}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big", "huge"),
}
# Present participle, and third person.
VERBS = (
    ("moving", "moves"),
    ("moving", "moves"),
    ("going", "goes"),
    ("sliding", "slides"),
    ("drifting", "drifts"),
    ("flying", "flies"),
    ("gliding", "glides"),
    ("traveling", "travels"),
    ("floating", "floats"),
    ("rolling", "rolls"),
)
WHERE = {
    "left": ("left", "to the left", "leftward", "leftwards", "from right to left", "toward the left"),
    "right": ("right", "to the right", "rightward", "rightwards", "from left to right", "toward the right"),
    "up": ("up", "upward", "upwards", "to the top", "from bottom to top", "toward the top"),
    "down": ("down", "downward", "downwards", "to the bottom", "from top to bottom", "toward the bottom"),
}
CORNERS = (
    "{v} and to the {h}",
    "{v} and {h}",
    "diagonally {v} to the {h}",
    "to the {e} {h}",
    "toward the {e} {h} corner",
)
OTHERWISE = {  # said without a direction
    "up": (("rising", "rises"), ("climbing", "climbs")),
    "down": (("falling", "falls"), ("sinking", "sinks"), ("dropping", "drops")),
    "growing": (
        ("growing", "grows"),
        ("getting bigger", "gets bigger"),
        ("getting larger", "gets larger"),
        ("expanding", "expands"),
    ),
    "shrinking": (
        ("shrinking", "shrinks"),
        ("getting smaller", "gets smaller"),
        ("becoming smaller", "becomes smaller"),
    ),
    "bouncing": (
        ("bouncing", "bounces"),
        ("bouncing up and down", "bounces up and down"),
        ("jumping up and down", "jumps up and down"),
        ("hopping", "hops"),
    ),
    "still": (
        ("standing still", "stands still"),
        ("staying in place", "stays in place"),
        ("not moving", "does not move"),
        ("resting", "rests"),
    ),
}
ON = ("on {}", "over {}", "against {}", "in front of {}")
# Words that change nothing: people use them.
ADJECTIVES = ("bright", "shiny", "nice", "simple", "colorful", "single")
ADVERBS = ("slowly", "quickly", "smoothly", "gently", "steadily")
OPENINGS = ("", "", "", "", "", "a video of ", "an animation of ", "a clip of ")


def motion_words(dice: random.Random, motion: str) -> tuple[str, str]:
    """The motion as a present participle and in the third person."""
    if motion not in DIRECTIONS or (motion in OTHERWISE and dice.random() < 0.2):
        return dice.choice(OTHERWISE[motion])
    if "-" in motion:
        v, h = motion.split("-")
        edges = ("upper", "top") if v == "up" else ("lower", "bottom")
        where = dice.choice(CORNERS).format(v=v, h=h, e=dice.choice(edges))
    else:
        where = dice.choice(WHERE[motion])
    doing, does = dice.choice(VERBS)
    return f"{doing} {where}", f"{does} {where}"


def background_words(dice: random.Random, background: tuple[str, str]) -> str:
    """The background as a noun phrase."""
    top, bottom = (name.replace("gray", dice.choice(("gray", "grey"))) for name in background)
    if top == bottom:
        return dice.choice(("a {} background", "a plain {} background", "{}", "a {} backdrop")).format(top)
    return dice.choice(("a gradient from {} to {}", "a background from {} to {}")).format(top, bottom)


def describe(dice: random.Random, scene: Scene) -> tuple[str, bool, bool]:
    """A sentence, and whether it tells the size and the background."""
    tells_size, tells_background = dice.random() < 0.5, dice.random() < 0.5
    noun = dice.choice(SHAPE_WORDS[scene.shape])
    size = dice.choice(SIZE_WORDS[scene.size]) + " " if tells_size else ""
    doing, does = motion_words(dice, scene.motion)
    if dice.random() < 0.1:
        size = dice.choice(ADJECTIVES) + " " + size
    if scene.motion != "still" and dice.random() < 0.1:
        adverb = dice.choice(ADVERBS)
        doing, does = f"{doing} {adverb}", f"{does} {adverb}"
    if dice.random() < 0.85:
        adjectives = f"{size}{scene.colour} "
        after = ""
    else:
        adjectives, after = size, f" in {scene.colour}"
    article = (
        dice.choice(("the", "one"))
        if dice.random() < 0.15
        else ("an" if (adjectives + noun)[0] in "aeiou" else "a")
    )
    subject = f"{article} {adjectives}{noun}{after}"
    where = dice.choice(ON).format(background_words(dice, scene.background)) if tells_background else ""
    form = dice.random()
    if scene.motion == "still" and form < 0.25:
        sentence = subject
    elif form < 0.55:
        sentence = dice.choice(OPENINGS) + f"{subject} {doing}"
    elif form < 0.75:
        sentence = f"{subject} {does}"
    elif form < 0.88:
        sentence = f"{subject} is {doing}"
    else:
        sentence = f"{subject} that {does}"
    if where and dice.random() < 0.15:
        sentence = f"{where}, {sentence}"
    elif where:
        sentence = f"{sentence} {where}"
    if dice.random() < 0.3:
        sentence = sentence[0].upper() + sentence[1:] + dice.choice((".", ""))
    return sentence, tells_size, tells_background
