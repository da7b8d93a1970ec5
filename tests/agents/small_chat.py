"""Small conversations for tests: tiny checkpoints of both families, frames of noise, scripted episodes."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounding import assert_close
from tensordict import NonTensorData, TensorDict
from torch import Tensor
from torchrl.envs import step_mdp

from agents.engines.base import Context, Sampling
from agents.engines.transformers_engine import TransformersEngine
from agents.models.qwen_vl import QwenVL
from agents.models.tiny_qwen import build_tiny_qwen
from agents.models.visuals import WHOLE_FRAME, Visual
from agents.train_grpo_mllm import Config, grpo_loss, make_loss
from agents.training.ranks import sum_over_ranks
from agents.training.run import optimizer_step
from agents.vlm.actor import ChatActor
from agents.vlm.batch import RolloutBatch
from agents.vlm.env import ChatEnv
from agents.vlm.records import Record, TurnRecord
from agents.vlm.scoring import Scored, Scorer
from videogym import State, Term, VideoQAEnv, get_recipe
from videogym.grammars import get_grammar
from videogym.video import FrameBatch, VideoError

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
FORMS = [(family, video) for family in FAMILIES for video in (False, True)]
"""Family, and whether neighbouring frames are a video."""
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=50"
RECIPE = replace(
    get_recipe("LONGVT_TINY"), name="six", rules=replace(get_recipe("LONGVT_TINY").rules, skim_frames=6)
)
"""LongVT's rules with a skim of six frames, five turns and frames of two tokens."""


def odd(before: State, after: State) -> float:
    """A reward term of which every rollout has some: share of letters with odd codes in what was said."""
    text = after.turns[-1].text
    return sum(ord(letter) % 2 for letter in text) / max(1, len(text))


ODD = replace(
    RECIPE,
    name="ODD",
    rules=replace(RECIPE.rules, skim_frames=2, max_turns=2),
    terms=(Term("odd", "turn", odd),),
)
"""Pays letters with odd codes. Without contrast gradients are rounding, made as large as any by Adam."""
ANSWER = "<think>seen</think><answer>B</answer>"
Script = Callable[[int, int], str | None]


def crop(start_s: float, end_s: float) -> str:
    """A well-formed call."""
    call = {"name": "crop_video", "arguments": {"start_time": start_s, "end_time": end_s}}
    return f"<think>look</think><tool_call>{json.dumps(call)}</tool_call>"


def build(folder: Path, family: str, **sizes: Any) -> Path:
    """A tiny checkpoint whose tokenizer knows the words of the episodes."""
    env = VideoQAEnv(TASKS, RECIPE)
    env.reset(seed=0)
    texts = [message.text for message in get_grammar(RECIPE.grammar).messages(env.state)]
    corpus = [*texts, crop(1, 2), ANSWER, "Your output could not be used."] * 4
    return build_tiny_qwen(folder, corpus, family=family, **{"vocab_size": 700, **sizes})  # type: ignore[arg-type]


class Noise:
    """A frame store without videos: every video, time and region has noise of its own.

    Attributes:
        blank: frames, by video and time, that are grey.
        broken: videos whose frames cannot be shown.
        asked: frames that were asked for.
    """

    def __init__(self, blank: Iterable[tuple[str, float]] = (), broken: Iterable[str] = ()) -> None:
        self.blank, self.broken, self.asked = set(blank), set(broken), 0

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """Frames of noise or grey."""
        assert size is not None
        if source in self.broken:
            raise VideoError(f"{source}: its packets are gone")
        self.asked += len(times_s)
        shape = (size[1], size[0], 3)
        pixels = [
            np.full(shape, 128, np.uint8)
            if (source, time_s) in self.blank
            else np.random.default_rng(zlib.crc32(f"{source} {time_s} {region}".encode())).integers(
                0, 256, shape, dtype=np.uint8
            )
            for time_s in times_s
        ]
        return FrameBatch(np.stack(pixels), np.array(times_s), np.zeros(len(times_s), bool))


def load(folder: Path, store: Noise | None = None, **options: Any) -> QwenVL:
    """The model of a checkpoint, with noise for frames."""
    return QwenVL.from_pretrained(str(folder), store or Noise(), **options)


def sampling(model: QwenVL, **changes: Any) -> Sampling:
    """Off the defaults where it can be, and short."""
    usual = Sampling(0.8, 6, model.end_id, model.vision_ids, 4096)
    return replace(usual, **changes)


def make_actor(model: QwenVL, **changes: Any) -> ChatActor:
    """A policy that samples with the model itself."""
    return ChatActor(model, TransformersEngine(model), sampling(model, **changes))


def make_env(model: QwenVL, *, video: bool = False, recipe: Any = RECIPE, **options: Any) -> ChatEnv:
    """Two groups of three episodes in the model's own form."""
    usual = {"groups": 2, "group_size": 3, "form": model.chat_form(video), **options}
    return ChatEnv(VideoQAEnv(TASKS, recipe), model.tokenizer, **usual)


def said(env: ChatEnv, record: Record, text: str) -> Record:
    """The record with a text that nobody sampled as the output of its turn."""
    ids = [*env.chat.output_ids(text), env.chat.end_id]
    return record.answered(ids, [0.0] * len(ids), [0] * len(ids))


def play(env: ChatEnv, actor: ChatActor, script: Script = lambda turn, row: None) -> list[Record]:
    """Whole episodes, sampled where the script has no text for a turn and a row."""
    td = env.reset()
    for turn in itertools.count():
        td = actor(td)
        for number, row in enumerate(td.unbind(0)):
            text = script(turn, number)
            if text is not None and not row["record"].done:
                row["record"] = NonTensorData(said(env, row["record"], text))
        td = env.step(td)
        if td["next", "done"].all():
            break
        td = step_mdp(td)
    return [row["next", "record"] for row in td.unbind(0)]


def mixed(turn: int, row: int) -> str | None:
    """Looks at different places in different turns, and one early end; all else is sampled."""
    if turn == row % 3:
        return crop(10 + row, 13 + 2 * row)
    if turn == 2 and row == 0:
        return crop(30, 33)
    return ANSWER if (turn, row) in ((2, 1), (3, 3)) else None


def sampled_mask(records: Sequence[Record]) -> Tensor:
    """(T,) bool, of the tokens of all outputs: those that were sampled, not scripted."""
    return torch.tensor([p != 0.0 for record in records for t in record.turns for p in t.log_probs])


def stored(records: Sequence[Record]) -> Tensor:
    """(T,) log-probabilities as they were sampled."""
    return torch.tensor([p for record in records for turn in record.turns for p in turn.log_probs])


def assert_agrees(scored: Scored, records: Sequence[Record], at_least: int = 30) -> None:
    """What was sampled was sampled with the probabilities that are scored."""
    mask = sampled_mask(records)
    assert mask.sum() >= at_least
    expected = stored(records)[mask]
    assert_close(scored.log_probs.detach()[mask], expected)


# --- conversations by hand ---------------------------------------------------------------------


def image(time_s: float, size: tuple[int, int], video: str = "v") -> Visual:
    """One frame."""
    return Visual(video, (time_s,), WHOLE_FRAME, size)


def shown(model: QwenVL, visuals: Iterable[Visual], text: str) -> tuple[int, ...]:
    """Collapsed ids of some visuals and a text."""
    start, pad, end, video_pad = model.vision_ids
    ids = [i for v in visuals for i in (start, pad if len(v.times_s) == 1 else video_pad, end)]
    return (*ids, *model.tokenizer.encode(text))


def context(model: QwenVL, key: str, visuals: Sequence[Visual], text: str) -> Context:
    """Some visuals and a text, to be answered."""
    return Context(key, shown(model, visuals, text), tuple(visuals))


def record(*turns: TurnRecord, **changes: Any) -> Record:
    """An episode of these turns."""
    usual = Record(
        recipe="six@0",
        tokenizer="abc",
        task_id="a",
        group="0.0.0",
        sample_index=0,
        kind="rollout",
        head=(),
        window=None,
        turns=turns,
    )
    return replace(usual, **changes)


# --- the plain model ---------------------------------------------------------------------------


def plain_logits(
    model: QwenVL, ids: Sequence[int], visuals: Sequence[Visual], temperature: float
) -> Tensor:
    """(L, V) log-probabilities of what follows each expanded id, by transformers' own forward pass.

    Positions, features and placeholders are transformers' affair here; only the patches are ours.
    """
    expanded: list[int] = []
    left = iter(visuals)
    for token in ids:
        count = (
            model.layout.tokens(next(left)) if token in (model.vision_ids[1], model.vision_ids[3]) else 1
        )
        expanded += [token] * count
    input_ids = torch.tensor([expanded])
    kinds = (input_ids == model.vision_ids[1]).int() + 2 * (input_ids == model.vision_ids[3]).int()
    inputs: dict[str, Any] = {}
    for video in (False, True):
        some = [v for v in visuals if (len(v.times_s) > 1) == video]
        if not some:
            continue
        frames = [
            model.store.frames(v.video, v.times_s, size=v.size, region=_region(v)).pixels for v in some
        ]
        patches = torch.from_numpy(np.concatenate([model.layout.patches(one) for one in frames]))
        grids = torch.tensor([model.layout.grid(v) for v in some])
        inputs["pixel_values_videos" if video else "pixel_values"] = patches
        inputs["video_grid_thw" if video else "image_grid_thw"] = grids
        if video and model.family == "qwen2_5_vl":
            # A step in time is two frames, which are evenly spaced but for rounding.
            steps = [2 * (v.times_s[-1] - v.times_s[0]) / (len(v.times_s) - 1) for v in some]
            inputs["second_per_grid_ts"] = torch.tensor(steps)
    out = model.model.model(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        mm_token_type_ids=kinds,
        use_cache=False,
        **inputs,
    )
    logits = model.model.lm_head(out.last_hidden_state[0]).float() / temperature
    logits[:, list(model.vision_ids)] = -torch.inf
    model.model.model.rope_deltas = None
    return logits.log_softmax(-1)


def _region(visual: Visual) -> tuple[float, float, float, float] | None:
    return None if visual.region == WHOLE_FRAME else visual.region


# --- updates -----------------------------------------------------------------------------------


def batch_of(
    actor: ChatActor, records: Sequence[Record], advantages: Tensor, reference: Scorer | None = None
) -> RolloutBatch:
    """Rollouts with advantages, and log-probabilities of a reference policy."""
    batch = RolloutBatch(records, actor.model)
    batch.set_advantage(advantages[: len(records)])
    if reference is not None:
        batch.set("reference", reference.log_probs(records, 16))
    return batch


def tensors(actor: ChatActor, batch: RolloutBatch) -> TensorDict:
    """All of a batch as one micro-batch that has been scored."""
    return batch.tensors(next(actor.scorer.micro_batches(batch.records, len(batch))))


def grpo_step(
    config: Config, actor: ChatActor, minibatch: RolloutBatch, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """A gradient step as `agents.train_grpo_mllm.train` makes it."""
    loss_module, total, parts = make_loss(config, actor.model.device), 0.0, []
    for micro in actor.scorer.micro_batches(minibatch.records, config.memory.micro_batch_size):
        loss, metrics = grpo_loss(config, loss_module, minibatch.tensors(micro), micro)
        loss.backward()
        total += loss.item()
        parts.append(metrics)
    weights = list(actor.model.parameters())
    return optimizer_step(weights, optimizer, total, config.optimizer.max_grad_norm) | sum_over_ranks(parts)
