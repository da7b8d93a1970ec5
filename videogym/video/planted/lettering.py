"""Texts and pictures as pixels, with Pillow alone: no font of the system is used.

Without a font file letters are those of the font that Pillow brings, which has no accented letters. A
letter that a font lacks is refused, never drawn as a box.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogym.video.planted.drawing import Patch, contrast_to
from videogym.video.synthetic.address import InvalidAddress
from videogym.video.synthetic.script import Rgb
from videogym.video.types import UnreadableVideo

_ABSENT = "\uffff"  # no character: fonts show what they show for letters that they lack
_TRIED = 64  # size at which letters are tried
_PLATE = 0.86  # of the box's sides that letters may fill


def require_letters(text: str, font_path: str) -> None:
    """Check that a font has all letters of a text.

    Args:
        text: one line.
        font_path: a font file; "" for Pillow's own.

    Raises:
        InvalidAddress: it lacks one, or it is no font; the message names both.
    """
    font = _font(font_path, _TRIED)
    absent = _drawn(font, _ABSENT)
    for letter in text:
        if not letter.isspace() and _drawn(font, letter) == absent:
            name = font_path or "the font that Pillow brings"
            raise InvalidAddress(
                f"insertion: {name} has no letter {letter!r} of {text!r}; give a font that has"
            )


@lru_cache(maxsize=64)
def text_patch(text: str, font_path: str, rgb: Rgb, width: int, height: int) -> Patch:
    """A text on a plate that fills ``width`` by ``height`` pixels.

    Raises:
        InvalidAddress: the font lacks a letter, or the text does not fit at 4 pixels.
    """
    require_letters(text, font_path)
    font = _fitting(text, font_path, width * _PLATE, height * _PLATE)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).text(
        ((width - right - left) / 2, (height - bottom - top) / 2), text, fill=255, font=font
    )
    letters = np.asarray(image, np.float32)[..., None] / 255
    plate = np.array(contrast_to(rgb), np.float32)
    patch = np.full((height, width, 4), 255, np.uint8)
    patch[..., :3] = np.round(plate + letters * (np.array(rgb, np.float32) - plate))
    patch.setflags(write=False)
    return patch


@lru_cache(maxsize=64)
def overflow(texts: tuple[str, ...], font_path: str, width: int, height: int) -> str:
    """Which of some texts `text_patch` could not draw into so many pixels, in words; "" if none."""
    for text in texts:
        try:
            _fitting(text, font_path, width * _PLATE, height * _PLATE)
        except InvalidAddress as error:
            return str(error)
    return ""


def read_picture(path: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a picture file at a size.

    Raises:
        UnreadableVideo: it is no picture.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    # SyntaxError is what Pillow says of a PNG with a chunk that is none.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(f"{path}: not a picture that can be read ({error})") from error


def _fitting(text: str, font_path: str, width: float, height: float) -> Any:
    """The largest font in which a text fits."""
    left, top, right, bottom = _font(font_path, _TRIED).getbbox(text)
    size = int(_TRIED * min(width / max(right - left, 1), height / max(bottom - top, 1)))
    for smaller in range(size, 3, -1):
        font = _font(font_path, smaller)
        left, top, right, bottom = font.getbbox(text)
        if right - left <= width and bottom - top <= height:
            return font
    raise InvalidAddress(f"insertion: {text!r} does not fit into {width:.0f}x{height:.0f} pixels")


@lru_cache(maxsize=32)
def _font(path: str, size: int) -> Any:
    if not path:
        return ImageFont.load_default(size)
    try:
        # Basic: the same on machines with and without a library for joined scripts.
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise InvalidAddress(f"insertion: {path} is no font ({error})") from error


def _drawn(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
