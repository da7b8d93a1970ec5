"""What both vLLM engines do alike: prepare prompts, pass sampling on, and audit what comes back.

vLLM must show the model the very pixels and placeholders that training will show it. Whatever it
returns is compared with what was asked, so that a resized frame or a log-prob of another distribution
is an error and not a bias.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.visuals import FrameReader, PatchLayout, Visual, resolve
from .base import Context, EngineError, Output, Sampling

log = logging.getLogger(__name__)
TESTED_VERSIONS = ("0.32.0",)  # of vLLM, with tests/vllm_engines
MIN_TEMPERATURE = 0.01  # vLLM silently samples with this one below it
BAN = -1e9  # added to a logit; finite, as JSON needs it
UNVERSIONED = "default"  # what vLLM calls the weights that it was started with


@dataclass(frozen=True, slots=True)
class Prompt:
    """One context, ready to be sent."""

    ids: tuple[int, ...]  # collapsed
    visuals: tuple[Visual, ...]
    frames: tuple[NDArray[np.uint8], ...]  # (H, W, 3) of every visual
    placeholders: tuple[int, ...]  # of every visual
    max_tokens: int  # of the output


def engine_options(
    *, max_model_len: int, max_images: int, max_frame_pixels: int, dtype: str, seed: int
) -> dict[str, Any]:
    """Arguments of a vLLM engine, in Python's spelling, without which its outputs would be wrong."""
    return {
        "max_model_len": max_model_len,
        "dtype": dtype,
        "seed": seed,
        "limit_mm_per_prompt": {"image": max_images, "video": 0},
        # Frames come in their final size: no bound may rescale one.
        "mm_processor_kwargs": {"size": {"shortest_edge": 1, "longest_edge": max_frame_pixels}},
        # Of the distribution that was sampled from: after ban and temperature.
        "logprobs_mode": "processed_logprobs",
        # The checkpoint's own sampling settings (top-k, penalties) would be applied otherwise.
        "generation_config": "vllm",
    }


def check_version(version: str, allow_untested: bool) -> None:
    """Refuse a vLLM that the tests have not seen, or warn where it is allowed.

    Raises:
        EngineError: it is not one of `TESTED_VERSIONS`, and untested ones are not allowed. Caches and
            weight updates differ between versions, and their faults are silent.
    """
    if version.split("+")[0] in TESTED_VERSIONS:
        return
    told = f"vLLM {version} is untested, tested are {', '.join(TESTED_VERSIONS)}"
    if not allow_untested:
        raise EngineError(
            f"{told}; install one of these, or sample by it nevertheless: --allow-untested-vllm, in Python "
            "allow_untested=True"
        )
    log.warning(
        "%s: compare log-probabilities of a few rollouts with the trainer's before a long run", told
    )


def prepare(
    contexts: Sequence[Context], sampling: Sampling, store: FrameReader, layout: PatchLayout
) -> list[Prompt]:
    """Prompts of contexts, frames resolved; equal visuals are resolved once.

    Raises:
        EngineError: a context leaves no room for an output.
        ValueError: a visual has several frames, or the temperature is too low.
        videogym.video.VideoError: frames could not be shown.
    """
    if sampling.temperature < MIN_TEMPERATURE:
        raise ValueError(f"temperature must be at least {MIN_TEMPERATURE}, got {sampling.temperature}")
    unique = list(dict.fromkeys(visual for context in contexts for visual in context.visuals))
    for visual in unique:
        if len(visual.times_s) != 1:
            raise ValueError(
                f"vLLM engines take images, got a visual of {len(visual.times_s)} frames of "
                f"{visual.video!r}; show every frame as an image of its own"
            )
    frames = {visual: pixels[0] for visual, pixels in zip(unique, resolve(store, unique), strict=True)}
    prompts = []
    for context in contexts:
        placeholders = tuple(layout.tokens(visual) for visual in context.visuals)
        length = len(context.ids) - len(placeholders) + sum(placeholders)
        room = sampling.max_context - length
        if room < 1:
            raise EngineError(
                f"the context {context.key!r} has {length} tokens and leaves no room in "
                f"{sampling.max_context}"
            )
        shown = tuple(frames[visual] for visual in context.visuals)
        max_tokens = min(sampling.max_new_tokens, room)
        prompts.append(Prompt(context.ids, context.visuals, shown, placeholders, max_tokens))
    return prompts


def sampling_params(sampling: Sampling, max_tokens: int) -> dict[str, Any]:
    """Fields of vLLM's ``SamplingParams``."""
    return {
        # At 0 it takes the likeliest token, and gives log-probabilities at 1.
        "temperature": 0.0 if sampling.greedy else sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": max_tokens,
        "stop_token_ids": [sampling.end_id],
        # The end id ends an output whatever the checkpoint calls its end of sequence.
        "ignore_eos": True,
        "logit_bias": dict.fromkeys(sampling.banned, BAN) or None,
        "logprobs": 0,  # of the sampled id and no other
        "detokenize": False,
    }


def audit_prompt(prompt: Prompt, ids: Sequence[int], ranges: Sequence[tuple[int, int]]) -> None:
    """Compare the prompt that vLLM made with the one that training will score.

    Args:
        prompt: what was asked.
        ids: expanded ids that vLLM ran.
        ranges: (offset, length) of every image's placeholders in them.

    Raises:
        EngineError: they differ.
    """
    lengths = tuple(length for _, length in ranges)
    if lengths != prompt.placeholders:
        wrong = [
            f"{visual.size[0]}x{visual.size[1]}: {found} instead of {expected}"
            for visual, found, expected in zip(prompt.visuals, lengths, prompt.placeholders, strict=False)
            if found != expected
        ]
        largest = max(width * height for width, height in (visual.size for visual in prompt.visuals))
        raise EngineError(
            f"vLLM made {len(lengths)} images of {len(prompt.placeholders)}, with other placeholders for "
            f"{', '.join(wrong) or 'none'}: its image processor rescales frames; start it with "
            f"max_frame_pixels of at least {largest} (mm_processor_kwargs with a size whose shortest_edge "
            "is 1 and whose longest_edge is that)"
        )
    collapsed: list[int] = []
    place = 0
    for offset, length in ranges:
        collapsed += [*ids[place:offset], ids[offset]]
        place = offset + length
    collapsed += ids[place:]
    if tuple(collapsed) != prompt.ids:
        raise EngineError("vLLM changed the ids of a prompt: it ran others than those it was given")


def audit_output(
    sampling: Sampling,
    ids: Sequence[int],
    log_probs: Sequence[float],
    versions: Sequence[int],
    finish_reason: str | None,
) -> Output:
    """An output, if it is one.

    Raises:
        EngineError: it was interrupted, or contradicts what was asked.
    """
    if finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM did not finish an output, its reason is {finish_reason!r:.80}")
    if finish_reason == "stop" and ids[-1:] != [sampling.end_id]:
        raise EngineError(f"vLLM ended an output by {finish_reason!r}, its last id is {ids[-1:]}")
    if banned := set(ids) & set(sampling.banned):
        raise EngineError(f"vLLM sampled banned ids {sorted(banned)}")
    if len(log_probs) != len(ids) or len(versions) != len(ids):
        raise EngineError(
            f"vLLM gave {len(log_probs)} log-probs, {len(versions)} versions to {len(ids)} ids"
        )
    # vLLM writes -9999 where it has none.
    if not all(math.isfinite(value) and -9000 < value <= 1e-3 for value in log_probs):
        raise EngineError(f"vLLM gave log-probs outside (-9000, 0]: {min(log_probs)} to {max(log_probs)}")
    return Output(tuple(ids), tuple(log_probs), tuple(versions))


def span_versions(
    spans: Sequence[Mapping[str, Any]] | None, number: int, pushed: int | None, sender: str = ""
) -> list[int]:
    """The version of every id from vLLM's spans.

    Args:
        spans: ``version``, ``start`` and ``end`` of each.
        number: ids of the output.
        pushed: the version that was pushed last, if any was. The weights that vLLM was started with
            count as version 0.
        sender: what stands before it in vLLM's label: two trainers count alike.

    Raises:
        EngineError: spans have gaps, or name other weights than were pushed.
    """
    versions: list[int] = []
    for span in spans or ():
        expected = UNVERSIONED if pushed is None else f"{sender}{pushed}"
        if span["version"] != expected:
            raise EngineError(
                f"vLLM samples with weights of version {span['version']!r:.80}, not {expected!r}: it was "
                "restarted, or something else pushes to it"
            )
        if span["start"] != len(versions) or not span["start"] <= span["end"] <= number:
            raise EngineError(f"vLLM's versions have a gap or an overlap: {list(spans or ())!r:.300}")
        versions += [pushed or 0] * (span["end"] - span["start"])
    if len(versions) != number:
        raise EngineError(f"vLLM's versions cover {len(versions)} of {number} ids")
    return versions
