"""Plays one episode and draws it as a moving picture: the skim, each look, the answer, what it pays.

``python docs/make_episode_picture.py`` writes ``docs/pictures/episode.gif``. The policy is the oracle
and the picture marks the evidence in green.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from videogym import FrameStore, State, VideoQAEnv
from videogym.actions import Answer, Crop
from videogym.rendering import render_rgb
from videogym.state import Clip
from videogym.testing.policies import Oracle

PICTURE = Path(__file__).parent / "pictures" / "episode.gif"
TASKS = "procedural:two_hops?level=1&duration_s=600&count=1&split=test"
SIZE = (960, 620)
SCREEN = (384, 216)  # of the frame that the policy sees, pixels
SKIM_MS, LOOK_MS, REST_MS, END_MS = 220, 160, 1600, 4500
PAPER, INK, FAINT, GOOD = "#ffffff", "#1d2433", "#8a93a3", "#2e9e5b"


def scene(state: State, store: FrameStore, clip: Clip, shown: int, words: list[str]) -> Image.Image:
    """The episode so far above, one frame as the policy sees it and some words below."""
    image = Image.new("RGB", SIZE, PAPER)
    image.paste(Image.fromarray(render_rgb(state, store, evidence=True)), (0, 0))
    time_s = clip.times_s[shown]
    region = clip.region.as_tuple() if clip.region else None
    pixels = store.frames(state.task.video, [time_s], size=SCREEN, region=region).pixels[0]
    image.paste(Image.fromarray(pixels), (16, 384))
    draw = ImageDraw.Draw(image)
    draw.text((16, 362), "what the policy sees", fill=FAINT, font=ImageFont.load_default(13))
    draw.text((16 + SCREEN[0] - 60, 362), f"{time_s:.1f} s", fill=FAINT, font=ImageFont.load_default(13))
    for line, text in enumerate(words):
        size, colour = (20, INK) if line == 0 else (16, GOOD if text.startswith("+") else FAINT)
        draw.text((430, 392 + 30 * line), text, fill=colour, font=ImageFont.load_default(size))
    return image


def scenes() -> Iterator[tuple[Image.Image, int]]:
    """All pictures of an episode and how long each is shown, milliseconds."""
    env = VideoQAEnv(TASKS)
    store, policy = FrameStore(), Oracle()
    observation, info = env.reset(seed=0)
    skim = env.state.skim
    words = ["reset(): a coarse skim of ten minutes", f"{len(skim.times_s)} frames, and a question"]
    for shown in range(len(skim.times_s)):
        yield scene(env.state, store, skim, shown, words), SKIM_MS
    paid = 0.0
    while not env.state.terminated:
        action = policy(observation, info, env)
        observation, reward, *_, info = env.step(action)
        paid += float(reward)
        words = [f"step({written(action)})", *terms(info), f"return so far {paid:.2f}"]
        clip = env.state.clips[-1]
        if not env.state.terminated:
            for shown in range(len(clip.times_s)):
                yield scene(env.state, store, clip, shown, words), LOOK_MS
        rest_ms = END_MS if env.state.terminated else REST_MS
        yield scene(env.state, store, clip, len(clip.times_s) // 2, words), rest_ms


def written(action: object) -> str:
    """An action as a person writes it."""
    if isinstance(action, Crop):
        return f"Crop({action.start_s:.1f}, {action.end_s:.1f})"
    return f'Answer("{action.text}")' if isinstance(action, Answer) else repr(action)


def terms(info: dict[str, object]) -> list[str]:
    """What each reward term that is present pays."""
    values = info["reward_terms"]
    assert isinstance(values, dict)
    return [f"{value:+.2f}  {name}" for name, value in values.items() if np.isfinite(value) and value]


def main() -> None:
    """Write the picture."""
    images, lengths = zip(*scenes(), strict=True)
    palette = images[-1].quantize(64, dither=Image.Dither.NONE)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    first.save(PICTURE, save_all=True, append_images=rest, duration=list(lengths), loop=0, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB, {len(images)} pictures")


if __name__ == "__main__":
    main()
