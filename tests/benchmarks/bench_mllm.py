"""Measures an update of a tiny Qwen2.5-VL against what bare transformers calls would cost.

The workload: one task, groups of 4 and 8 rollouts, three turns; 16 images in the question, 8 more after
each of two looks, 112x112 pixels; 98, 97 and 44 sampled tokens. What is sampled is random; a script says
what it means, so that all rollouts look twice and then answer.

Compared in one run, in process time, alternating: the loss with its backward pass against the bare
model's on the same padded tensors; the whole update (episodes, advantages, loss, step) against a rollout
written by hand with kept keys and values plus the bare forward and backward pass; both with and without
shared prefixes. Then, at LongVT's proportions (a prefix 16 times as long as a response, 16 rollouts), the
shared update against the plain one. Run by ``make bench-mllm``; exits 1 where a target is missed.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scripted import ScriptedActor, ScriptedEnv, learn
from transformers import DynamicCache

from agents.engines.base import Sampling
from agents.engines.transformers_engine import TransformersEngine
from agents.models.padding import left_padded
from agents.models.qwen_vl import QwenVL
from agents.models.tiny_qwen import build_tiny_qwen
from agents.models.visuals import resolve
from agents.train_grpo_mllm import Config, grpo_loss, make_loss
from agents.vlm.actor import loss_entries
from agents.vlm.batch import RolloutBatch
from agents.vlm.records import Record
from agents.vlm.rollouts import rollouts
from agents.vlm.scoring import Scorer
from agents.vlm.tiny import corpus
from videogym import VideoQAEnv, get_recipe
from videogym.datasets import load_tasks

TASKS = "procedural:brief_event?level=0&duration_s=128&size=224x224&count=16"
LENGTHS = (98, 97, 44)  # sampled tokens of each turn
SAID = (
    '<think>look</think><tool_call>{"name": "crop_video", "arguments": {"start_time": 8, "end_time": 16}}'
    "</tool_call>",
    '<think>look</think><tool_call>{"name": "crop_video", "arguments": {"start_time": 80, "end_time": 88}}'
    "</tool_call>",
    "<think>seen</think><answer>A</answer>",
)
# Words that no merge was learned for, so that the question has about as many tokens as a tool schema takes.
FILLER = "".join(random.Random(0).choices("bcdfghjklmnpqrstvwxz", k=350))
REPEATS = 7
LOSS_TARGET, UPDATE_TARGET, SHARED_TARGET, LONG_TARGET = 1.1, 1.15, 1.0, 4.0


@dataclass
class Workload:
    """A model, its episodes and what training needs."""

    model: QwenVL
    env: ScriptedEnv
    actor: ScriptedActor
    config: Config
    optimizer: torch.optim.Optimizer

    @classmethod
    def make(cls, folder: Path, group_size: int, share: bool) -> Workload:
        """One of the two group sizes, with or without shared prefixes."""
        longvt = get_recipe("LONGVT_TINY")
        rules = replace(longvt.rules, skim_frames=16, clip_frames=8, max_pixels=112 * 112)
        tasks = [replace(task, question=f"{task.question} {FILLER}") for task in load_tasks(TASKS)]
        env = VideoQAEnv(tasks, replace(longvt, name="workload", rules=rules))
        if not (folder / "config.json").exists():
            build_tiny_qwen(
                folder,
                corpus(VideoQAEnv(TASKS, env.recipe), episodes=16),
                vocab_size=1078,
                hidden_size=128,
                vision_size=64,
            )
        model = QwenVL.from_pretrained(str(folder), env.store)
        sampling = Sampling(1.0, 128, model.end_id, model.vision_ids, 32_768)
        actor = ScriptedActor(model, TransformersEngine(model), sampling, share)
        actor.lengths = LENGTHS
        chat = ScriptedEnv(env, model.tokenizer, groups=1, group_size=group_size)
        chat.said = SAID
        config = Config.of(
            groups=1, group_size=group_size, mini_batch_groups=1, kl_coef=0.0, share_prefixes=share
        )
        optimizer = torch.optim.AdamW(model.parameters(), 1e-6)
        return cls(model, chat, actor, config, optimizer)

    def update(self) -> None:
        """One whole update: episodes, advantages, loss, step, push."""
        learn(self.config, self.actor, rollouts(self.env, self.actor), self.optimizer)
        self.actor.update_weights()

    def loss(self, records: list[Record]) -> None:
        """Loss and backward pass alone."""
        batch = RolloutBatch(records, self.model)
        batch.set_advantage(torch.randn(len(records)))
        loss_module = make_loss(self.config, self.model.device)
        for micro in self.actor.scorer.micro_batches(records, len(records)):
            loss, _ = grpo_loss(self.config, loss_module, batch.tensors(micro), micro)
            loss.backward()


def bare_loss(model: QwenVL, records: list[Record]) -> None:
    """What transformers and ten lines make of the same padded tensors: forward, log-softmax, backward."""
    entries = [loss_entries(record, model) for record in records]
    ids = left_padded([entry["tokens"] for entry in entries], model.pad_id)
    sampled = left_padded([entry["mask"] for entry in entries])
    attention = left_padded([torch.ones_like(entry["tokens"]) for entry in entries])
    visuals = [visual for record in records for turn in record.turns for visual in turn.visuals]
    pixels = torch.cat([torch.from_numpy(model.layout.patches(f)) for f in resolve(model.store, visuals)])
    first = int(sampled.any(0).nonzero()[0])  # logits of the completions only
    model.model.model.rope_deltas = None
    logits = model.model(
        input_ids=ids,
        attention_mask=attention,
        mm_token_type_ids=(ids == model.vision_ids[1]).int(),
        pixel_values=pixels,
        image_grid_thw=torch.tensor([model.layout.grid(visual) for visual in visuals]),
        logits_to_keep=ids.shape[1] - first + 1,
        use_cache=False,
    ).logits
    log_probs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, first:, None])[..., 0]
    mask = sampled[:, first:]
    (-(log_probs * mask).sum() / mask.sum()).backward()


@torch.no_grad()
def bare_rollout(model: QwenVL, record: Record, group_size: int) -> None:
    """A rollout by hand: the question once, keys and values kept, every image encoded once."""
    language, head = model.model.model.language_model, model.model.lm_head
    cache = DynamicCache(config=model.model.config.text_config)
    start = 0
    for number, (turn, length) in enumerate(zip(record.turns, LENGTHS, strict=True)):
        ids = (*record.head, *turn.observation) if number == 0 else turn.observation
        part = model.expand(ids, turn.visuals, start=start)
        pixels = resolve(model.store, turn.visuals)
        patches = torch.cat([torch.from_numpy(model.layout.patches(frames)) for frames in pixels])
        grids = torch.tensor([model.layout.grid(visual) for visual in turn.visuals]).reshape(-1, 3)
        embedded = language.embed_tokens(part.ids[None])
        if turn.visuals:
            features = torch.cat(list(model.model.model.get_image_features(patches, grids).pooler_output))
            seen = (part.ids == model.vision_ids[1])[None, :, None]
            embedded = embedded.masked_scatter(seen, features)
        rows = 1 if number == 0 else group_size
        positions = part.positions[:, None].expand(3, rows, -1)
        out = language(
            inputs_embeds=embedded.expand(rows, -1, -1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        if number == 0:
            cache.batch_repeat_interleave(group_size)
            out = out.expand(group_size, -1)
        for place in range(length):
            log_probs = head(out).log_softmax(-1)
            token = torch.multinomial(log_probs.exp(), 1)
            log_probs.gather(-1, token)
            if place + 1 == length and number + 1 == len(LENGTHS):
                return
            out = language(
                inputs_embeds=language.embed_tokens(token),
                position_ids=torch.full((3, group_size, 1), part.after + place),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        start = part.after + length


def process_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def medians(works: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median CPU seconds of each, taken in turns after one call that is not counted."""
    for work in works.values():
        work()
    rounds = [{name: process_seconds(work) for name, work in works.items()} for _ in range(repeats)]
    return {name: statistics.median(row[name] for row in rounds) for name in works}


def compare(folder: Path, group_size: int) -> list[str]:
    """Figures of one group size; returns what missed its target."""
    plain, shared = (Workload.make(folder, group_size, share) for share in (False, True))
    torch.manual_seed(0)
    plain.model.encoded_visuals = plain.model.forwarded_tokens = 0
    records = rollouts(plain.env, plain.actor)
    read, encoded = plain.model.forwarded_tokens, plain.model.encoded_visuals
    shown = [visual for record in records for turn in record.turns for visual in turn.visuals]
    whole = sum(plain.model.length(*_all(record)) for record in records)
    prefix = plain.model.length(*records[0].context(0))
    new = whole - (group_size - 1) * prefix - group_size  # the last token of a rollout is never read
    print(
        f"group of {group_size}: {whole} tokens, question {prefix}; the rollout read {read} tokens "
        f"(new ones: {new}) and encoded {encoded} images ({len(set(shown))} distinct, {len(shown)} shown)"
    )
    seconds = medians(
        {
            "bare loss": lambda: bare_loss(plain.model, records),
            "loss": lambda: plain.loss(records),
            "loss, shared": lambda: shared.loss(records),
            "bare rollout": lambda: bare_rollout(plain.model, records[0], group_size),
            "update": plain.update,
            "update, shared": shared.update,
        }
    )
    floor = seconds["bare loss"] + seconds["bare rollout"]
    ratios = {
        "loss": (seconds["loss"] / seconds["bare loss"], LOSS_TARGET),
        "update": (seconds["update"] / floor, UPDATE_TARGET),
        "update, shared": (seconds["update, shared"] / floor, SHARED_TARGET),
    }
    print("  " + ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()))
    for name, (ratio, target) in ratios.items():
        print(f"  {name}: {ratio:.2f} of the bare calls, at most {target}")
    missed = [name for name, (ratio, target) in ratios.items() if ratio > target]
    missed += [] if (read, encoded) == (new, len(set(shown))) else ["tokens read or images encoded"]
    return [f"group of {group_size}, {name}" for name in missed]


def _all(record: Record) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    ids, visuals = record.context(len(record.turns) - 1)
    return (*ids, *record.turns[-1].output), visuals


def compare_long(folder: Path, rollouts_: int = 16, response: int = 96) -> list[str]:
    """The update at LongVT's proportions, prefix 16 times a response, scaled down."""
    workload = Workload.make(folder, 4, True)
    torch.manual_seed(0)
    record = rollouts(workload.env, workload.actor)[0]
    turn = record.turns[0]
    filler = response * 16 - workload.model.length(*record.context(0))
    low, high = 300, 1000  # ordinary tokens
    turn = replace(turn, observation=(*torch.randint(low, high, (filler,)).tolist(), *turn.observation))
    group = [
        replace(
            record,
            sample_index=number,
            turns=(replace(turn, output=tuple(torch.randint(low, high, (response,)).tolist())),),
        )
        for number in range(rollouts_)
    ]
    model, grads, counts = workload.model, {}, {}
    works: dict[str, Callable[[], object]] = {}
    for name, share in (("plain", False), ("shared", True)):
        scorer = Scorer(model, share=share)

        def work(scorer: Scorer = scorer) -> None:
            model.zero_grad()
            (scorer(group).log_probs.mean()).backward()

        model.forwarded_tokens = 0
        work()
        counts[name] = model.forwarded_tokens
        grads[name] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        works[name] = work
    seconds = medians(works, 3)
    ratio = seconds["plain"] / seconds["shared"]
    gap = float((grads["plain"] - grads["shared"]).norm() / grads["plain"].norm())
    prefix = model.length(*group[0].context(0))
    print(
        f"{rollouts_} rollouts of {response} behind {prefix}: plain {counts['plain']} tokens, shared "
        f"{counts['shared']} (prefix + responses = {prefix + rollouts_ * response}); "
        f"{seconds['plain']:.2f} s against {seconds['shared']:.2f} s, {ratio:.1f} times as fast, at least "
        f"{LONG_TARGET}; gradients differ by {gap:.1e}"
    )
    missed = [] if ratio >= LONG_TARGET else ["long prefix, speed"]
    missed += [] if gap < 1e-5 else ["long prefix, gradients"]
    exact = counts["shared"] == prefix + rollouts_ * response
    return missed if exact else [*missed, "long prefix, tokens"]


def main() -> int:
    """Print all figures."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny"
        missed = [name for size in (4, 8) for name in compare(path, size)]
        missed += compare_long(path)
    print("missed: " + ", ".join(missed) if missed else "all targets are met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
