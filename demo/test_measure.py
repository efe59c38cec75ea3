"""The measure sees what true videos show, also where they are damaged, and is not fooled.

python demo/test_measure.py             # a sample of the scenes, in seconds
python demo/test_measure.py --scenes N  # how often it is right of N true videos: prints a table
"""

import argparse
import math
import random
import sys
import unittest
import unittest.mock
from dataclasses import replace

import numpy as np
import torch

import world
from measure import Seen, blurred, look

torch.set_num_threads(1)  # pictures this small gain nothing from more
ATTRIBUTES = ("colour", "shape", "motion", "size")
LAST = world.FRAMES - 1


def pixels(scene: world.Scene) -> np.ndarray:
    """The true video, `uint8 [frames, height, width, 3]`."""
    return levels((world.render(scene)[0].permute(1, 2, 3, 0).numpy() + 1) * 127.5)


def levels(frames: np.ndarray) -> np.ndarray:
    return frames.round().clip(0, 255).astype(np.uint8)


def scenes(count: int, seed: int) -> list[world.Scene]:
    """Scenes of all combinations, none twice before all were there."""
    dice = random.Random(seed)
    combinations = world.combinations(held_out=True) + world.combinations(held_out=False)
    dice.shuffle(combinations)
    return [world.draw_scene(dice, combinations[i % len(combinations)]) for i in range(count)]


def scene(colour="red", shape="ball", size="medium", background=("gray", "gray"), path=()) -> world.Scene:
    """A scene with a path of its own."""
    return world.Scene(colour, shape, size, "", background, tuple(path))


def line(start, end, radius=10.0) -> list[tuple[float, float, float]]:
    """Evenly from one point to another."""
    shares = [t / LAST for t in range(world.FRAMES)]
    return [(*(a + (b - a) * share for a, b in zip(start, end)), radius) for share in shares]


# --- damage ------------------------------------------------------------------------------------


def blur(frames: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return levels(blurred(frames.astype(np.float64), 1.0))


def noise(frames: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    return levels(frames + dice.normal(0, 6, frames.shape))


def veil(frames: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """A tenth of the contrast is lost, and each frame is a little lighter or darker than the others."""
    return levels(frames * 0.9 + 12 + dice.uniform(-6, 6, (len(frames), 1, 1, 1)))


def code(frames: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """About as H.264 does at a CRF of 22: colours at half the size, cosines of 8x8 pixels in coarse steps."""
    wave = np.arange(8)
    cosines = np.sqrt(2 / 8) * np.cos(np.pi * (2 * wave + 1) * wave[:, None] / 16)
    cosines[0] /= math.sqrt(2)
    to_luma = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])

    def coarse(plane: np.ndarray, step: float) -> np.ndarray:
        count, height, width = plane.shape
        blocks = plane.reshape(count, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4)
        kept = np.round(cosines @ blocks @ cosines.T / step) * step
        return (cosines.T @ kept @ cosines).transpose(0, 1, 3, 2, 4).reshape(plane.shape)

    planes = frames @ to_luma.T
    count, height, width = planes.shape[:3]
    halves = planes[..., 1:].reshape(count, height // 2, 2, width // 2, 2, 2).mean(axis=(2, 4))
    chroma = [coarse(halves[..., i], 8).repeat(2, axis=1).repeat(2, axis=2) for i in range(2)]
    return levels(np.stack([coarse(planes[..., 0], 8), *chroma], axis=-1) @ np.linalg.inv(to_luma).T)


DAMAGES = {"clean": lambda frames, dice: frames, "blur": blur, "noise": noise, "veil": veil, "code": code}


def right(count: int, seed: int) -> dict[str, dict[str, int]]:
    """How many of so many true videos are seen right, by damage and attribute."""
    counts = {damage: dict.fromkeys(ATTRIBUTES, 0) for damage in DAMAGES}
    for number, true in enumerate(scenes(count, seed)):
        frames = pixels(true)
        for damage, change in DAMAGES.items():
            seen = look(change(frames, np.random.default_rng(number)))
            for attribute in ATTRIBUTES:
                counts[damage][attribute] += getattr(seen, attribute) == getattr(true, attribute)
    return counts


# --- tests -------------------------------------------------------------------------------------


class TrueVideos(unittest.TestCase):
    def test_nearly_all_are_seen_right(self):
        count = 60
        for damage, counts in right(count, seed=1).items():
            for attribute, number in counts.items():
                least = count if damage == "clean" else count - 1
                self.assertGreaterEqual(number, least, (damage, attribute))

    def test_every_colour_is_told_from_the_others_on_every_background(self):
        for colour in world.COLOURS:
            for top in world.BACKGROUNDS:
                for bottom in world.BACKGROUNDS:
                    path = [(32.0, 32.0, 7.0)] * 3
                    frames = blur(pixels(scene(colour, "star", "small", (top, bottom), path)), None)
                    self.assertEqual(look(frames), Seen(colour, "star", "still", "small"), (colour, top, bottom))

    def test_a_thing_at_the_border_does_not_become_background(self):
        seen = look(pixels(scene(path=line((6, 32), (58, 32), 13.0), size="large")))
        self.assertEqual((seen.colour, seen.motion), ("red", "right"))
        seen = look(pixels(scene("white", "square", "large", ("black", "brown"), [(8.0, 32.0, 13.0)] * 17)))
        self.assertEqual((seen.colour, seen.motion), ("white", "still"))

    def test_other_numbers_of_frames_and_sizes_are_seen(self):
        frames = pixels(scene("green", "triangle", path=line((20, 20), (44, 44))))
        self.assertEqual(look(frames[::2]), Seen("green", "triangle", "down-right", "medium"))
        self.assertEqual(look(frames[:, 4:60]), Seen("green", "triangle", "down-right", "medium"))


class WrongVideos(unittest.TestCase):
    """None of these may be seen as what it is not."""

    def assert_nothing(self, frames: np.ndarray, what: str):
        self.assertEqual(look(frames), Seen(), what)

    def motion(self, path, **rest) -> str | None:
        seen = look(pixels(scene(path=path, **rest)))
        self.assertEqual(seen.colour, "red")
        return seen.motion

    def test_where_nothing_is_nothing_is_seen(self):
        shape = (world.FRAMES, 64, 64, 3)
        dice = np.random.default_rng(3)
        empty = levels(np.broadcast_to(np.linspace((12, 12, 16), (85, 88, 92), 64)[None, :, None], shape))
        self.assert_nothing(empty, "a background alone")
        self.assert_nothing(np.zeros(shape, np.uint8), "black")
        self.assert_nothing(levels(dice.uniform(0, 255, shape)), "noise")
        self.assert_nothing(np.repeat(levels(dice.uniform(0, 255, shape))[:1], 17, axis=0), "a still of noise")
        self.assert_nothing(levels(dice.normal(60, 30, shape)), "faint noise")
        coarse = dice.uniform(0, 255, (world.FRAMES, 8, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
        self.assert_nothing(levels(blurred(coarse, 3.0)), "coloured fog")
        thing = pixels(scene(path=line((20, 32), (44, 32))))
        self.assert_nothing(levels(thing * 0.2 + 0.8 * thing[:, :1, :1]), "what hardly stands out")

    def test_a_thing_must_be_there_throughout(self):
        frames = pixels(scene(path=line((16, 32), (48, 32))))
        behind = frames[:, :1, :1]
        for name, gone in (("the end", slice(9, None)), ("the start", slice(0, 3)), ("midway", slice(6, 11))):
            part = frames.copy()
            part[gone] = behind[gone]
            self.assert_nothing(part, name)

    def test_two_things_are_not_one(self):
        one = pixels(scene(path=line((14, 14), (50, 14), 7.0)))
        for colour, shape, radius in (("red", "ball", 7.0), ("blue", "star", 5.0)):
            other = pixels(scene(colour, shape, path=line((14, 48), (50, 48), radius)))
            self.assert_nothing(np.where(np.arange(64)[:, None, None] < 32, one, other), colour)
        large = pixels(scene(path=line((20, 16), (44, 16), 13.0)))
        small = pixels(scene("blue", path=line((20, 52), (44, 52), 5.0)))
        self.assert_nothing(np.where(np.arange(64)[:, None, None] < 36, large, small), "a small one beside a large one")

    def test_another_colour_is_not_taken_for_the_wanted(self):
        path = line((20, 32), (44, 32))
        red, blue = (pixels(scene(colour, path=path)) for colour in ("red", "blue"))
        self.assertIsNone(look(np.concatenate([red[:9], blue[9:]])).colour, "changes midway")
        halves = np.where(np.arange(64)[:, None, None] < 32, red, blue)
        self.assertIsNone(look(halves).colour, "half and half")
        share = np.linspace(0, 1, world.FRAMES)[:, None, None, None]
        self.assertIsNone(look(levels(red + share * (blue.astype(float) - red))).colour, "fades")
        for rgb in ((130, 130, 130), (255, 20, 147), (120, 20, 20), (150, 255, 0)):
            with unittest.mock.patch.dict(world.COLOURS, red=rgb):
                other = pixels(scene(path=path, background=("black", "black")))
            seen = look(other)
            self.assertIsNone(seen.colour, rgb)
            self.assertEqual(seen.motion, "right")

    def test_another_shape_is_not_taken_for_the_wanted(self):
        y, x = torch.meshgrid(*[torch.arange(64.0) - 31.5] * 2, indexing="ij")
        ten = torch.tensor(10.0)
        others = {
            "triangle upside down": world.distance("triangle", x, -y, ten),
            "triangle on its side": world.distance("triangle", y, -x, ten),
            "star upside down": world.distance("star", x, -y, ten),
            "diamond": (x.abs() + y.abs()) / math.sqrt(2) - 9,
            "oval": torch.hypot(x / 1.3, y * 1.3) - 9,
            "bar": torch.maximum(x.abs() - 12, y.abs() - 7),
            "ring": (torch.hypot(x, y) - 8).abs() - 3,
            "cross": torch.maximum(torch.minimum(x.abs(), y.abs()) - 3, torch.maximum(x.abs(), y.abs()) - 11),
            "half a ball": torch.maximum(torch.hypot(x, y) - 12, y),
        }
        for name, distance in others.items():
            cover = (0.5 - distance).clamp(0, 1).numpy()[None, ..., None]
            frames = levels(np.array([12, 12, 16]) + cover * np.array([233, 208, 34]))
            seen = look(frames.repeat(world.FRAMES, axis=0))
            self.assertEqual(seen, Seen("yellow", None, "still", None), name)
        path = line((20, 32), (44, 32))
        ball, star = (pixels(scene(shape=shape, path=path)) for shape in ("ball", "star"))
        self.assertIsNone(look(np.concatenate([ball[:9], star[9:]])).shape, "changes midway")

    def test_a_motion_must_be_even_and_one(self):
        jump = line((16, 32), (16, 32))[:9] + line((48, 32), (48, 32))[9:]
        self.assertIsNone(self.motion(jump), "jumps")
        there_and_back = line((16, 32), (80, 32))[:9] + line((80, 32), (16, 32))[9:]
        there_and_back = [(min(x, 48.0), y, r) for x, y, r in there_and_back]
        self.assertIsNone(self.motion(there_and_back), "turns back")
        back_a_little = [(18 + 28 * min(t, 26 - t) / 13, 32.0, 9.0) for t in range(17)]
        self.assertIsNone(self.motion(back_a_little), "goes back a little")
        breathes = [(18 + 28 * t / 16, 32.0, 6 + min(t, 16 - t)) for t in range(17)]
        self.assertIsNone(self.motion(breathes), "grows and shrinks on its way")
        round_and_round = [
            (32 + 12 * math.cos(math.tau * t / 16), 32 + 12 * math.sin(math.tau * t / 16), 9.0) for t in range(17)
        ]
        self.assertIsNone(self.motion(round_and_round), "circles")
        dice = random.Random(2)
        anywhere = [(dice.uniform(12, 52), dice.uniform(12, 52), 9.0) for _ in range(17)]
        self.assertIsNone(self.motion(anywhere), "is anywhere")
        self.assertIsNone(self.motion(line((30, 32), (36, 32))), "moves a little")
        once = [(32.0, 44 - 24 * math.sin(math.pi * t / 16), 9.0) for t in range(17)]
        self.assertIsNone(self.motion(once), "hops once")
        aside = [(14 + 36 * t / 16, 44 - 20 * abs(math.sin(math.tau * t / 16)), 9.0) for t in range(17)]
        self.assertIsNone(self.motion(aside), "hops aside")
        sway = [(44 - 24 * abs(math.sin(math.tau * t / 16)), 32.0, 9.0) for t in range(17)]
        self.assertIsNone(self.motion(sway), "sways")

    def test_a_growth_must_be_enough_and_in_place(self):
        def path(least, most, way=0.0):
            return [(32 + way * (t / LAST - 0.5), 32.0, least + (most - least) * t / LAST) for t in range(17)]

        self.assertEqual(self.motion(path(6, 14)), "growing")
        self.assertEqual(self.motion(path(14, 6)), "shrinking")
        self.assertIsNone(self.motion(path(9, 12.6)), "grows a little")
        self.assertIsNone(self.motion(path(5, 12, way=24)), "grows and moves")
        self.assertIsNone(self.motion(path(6, 14)[::2] + path(14, 6)[::2][1:]), "grows and shrinks")
        self.assertIsNone(self.motion([(32.0, 32.0, 6.0)] * 9 + [(32.0, 32.0, 14.0)] * 8), "grows at once")

    def test_what_one_motion_is_no_other_is(self):
        for true in scenes(24, seed=9):
            frames = pixels(true)
            backwards = look(frames[::-1]).motion
            turned = {"growing": "shrinking", "shrinking": "growing", "still": "still", "bouncing": "bouncing"}
            if true.motion in world.DIRECTIONS:
                x, y = world.DIRECTIONS[true.motion]
                opposite = next(name for name, way in world.DIRECTIONS.items() if way == (-x, -y))
                self.assertEqual(backwards, opposite)
                mirrored = next(name for name, way in world.DIRECTIONS.items() if way == (-x, y))
                self.assertEqual(look(frames[:, :, ::-1]).motion, mirrored)
            else:
                self.assertEqual(backwards, turned[true.motion])
            frozen = np.repeat(frames[:1], world.FRAMES, axis=0)
            self.assertEqual(look(frozen).motion, "still")

    def test_sizes_have_names_only_around_them(self):
        for radius, size in ((4.0, None), (7.5, "small"), (9.4, "medium"), (12.0, "large"), (17.5, None)):
            still = replace(scene(), path=((32.0, 32.0, radius),) * 5)
            self.assertEqual(look(pixels(still)).size, size, radius)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, help="count this many true videos instead of testing")
    args, rest = parser.parse_known_args()
    if args.scenes is None:
        unittest.main(argv=[sys.argv[0], *rest])
    print(f"right of {args.scenes} true videos, in percent")
    print("{:8}".format("") + "".join(f"{attribute:>8}" for attribute in ATTRIBUTES))
    for damage, counts in right(args.scenes, seed=2).items():
        print(f"{damage:8}" + "".join(f"{100 * counts[a] / args.scenes:8.2f}" for a in ATTRIBUTES))


if __name__ == "__main__":
    main()
