"""Plain grounds: flat colours and soft gradients from which the cut-outs put on them stand out.

Colours are compared in OKLab (Ottosson 2020, https://bottosson.github.io/posts/oklab), where equal distances look about
equally large: 1 lies between black and white.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from PIL import Image

from semhitok.scenes.placing import VISIBLE
from semhitok.types import SceneGround

GROUNDS: tuple[SceneGround, ...] = get_args(SceneGround)

PLAIN_SHARE = 0.5  # of the scenes on mixed grounds
CANDIDATES = 24  # colours drawn until one is good enough; else the best of them
APART = 0.15  # distance from which a pixel of a cut-out differs clearly from the ground, twenty just noticeable steps
CLEAR_SHARE = 0.9  # of the pixels of each cut-out that must do so
LIGHTNESS = (0.35, 0.97)
LARGEST_CHROMA = 0.16
THUMBNAIL = 16  # side in pixels to which a cut-out is reduced to see its colours
KINDS = ("flat", "linear", "radial")
KIND_SHARES = (0.5, 0.3, 0.2)
GRADIENT = (0.06, 0.16)  # difference of lightness between the ends of a gradient

# Linear sRGB to the responses of the cones, and their cube roots to lightness, green-red and blue-yellow.
_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def is_plain(ground: SceneGround, seed: int, index: int) -> bool:
    """Whether scene ``index`` lies on a plain ground; on mixed grounds a coin is tossed for each scene."""
    if ground == "mixed":
        return np.random.default_rng((seed, index, GROUNDS.index("mixed"))).random() < PLAIN_SHARE
    return ground == "plain"


def plain_ground(
    random: np.random.Generator, cutouts: Sequence[Image.Image], height: int, width: int
) -> tuple[Image.Image, str]:
    """A ground for RGBA cut-outs, and its name: kind and colours, such as ``linear #f3d9c0 #d8b79a``."""
    colours = [_colours(cutout) for cutout in cutouts]
    kind = KINDS[int(np.searchsorted(np.cumsum(KIND_SHARES), random.random(), side="right"))]
    best, ends = -1.0, np.zeros((2, 3))
    for _ in range(CANDIDATES):
        drawn = _ends(random, gradient=kind != "flat")
        clear = min(clear_share(seen, end) for seen in colours for end in drawn)
        if clear > best:
            best, ends = clear, drawn
        if best >= CLEAR_SHARE:
            break
    ends = np.rint(from_oklab(ends))[: 1 if kind == "flat" else 2]
    position = _position(random, kind, height, width)
    pixels = ends[0] + (ends[-1] - ends[0]) * position[..., None]
    name = " ".join([kind, *("#" + bytes(end.astype(np.uint8)).hex() for end in ends)])
    return Image.fromarray(np.rint(pixels).astype(np.uint8)), name


def clear_share(colours: np.ndarray, ground: np.ndarray) -> float:
    """Share of the colours (n,3) that are clearly apart from a ground (3), all in OKLab."""
    return float((np.linalg.norm(colours - ground, axis=-1) >= APART).mean())


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (...,3) in [0,255] to OKLab (...,3)."""
    values = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _CONES.T) @ _LAB.T


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """OKLab (...,3) to sRGB (...,3) in [0,255]; what no screen can show is clipped."""
    linear = (lab @ np.linalg.inv(_LAB).T) ** 3 @ np.linalg.inv(_CONES).T
    linear = linear.clip(0, 1)
    values = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return values.clip(0, 1) * 255


def _colours(cutout: Image.Image) -> np.ndarray:
    """What is seen of an RGBA cut-out: (n,3) in OKLab, at least one."""
    pixels = np.asarray(cutout.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)).reshape(-1, 4)
    alpha = pixels[:, 3]
    return oklab(pixels[alpha >= min(VISIBLE, alpha.max()), :3])


def _ends(random: np.random.Generator, *, gradient: bool) -> np.ndarray:
    """The colours of both ends (2,3) in OKLab; equal for a flat ground."""
    lightness = random.uniform(*LIGHTNESS)
    # Colours that a screen can show are paler near white and black.
    chroma = LARGEST_CHROMA * random.random() * min(1.0, 4 * (1 - lightness), 2 * lightness)
    hue = random.uniform(0, 2 * np.pi)
    step = random.uniform(*GRADIENT) if gradient else 0.0
    other = lightness - step if lightness > np.mean(LIGHTNESS) else lightness + step
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    # What is clipped is compared as it will be shown.
    return oklab(np.rint(from_oklab(np.array([[lightness, a, b], [other, a, b]]))))


def _position(random: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """Where each pixel (H,W) lies between the two ends, in [0,1]."""
    rows, columns = np.mgrid[0:height, 0:width]
    if kind == "radial":
        distance = np.hypot(rows - random.random() * height, columns - random.random() * width)
    else:
        angle = random.uniform(0, 2 * np.pi)
        distance = rows * np.sin(angle) + columns * np.cos(angle)
    return (distance - distance.min()) / max(np.ptp(distance), 1)
