"""Says what a video of the demo model's world shows, from its pixels alone.

`look` is not told the prompt. It finds the one thing that stands out from the background, and names its
colour, its shape, its motion and its size, each in the words of `world`, or None where the video shows
nothing that has a name. What counts:

- **Something is there** in a frame if, of the pixels that stand out (`STANDS_OUT`), the largest patch is neither
  a speck nor most of the picture, and beside it are no more than specks. Of all frames a tenth at most, and
  neither the first nor the last, may lack it. Otherwise nothing at all is seen: no colour, shape, motion or
  size. A second thing, a thing that vanishes and noise all end here.
- **Colour**: in a frame, most of the patch's inside is nearest to one colour of the palette, and close to it
  (`NEAR`). It may be mixed with a little of the background, as blurred edges are. In the video, nearly all
  frames have the same one.
- **Shape**: the patches overlap with this shape, drawn upright at their centre with their area, better than
  with the others (`LEAD`) and well (`OVERLAP`); and it is the best in the first half of the video as in the second.
- **Motion**: how centre and radius go in time. A *direction*: the centre goes far enough and evenly, on a line
  nearest to one of the eight, never back, and the size stays. *Growing, shrinking*: the radius changes evenly to at least
  1.5 times or two thirds, and the centre stays. *Still*: centre and size stay. *Bouncing*: up, down, up and
  down again, at least, and not aside. What jumps, turns back, wanders or does two of these at once has no name.
- **Size**: the radius of the named shape is nearest to this size's and not far outside of all. Of what grows
  or shrinks, the radius midway counts, as a share of the full one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

import world

BORDER = 4  # columns at either side that show the background, mostly
STANDS_OUT = 45.0  # distance in RGB from the background; the palette is at least 104 from all backgrounds
SPECK = 12  # pixels
MOST = 0.45  # of the picture
BESIDE = 0.05  # of the patch, or a speck: what may stand out elsewhere
LACKING = 0.1  # of the frames
MIXED = 0.75  # at least so much of a colour, the rest background
NEAR = 55.0  # distance in RGB from a colour, mixed or not
INSIDE_SHARE, FRAMES_SHARE = 0.6, 0.8  # of the pixels of a frame, and of the frames, that are of the colour
# Intersection over union. An upright diamond and a ball have 0.83, a pentagon and a star 0.75; all that is
# thin loses more to a blur.
OVERLAP = {"ball": 0.84, "square": 0.84, "triangle": 0.8, "star": 0.8}
LEAD = 0.03  # before the next shape; a ball and a square have 0.84 with each other
BLURS = (0.0, 0.8, 1.4)  # pixels: what the shapes are compared with
# Area of each shape of radius 1.
AREAS = {
    "ball": math.pi,
    "square": 4 * 0.88**2,
    "triangle": 3 * math.sqrt(3) * (world.REACH["triangle"] / 2) ** 2,
    "star": 5 * 0.45 * world.REACH["star"] ** 2 * math.sin(math.pi / 5),
}
FAR = 10.0  # pixels that a thing must go to be moving
STAYS = 4.0  # pixels that a thing may wander and be where it was
UNEVEN = 0.12  # of the way: root mean square of what an even motion leaves over
GROWN, GROWN_A_LITTLE = 1.5, 1.35  # of the radius: at least, to be growing; at most, to have its size
LEG = 0.4  # of a bounce's height: what counts as going up or down
RADII = (5.0, 16.0)  # outside of these, no size has a name


@dataclass(frozen=True)
class Seen:
    """What a video shows; None where that has no name."""

    colour: str | None = None
    shape: str | None = None
    motion: str | None = None
    size: str | None = None


@dataclass
class Patch:
    """The thing in each frame: a frame's entries are meaningless where `there` is false."""

    there: np.ndarray  # [frames]
    inside: np.ndarray  # [frames, height, width], well within the edge
    cover: np.ndarray  # [frames, height, width], how much of a pixel the thing covers, 0 to 1
    area: np.ndarray  # [frames], pixels
    centre: np.ndarray  # [frames, 2], x and y in pixels


def look(frames: np.ndarray) -> Seen:
    """What is seen in `uint8 [frames, height, width, 3]`."""
    frames = frames.astype(np.float64)
    behind = background(frames)
    patch = find(frames, behind)
    lacking = (~patch.there).mean()
    if lacking > LACKING or not (patch.there[0] and patch.there[-1]):
        return Seen()
    shape = shape_of(patch)
    motion = motion_of(patch)
    return Seen(colour_of(frames, behind, patch), shape, motion, size_of(patch, shape, motion))


# --- what is there -----------------------------------------------------------------------------


def background(frames: np.ndarray) -> np.ndarray:
    """`[height, 1, 3]`: each channel a straight line from top to bottom.

    The line has the least sum of distances to the border's pixels as they are in most frames, so that a
    thing that passes or touches the border does not bend it.
    """
    height = frames.shape[1]
    sides = np.concatenate([frames[:, :, :BORDER], frames[:, :, -BORDER:]], axis=2)
    seen = np.median(sides, axis=0)
    rows = (np.arange(height) + 0.5) / height
    line = np.stack([np.ones(height), rows], axis=1)
    points, values = np.repeat(line, seen.shape[1], axis=0), seen.reshape(-1, 3)
    weights = np.ones(len(points))
    for _ in range(30):
        scaled = points * weights[:, None]
        fit = np.linalg.solve(scaled.T @ points, scaled.T @ values)
        weights = 1 / np.maximum(np.linalg.norm(values - points @ fit, axis=1), 0.5)
    return (line @ fit)[:, None]


def find(frames: np.ndarray, behind: np.ndarray) -> Patch:
    """The thing that stands out."""
    difference = frames - behind
    out = np.linalg.norm(difference, axis=-1) > STANDS_OUT
    largest = largest_part(out)
    pixels = largest.sum(axis=(1, 2))
    beside = (out & ~grown(largest, 1)).sum(axis=(1, 2))
    there = (pixels >= SPECK) & (pixels <= MOST * out[0].size) & (beside <= np.maximum(BESIDE * pixels, SPECK))

    inside, cover = np.zeros_like(out), np.zeros(out.shape)
    for t in np.flatnonzero(there):
        inside[t] = within(largest[t], difference[t])
        own = np.median(frames[t][inside[t]], axis=0) - behind  # how the thing differs, in every row
        share = (difference[t] * own).sum(-1) / np.maximum((own**2).sum(-1), 1.0)
        share = np.where(share < 0.1, 0.0, np.minimum(share, 1.0))
        near = grown(largest_part((share > 0.5)[None] & grown(largest[t : t + 1], 1)), 2)[0]
        cover[t] = share * near
    area = cover.sum(axis=(1, 2))
    there &= area >= SPECK
    y, x = (np.arange(n) + 0.5 for n in out.shape[1:])
    total = np.maximum(area, 1.0)
    centre = np.stack([(cover * x).sum(axis=(1, 2)), (cover * y[:, None]).sum(axis=(1, 2))], axis=1)
    return Patch(there, inside, cover, area, centre / total[:, None])


def within(mask: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The pixels of a mask that its edge does not touch; of a small mask, those that stand out most."""
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    if inner.sum() >= SPECK:
        return inner
    strength = np.where(mask, np.linalg.norm(difference, axis=-1), 0.0)
    return mask & (strength >= np.quantile(strength[mask], 0.6))


def grown(masks: np.ndarray, pixels: int) -> np.ndarray:
    """Masks and the pixels around them, corners too. `[frames, height, width]`."""
    for _ in range(pixels):
        padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
        tall = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
        masks = tall[:, :, :-2] | tall[:, :, 1:-1] | tall[:, :, 2:]
    return masks


def largest_part(masks: np.ndarray) -> np.ndarray:
    """Of each mask the largest connected patch."""
    frames, height, width = masks.shape
    numbers = np.where(masks, np.arange(1, height * width + 1).reshape(height, width), 0)
    while True:  # the highest number spreads through its patch
        padded = np.pad(numbers, ((0, 0), (1, 1), (1, 1)))
        around = [padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]]
        spread = np.where(masks, np.maximum.reduce([numbers, *around]), 0)
        if np.array_equal(spread, numbers):
            break
        # A patch's number is also the place of a pixel of it: go where that one has gone already.
        flat = np.pad(spread.reshape(frames, -1), ((0, 0), (1, 0)))
        numbers = np.take_along_axis(flat, spread.reshape(frames, -1), axis=1).reshape(masks.shape)
    largest = np.zeros_like(masks)
    for t in range(frames):
        counts = np.bincount(numbers[t].ravel())
        counts[0] = 0
        largest[t] = masks[t] & (numbers[t] == counts.argmax())
    return largest


# --- colour ------------------------------------------------------------------------------------


def colour_of(frames: np.ndarray, behind: np.ndarray, patch: Patch) -> str | None:
    """The colour that nearly all frames have."""
    own = [colour_in(frames[t], behind, patch.inside[t]) for t in np.flatnonzero(patch.there)]
    best = max(world.COLOURS, key=own.count)
    return best if own.count(best) >= FRAMES_SHARE * len(own) else None


def colour_in(frame: np.ndarray, behind: np.ndarray, inside: np.ndarray) -> str | None:
    """The colour that most pixels of the inside have."""
    pixels = frame[inside]
    dark = np.broadcast_to(behind, frame.shape)[inside]
    palette = np.array(list(world.COLOURS.values()), np.float64)
    way = palette[:, None] - dark  # from the background to the colour, [colours, pixels, 3]
    share = ((pixels - dark) * way).sum(-1) / (way**2).sum(-1)
    mixed = dark + np.clip(share, MIXED, 1.0)[..., None] * way
    distance = np.linalg.norm(pixels - mixed, axis=-1)
    nearest = np.where(distance.min(axis=0) <= NEAR, distance.argmin(axis=0), len(palette))
    counts = np.bincount(nearest, minlength=len(palette) + 1)[:-1]
    return list(world.COLOURS)[counts.argmax()] if counts.max() >= INSIDE_SHARE * len(pixels) else None


# --- shape and size ----------------------------------------------------------------------------


def shape_of(patch: Patch) -> str | None:
    """The shape that the patches overlap with best."""
    there = np.flatnonzero(patch.there)
    common, either = overlaps(patch, there)  # [shapes, blurs, frames]
    best = [
        (common[..., part].sum(-1) / either[..., part].sum(-1)).max(axis=1)
        for part in (slice(None), slice(len(there) // 2), slice(len(there) // 2, None))
    ]
    winners = {world.SHAPES[scores.argmax()] for scores in best}
    shape, (next_best, own) = winners.pop(), np.sort(best[0])[-2:]
    return None if winners or own < OVERLAP[shape] or own - next_best < LEAD else shape


def overlaps(patch: Patch, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union, in pixels, of the patches with every shape at every blur."""
    cover = patch.cover[there]
    y, x = (torch.arange(n)[:, None] + 0.5 for n in cover.shape[1:])
    across = x.T - torch.tensor(patch.centre[there, 0])[:, None, None]
    along = y - torch.tensor(patch.centre[there, 1])[:, None, None]
    common, either = [], []
    for shape in world.SHAPES:
        radius = torch.tensor(np.sqrt(patch.area[there] / AREAS[shape]))[:, None, None]
        drawn = (0.5 - world.distance(shape, across, along, radius)).clamp(0, 1).numpy()
        drawn = [blurred(drawn, width) for width in BLURS]
        common.append([np.minimum(cover, one).sum(axis=(1, 2)) for one in drawn])
        either.append([np.maximum(cover, one).sum(axis=(1, 2)) for one in drawn])
    return np.array(common), np.array(either)


def blurred(pictures: np.ndarray, width: float) -> np.ndarray:
    """Axes 1 and 2 under a Gaussian of this standard deviation in pixels; edges go on outside."""
    if width == 0:
        return pictures
    reach = math.ceil(3 * width)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    bell /= bell.sum()
    for axis in (1, 2):
        around = [(0, 0)] * pictures.ndim
        around[axis] = (reach, reach)
        padded, length = np.pad(pictures, around, mode="edge"), pictures.shape[axis]
        pictures = sum(weight * np.take(padded, range(i, i + length), axis=axis) for i, weight in enumerate(bell))
    return pictures


def size_of(patch: Patch, shape: str | None, motion: str | None) -> str | None:
    """The size by name, of a shape that has one."""
    if shape is None:
        return None
    radius = float(np.median(np.sqrt(patch.area[patch.there] / AREAS[shape])))
    if motion in ("growing", "shrinking"):
        radius /= sum(world.GROWTH) / 2
    if not RADII[0] <= radius <= RADII[1]:
        return None
    return min(world.SIZES, key=lambda size: abs(world.SIZES[size] - radius))


# --- motion ------------------------------------------------------------------------------------


def motion_of(patch: Patch) -> str | None:
    """The motion by name."""
    times = np.flatnonzero(patch.there) / (len(patch.there) - 1)
    centre = patch.centre[patch.there]
    radius = np.sqrt(patch.area[patch.there])
    way, uneven = even(times, centre)
    wandered = np.ptp(centre, axis=0)
    change, changed_unevenly = even(times, radius[:, None])
    middle = radius.mean()
    ratio = (middle + change[0] / 2) / max(middle - change[0] / 2, 1e-6)
    stays, keeps_size = wandered.max() <= STAYS, 1 / GROWN_A_LITTLE <= ratio <= GROWN_A_LITTLE
    changes = radius.max() / radius.min()
    if stays and keeps_size and changes <= GROWN_A_LITTLE:
        return "still"
    if stays and max(ratio, 1 / ratio) >= GROWN:
        evenly = changed_unevenly <= UNEVEN * abs(change[0])
        return ("growing" if ratio > 1 else "shrinking") if evenly else None
    if not keeps_size or changes > GROWN:
        return None
    if wandered[0] <= STAYS and wandered[1] >= FAR and legs(centre[:, 1]) >= 4:
        return "bouncing"
    length = np.hypot(*way)
    if length < FAR or uneven > UNEVEN * length:
        return None
    along = centre @ (way / length)
    if (np.maximum.accumulate(along) - along).max() > STAYS:
        return None
    return min(world.DIRECTIONS, key=lambda name: -cosine(way, world.DIRECTIONS[name]))


def even(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float]:
    """How far values `[frames, n]` go if they go evenly, and the root mean square of what that leaves."""
    line = np.stack([np.ones_like(times), times], axis=1)
    fit = np.linalg.lstsq(line, values, rcond=None)[0]
    left = values - line @ fit
    return fit[1], float(np.sqrt((left**2).sum(axis=1).mean()))


def cosine(a, b) -> float:
    return float(np.dot(a, b) / (np.hypot(*a) * np.hypot(*b)))


def legs(heights: np.ndarray) -> int:
    """How many times the way goes up and down in turn, the first time up (to smaller numbers)."""
    least = LEG * np.ptp(heights)
    count, sign, turn = 0, -1, heights[0]  # `turn`: the farthest point of the leg before
    for height in heights:
        if sign * (height - turn) >= least:
            count, sign, turn = count + 1, -sign, height
        elif sign * (height - turn) < 0:
            turn = height
    return count
