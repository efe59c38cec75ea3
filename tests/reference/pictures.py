"""What Pillow makes of pictures: resized as the pipelines do, and opened as `load_image` does."""

from pathlib import Path

import numpy
from diffusers.utils import load_image
from PIL import Image, ImageOps

LANCZOS = Image.Resampling.LANCZOS
STRETCH, CROP, PAD = "stretch", "crop", "pad"
# How, from which size, to which size: up, down, both; odd sizes; one side kept.
RESIZES = (
    (STRETCH, (41, 29), (20, 17)),
    (STRETCH, (41, 29), (64, 45)),
    (STRETCH, (41, 29), (41, 17)),
    (STRETCH, (41, 29), (23, 29)),
    (STRETCH, (41, 29), (16, 60)),
    (STRETCH, (401, 307), (24, 17)),
    (STRETCH, (1000, 16), (16, 16)),
    (STRETCH, (16, 16), (37, 31)),
    (STRETCH, (41, 73), (24, 16)),
    (CROP, (41, 29), (32, 32)),
    (CROP, (41, 29), (48, 17)),
    (CROP, (60, 45), (40, 30)),
    (CROP, (333, 211), (24, 16)),
    (PAD, (41, 29), (32, 32)),
    (PAD, (41, 29), (50, 20)),
    (PAD, (31, 333), (24, 37)),
)


def pixels(width: int, height: int) -> Image.Image:
    """Noise and hard edges in whole numbers, so that a test can make the same."""
    y, x, channel = numpy.indices((height, width, 3), dtype=numpy.uint32)
    hashed = (x * 7919 + y * 104729 + channel * 1299709 + 1) * 2654435761  # modulo 2^32
    noise = (hashed >> 24).astype(numpy.uint8)
    edges = numpy.where((x // 5 + y // 3) % 2 == 0, 0, 255).astype(numpy.uint8)
    return Image.fromarray(numpy.where(x * 2 < width, noise, edges))


def save_png(image: Image.Image, path: Path) -> None:
    # Without compression: its bytes would depend on the machine.
    image.save(path, compress_level=0)


def write_resizes(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for how, source, size in RESIZES:
        image = pixels(*source)
        if how == STRETCH:
            result = image.resize(size, LANCZOS)
        elif how == CROP:
            result = ImageOps.fit(image, size, LANCZOS)
        else:
            result = ImageOps.pad(image, size, LANCZOS)
        save_png(result, folder / f"{how}_{source[0]}x{source[1]}_{size[0]}x{size[1]}.png")


def smooth(width: int, height: int) -> Image.Image:
    """A picture that survives JPEG."""
    y, x = numpy.mgrid[:height, :width]
    planes = [128 + 100 * numpy.sin((x + 3 * c) / 7 + c) * numpy.cos(y / (5 + c)) for c in range(3)]
    return Image.fromarray(numpy.stack(planes, -1).round().clip(0, 255).astype(numpy.uint8))


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def write_samples(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sharp, soft = pixels(20, 16), smooth(20, 16)
    alpha = Image.fromarray((numpy.indices((16, 20)).sum(0) * 7).astype(numpy.uint8))
    grey = sharp.convert("L")
    grey16 = Image.fromarray(numpy.array(grey).astype(numpy.uint16) * 256 + 77)

    def save(name: str, image: Image.Image, **options) -> None:
        path = folder / name
        image.save(path, **({"compress_level": 0} if name.endswith(".png") else {}), **options)
        opened = load_image(str(path))
        if image is grey16:
            # Pillow cuts 16-bit greys off at 255. Ours keep their upper 8 bits.
            opened = Image.fromarray((numpy.array(Image.open(path)) >> 8).astype(numpy.uint8)).convert("RGB")
        save_png(opened, folder / f"{name}.rgb.png")

    def with_alpha(image: Image.Image) -> Image.Image:
        copy = image.copy()
        copy.putalpha(alpha)
        return copy

    save("rgb.png", sharp)
    save("rgba.png", with_alpha(sharp))
    save("grey.png", grey)
    save("grey_alpha.png", with_alpha(grey))
    save("grey16.png", grey16)
    save("one_bit.png", grey.convert("1"))
    save("palette.png", sharp.quantize(13))
    save("palette_with_hole.png", sharp.quantize(13), transparency=3)
    save("turned.png", sharp, exif=exif(6))
    save("photo.jpg", soft, quality=90)
    save("photo444.jpg", soft, quality=90, subsampling=0)
    save("grey.jpg", soft.convert("L"), quality=90)
    save("cmyk.jpg", soft.convert("CMYK"), quality=90)
    for orientation in (2, 3, 5, 6, 8):
        save(f"turned{orientation}.jpg", soft, quality=90, exif=exif(orientation))
    save("lossless.webp", sharp, lossless=True)
    save("lossless_alpha.webp", with_alpha(sharp), lossless=True, exact=True)
    save("lossy.webp", soft, quality=90)


def write_moving(folder: Path) -> None:
    """Animations of three frames, shown for 0.1, 0.25 and 0.5 s, and their frames."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = [pixels(18, 16)]
    for move in (3, 7):
        frames.append(frames[-1].copy())
        frames[-1].paste(smooth(6, 5), (move, move))
    options = {"save_all": True, "append_images": frames[1:], "duration": [100, 250, 500]}
    frames[0].save(folder / "moving.webp", lossless=True, **options)
    frames[0].save(folder / "moving.png", compress_level=0, **options)
    for number, frame in enumerate(frames):
        save_png(frame, folder / f"frame{number}.png")


def write(root: Path) -> None:
    write_resizes(root / "pictures" / "resized")
    write_samples(root / "pictures" / "samples")
    write_moving(root / "pictures" / "moving")
