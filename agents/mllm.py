"""What the loops of multimodal language models share: model, environment, episodes, figures.

`agents.train_sft`, `agents.train_grpo_mllm`, `agents.train_rft` and `agents.train_ppo_mllm` differ in what
they learn from and how; all else is here.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from torch import Tensor, nn

from videogym import Answer, FrameStore, Region, Task, VideoQAEnv
from videogym.datasets import load_tasks, require_unseen
from videogym.evaluate import hits as evidence_shown
from videogym.grammars import get_grammar
from videogym.rewards import finite
from videogym.state import Clip

from .chat import ChatEnv, Episode, play
from .demonstrations import Demonstrator, Said, Script
from .engines.base import Engine, EngineError, Sampling
from .engines.transformers_engine import TransformersEngine
from .engines.vllm_common import MIN_TEMPERATURE
from .engines.vllm_http import HTTPEngine
from .loop import (
    LoopConfig,
    RunDiverged,
    Span,
    TrainingRun,
    add_options,
    quiet_libraries,
    read_config,
    untimed,
)
from .policies.chat_actor import ChatActor, loss_entries
from .policies.qwen_vl import QwenVL
from .policies.scoring import Scored, Scorer
from .policies.tiny_qwen import build_tiny_qwen
from .policies.visuals import FrameReader
from .ranks import (
    Portion,
    divided,
    everyones,
    from_first,
    is_first,
    join,
    launched,
    leave,
    rank,
    reported,
    shares,
)
from .records import Record
from .sharding import assembled, shard, whole

# Longer events than half the gap between a skim's frames do not hide from it, and nobody need look.
TASKS = (
    "procedural:brief_event?level=0&duration_s=256&fps=4&size=320x180&event_s=2&count={count}&split={split}"
)
EVALUATED_AT_ONCE = 32  # episodes in play together, unless it is said


@dataclass(frozen=True)
class ChatConfig(LoopConfig):
    """What every training loop of a multimodal language model needs to know."""

    trains: ClassVar[bool] = True  # whether steps are made, which bfloat16 would lose

    recipe: str = "LONGVT_TINY"
    """Recipe of all episodes, or its name."""
    tasks: str = TASKS.format(count=4000, split="train")
    """Source of the tasks that are trained on."""
    eval_tasks: str = TASKS.format(count=200, split="val")
    """Source of held-out tasks."""
    eval_episodes: int = 100
    """Held-out tasks of an evaluation, always the same."""
    checkpoint: str = ""
    """Folder or name of a Qwen2.5-VL or Qwen3-VL; empty: a tiny one with random weights is made."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights. In bfloat16 steps of these learning rates are lost: it is for adapters
    (``lora_rank``), which are kept and trained in float32. Under torchrun all weights can be trained with
    it: the shards that are stepped stay in float32, what is gathered of them computes in bfloat16."""
    device: str = "cpu"
    """Where the model is, as torch names it."""
    lora_rank: int = 0
    """Of low-rank adapters on all linear layers of the language model; 0: all weights are trained."""
    freeze_vision: bool = False
    """Whether the vision tower stays as it is; features of its frames are then computed once."""
    video_form: bool = False
    """Whether neighbouring frames are shown as a video of the family, not as images."""
    window: int = 0
    """Earlier turns that a policy reads again; 0: all."""
    temperature: float = 1.0
    """Of sampling and of the trained distribution."""
    max_new_tokens: int = 128
    """Bound of one output."""
    max_context: int = 32_768
    """Tokens that a conversation may have."""
    rollouts_at_once: int = 0
    """Episodes in play together, whose keys and values are in memory; 0: all of an iteration, and 32 of an
    evaluation."""
    share_prefixes: bool = True
    """Whether what rollouts have in common goes through the model once in an update."""
    gradient_checkpointing: bool = False
    """Whether layers keep their inputs only and run again in the backward pass: about a third more time in
    an update, and memory for one layer's activations in place of all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number is out of range, or all weights would be kept in bfloat16 and trained.
        """
        for name in ("window", "lora_rank", "rollouts_at_once"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        counts = ("max_new_tokens", "eval_episodes", "eval_every", "checkpoint_every", "iterations")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.trains and self.dtype == "bfloat16" and not self.lora_rank and not launched():
            raise ValueError(
                "in bfloat16 steps of this size are lost; set lora_rank, or dtype to float32, or start it "
                "with torchrun, which keeps shards of the weights in float32"
            )


M = TypeVar("M", bound=ChatConfig)


def make_model(config: ChatConfig, store: FrameReader) -> QwenVL:
    """The model of the configured checkpoint, `prepared`; under torchrun not yet `sharded`."""
    dtype = torch.float32 if _computes_lower(config) else getattr(torch, config.dtype)
    model = QwenVL.from_pretrained(config.checkpoint, store, dtype)
    # Shards go to the device, not the whole.
    return prepared(config, model if launched() else model.to(config.device))


def _computes_lower(config: ChatConfig) -> bool:
    """Whether weights are kept in float32 and gathered in bfloat16."""
    return launched() and config.dtype == "bfloat16" and not config.lora_rank


def sharded(config: ChatConfig, model: QwenVL) -> QwenVL:
    """The model, in place; under torchrun each rank has its shards from now on.

    Optimizers are made afterwards, and copies before.
    """
    shard(model, config.device, torch.bfloat16 if _computes_lower(config) else None)
    return model


def prepared(config: ChatConfig, model: QwenVL) -> QwenVL:
    """A model with adapters, frozen parts and checkpointed layers as configured; changed in place."""
    if config.freeze_vision:
        model.model.model.visual.requires_grad_(False)
    if config.lora_rank:
        adapters = LoraConfig(
            r=config.lora_rank,
            lora_alpha=2 * config.lora_rank,
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        )
        model.requires_grad_(False)
        inject_adapter_in_model(adapters, model.model)
        for weight in trained(model):
            weight.data = weight.data.float()
    if config.gradient_checkpointing:
        model.checkpoint_layers()
    return model


def make_actor(config: ChatConfig, model: QwenVL, server: str = "") -> ChatActor:
    """A policy whose outputs are sampled with the model that is trained, or by a server.

    Args:
        config: of the run.
        model: that is trained.
        server: URL of a vLLM, see `agents.engines.vllm_server`, to which weights are pushed; "": none.

    Raises:
        EngineError: the server is out of reach, or of an untested version.
        ValueError: the URL is not one of HTTP, or a server cannot sample as configured.
    """
    if server and (config.video_form or config.temperature < MIN_TEMPERATURE):
        raise ValueError(
            f"a server samples at temperatures of at least {MIN_TEMPERATURE} behind frames as images, got "
            f"temperature {config.temperature} and video_form {config.video_form}"
        )
    sampling = Sampling(
        config.temperature, config.max_new_tokens, model.end_id, model.vision_ids, config.max_context
    )
    engine: Engine = TransformersEngine(model)
    if server:
        engine = HTTPEngine(server, model.store, model.layout)
    return ChatActor(model, engine, sampling, config.share_prefixes)


def make_chat_env(
    config: ChatConfig, model: QwenVL, tasks: str, *, groups: int = 1, group_size: int = 1
) -> ChatEnv:
    """Episodes of the configured recipe, whose frames the model's store has."""
    env = VideoQAEnv(tasks, config.rules, video_root=config.root, open_videos=max(8, groups))
    return ChatEnv(
        env,
        model.tokenizer,
        groups=groups,
        group_size=group_size,
        form=model.chat_form(config.video_form),
        window=config.window or None,
        max_context=config.max_context,
    )


def opened(env: ChatEnv) -> list[Episode]:
    """The episodes of a batch before their first turn, groups in order; the environment is reset."""
    rows = env.reset().unbind(0)
    return [Episode(row["record"], snapshot) for row, snapshot in zip(rows, env.snapshots, strict=True)]


def rollouts(env: ChatEnv, actor: ChatActor, at_once: int = 0, span: Span = untimed) -> list[Record]:
    """One batch of whole episodes, groups in order.

    Args:
        env: is reset.
        actor: plays.
        at_once: episodes in play together; 0: all.
        span: times ``generate`` and ``environment``.
    """
    with span("environment"):
        episodes = opened(env)
    return play_in_parts(env, actor, episodes, at_once, span)


def play_in_parts(
    env: ChatEnv, actor: ChatActor, episodes: Sequence[Episode], at_once: int = 0, span: Span = untimed
) -> list[Record]:
    """Play opened episodes to their ends, so many together; the engine forgets those that have ended.

    Args:
        env: plays their outputs.
        actor: samples.
        episodes: each in its own state; changed in place.
        at_once: episodes in play together; 0: all.
        span: times ``generate`` and ``environment``.
    """
    records: list[Record] = []
    size = at_once or len(episodes) or 1
    for first in range(0, len(episodes), size):
        records += play(env, actor.answer, episodes[first : first + size], span)
        actor.engine.forget()
    return records


def play_tasks(
    env: ChatEnv,
    answer: Callable[[Sequence[Record]], list[Record]],
    task_ids: Sequence[str],
    at_once: int = EVALUATED_AT_ONCE,
) -> Iterator[Record]:
    """One whole episode of every task, in order; cut where a task cannot be played.

    Args:
        env: plays them.
        answer: gives every record one output more.
        task_ids: of the environment's tasks.
        at_once: episodes in lockstep.
    """
    for first in range(0, len(task_ids), at_once):
        begun: list[Record] = []
        episodes: list[Episode] = []
        for task_id in task_ids[first : first + at_once]:
            begun.append(env.open_task(task_id))
            if not begun[-1].cut:
                episodes.append(Episode(begun[-1], env.env.get_state()))
        played = iter(play(env, answer, episodes))
        yield from (record if record.cut else next(played) for record in begun)


def demonstrate(
    env: ChatEnv, script: Script, task_ids: Sequence[str], per_task: int = 1
) -> Iterator[Record]:
    """Episodes that a script plays, as records: outputs are its texts, and nothing was sampled."""
    for task_id in task_ids:
        for number in range(per_task):
            record = replace(env.open_task(task_id), kind="demonstration", number=number)
            while not record.waiting:
                record = say(env, record, script(env.env.state))
            yield record


def say(env: ChatEnv, record: Record, said: Said) -> Record:
    """A record whose last turn is answered by a text that nobody sampled, played in its environment."""
    ids = [*env.chat.output_ids(said.text), env.chat.end_id]
    turn = replace(record.turns[-1], learn=said.learn)
    record = replace(record, turns=(*record.turns[:-1], turn))
    return env.advance(record.answered(ids, [0.0] * len(ids), [0] * len(ids)))


def held_out(config: ChatConfig, actor: ChatActor) -> Callable[[], dict[str, float]]:
    """What evaluates a policy: figures and hits of its likeliest outputs on the first held-out tasks.

    Raises:
        TrainedOnError: they ask about videos of the tasks that are trained on.
    """
    env = make_chat_env(config, actor.model, config.eval_tasks)
    tasks = env.env.tasks[: config.eval_episodes]
    require_unseen(tasks, load_tasks(config.tasks, config.root))

    def play_some(task_ids: Sequence[str]) -> list[Record]:
        records = list(
            play_tasks(env, greedy(actor), task_ids, config.rollouts_at_once or EVALUATED_AT_ONCE)
        )
        actor.engine.forget()
        return records

    def evaluate() -> dict[str, float]:
        with whole(actor.model):
            records = divided([task.task_id for task in tasks], play_some)
        values = {**figures(records), **hits(records, tasks)}
        return {f"eval_{name}": value for name, value in values.items()}

    return evaluate


def hits(records: Sequence[Record], tasks: Sequence[Task]) -> dict[str, float]:
    """``hit_rate``: share of episodes that were shown all evidence, see `videogym.evaluate.hits`.

    Args:
        records: one of every task, in order; those in which a fault was do not count.
        tasks: those without evidence do not count.
    """
    found = []
    for record, task in zip(records, tasks, strict=True):
        if record.cut.startswith("fault"):
            continue
        shown = [visual for turn in record.turns for visual in turn.visuals]
        hit = evidence_shown(task, [Clip(visual.times_s, Region(*visual.region)) for visual in shown])
        found += [] if hit is None else [hit]
    return {"hit_rate": float(np.mean(found))} if found else {}


def greedy(actor: ChatActor) -> Callable[[Sequence[Record]], list[Record]]:
    """The actor's likeliest outputs."""
    return functools.partial(actor.answer, sampling=replace(actor.sampling, greedy=True))


def figures(records: Sequence[Record]) -> dict[str, float]:
    """Means over whole episodes.

    Returns:
        ``accuracy``, ``reward``, every reward term where it is present, ``turns``, ``looks``, sampled
        ``tokens``; ``invalid_rate`` of turns; ``cut_rate`` of episodes, which count in nothing else, but
        for this: whose context was full has not answered, and that is not right.
    """
    whole = [record for record in records if not record.cut]
    judged = [record for record in records if record.cut in ("", "context")]
    values: dict[str, float] = {"cut_rate": 1 - len(whole) / len(records)}
    if judged:
        values["accuracy"] = float(np.mean([bool(record.success) for record in judged]))
    if not whole:
        return values
    turns = [turn for record in whole for turn in record.played]
    values |= {
        "reward": float(np.mean([record.total_reward for record in whole])),
        "turns": len(turns) / len(whole),
        "looks": sum(turn.looked for turn in turns) / len(whole),
        "tokens": sum(record.sampled_tokens for record in whole) / len(whole),
        "invalid_rate": sum(bool(turn.error) for turn in turns) / len(turns),
    }
    for name in turns[0].terms:
        totals = [total for record in whole if (total := record.total(name)) is not None]
        if totals:
            values[name] = float(np.mean(totals))
    return values


def first_policy(config: ChatConfig, actor: ChatActor) -> Scorer:
    """A policy before it is trained, which says how far training has led away from it.

    Adapters are left out for as long as it scores; where all weights are trained, it is a copy.
    """
    if config.lora_rank:
        return _WithoutAdapters(actor.model, config.temperature, config.share_prefixes)
    first = copy.deepcopy(actor.model).requires_grad_(False)
    return Scorer(sharded(config, first), config.temperature, config.share_prefixes)


class _WithoutAdapters(Scorer):
    """Scores as a model did before its adapters were trained."""

    def in_parts(self, records: Sequence[Record], at_once: int) -> Iterator[Scored]:
        """See `Scorer.in_parts`."""
        adapted = [layer for layer in self.model.modules() if isinstance(layer, BaseTunerLayer)]
        for layer in adapted:
            layer.enable_adapters(False)
        try:
            yield from super().in_parts(records, at_once)
        finally:
            for layer in adapted:
                layer.enable_adapters(True)


def as_batch(
    records: Sequence[Record], actor: ChatActor, reference: Scorer | None, at_once: int = 16
) -> TensorDictBase:
    """Rollouts as TorchRL's advantages and losses read them, one row each; ragged.

    Args:
        records: whole rollouts.
        actor: whose they are.
        reference: scores them too; None: nobody does.
        at_once: records it has in memory together.
    """
    rows = []
    for record in records:
        paid = finite(record.total_reward, f"the reward of task {record.task_id!r}")
        entries = loss_entries(record, actor.model)
        row = TensorDict(
            {
                "record": NonTensorData(record),
                "query": NonTensorData(record.group),
                "next": {
                    # In float32 the mean of equal rewards differs from them, and the noise is trained on.
                    "episode_reward": torch.tensor([paid], dtype=torch.float64),
                    "done": torch.tensor([True]),
                },
            }
        )
        rows.append(row.update({key: value for key, value in entries.items()}))
    batch = lazy_stack(rows)
    if reference is not None:
        for row, log_probs in zip(rows, _scores(reference, records, at_once), strict=True):
            mask = row["masks", "all_assistant_mask"]
            row["next", "ref_log_probs", "full"] = torch.zeros(len(mask)).masked_scatter(mask, log_probs)
    return batch


def _scores(scorer: Scorer, records: Sequence[Record], at_once: int) -> list[Tensor]:
    """Log-probabilities of every record's sampled tokens; ranks divide the groups."""

    def score(groups: Sequence[list[Record]]) -> list[list[Tensor]]:
        parts = scorer.in_parts([record for group in groups for record in group], at_once)
        found = (log_probs for part in parts for log_probs in part.log_probs.cpu().split(part.counts))
        return [[next(found).clone() for _ in group] for group in groups]

    groups = [list(group) for _, group in groupby(records, key=lambda record: record.group)]
    with whole(scorer.model):
        return [log_probs for group in divided(groups, score) for log_probs in group]


def backward(
    actor: ChatActor,
    records: Sequence[Record],
    at_once: int,
    loss_of: Callable[[slice], Tensor],
    span: Span = untimed,
) -> float:
    """Gradients of a loss that is a sum over records, a few records at a time.

    What the records of a task have in common goes through the model once all the same, and one task after
    the other: memory is that of a part and of what its tasks begin with. Under torchrun each rank does a
    share of the tasks, and the gradients and the loss are the sums over all.

    Args:
        actor: whose weights get gradients, added to those there are.
        records: of one gradient step, the same on all ranks.
        at_once: records in memory together.
        loss_of: the part of the loss that a slice of the records makes.
        span: times ``forward`` and ``backward``.

    Returns:
        The loss.
    """
    total = 0.0
    for portion in _share(actor, records, at_once):
        stand_in = records[portion.records][:1]
        with ExitStack() as held:
            if len(portion.parts) + portion.idle > 1:
                with span("forward"):
                    held.enter_context(actor.scorer.holding(records[portion.records]))
            for part in [*portion.parts, *[None] * portion.idle]:
                with span("forward"):
                    loss = loss_of(part) if part else 0.0 * actor.scorer(stand_in).log_probs.sum()
                with span("backward"):
                    loss.backward()
                total += loss.item()
            with span("backward"):
                held.close()  # what the parts have in common
    return sum(everyones(total))


def _share(actor: ChatActor, records: Sequence[Record], at_once: int) -> tuple[Portion, ...]:
    """What this rank does of a gradient step.

    Raises:
        ValueError: some ranks would run the vision tower and some would not, and wait for each other.
    """
    all_shares = shares([record.task_id for record in records], at_once)
    for together in zip(*all_shares, strict=True):
        seen = [
            any(turn.visuals for record in records[portion.records] for turn in record.turns)
            for portion in together
        ]
        if not actor.model.vision_frozen and len(set(seen)) > 1:
            raise ValueError(
                "of the tasks of a gradient step some show frames and some show none at all, which ranks "
                "that train a vision tower cannot divide; set freeze_vision"
            )
    return all_shares[rank()]


def step(
    parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, loss: float, most: float
) -> float:
    """Step with the gradients that are there, scaled down to a norm; returns the norm before.

    Raises:
        RunDiverged: the loss or a gradient is not finite; weights are as before.
    """
    norm = float(assembled(torch.nn.utils.clip_grad_norm_(parameters, most)))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RunDiverged(f"the loss is {loss} and its gradient's norm {norm}")
    optimizer.step()
    optimizer.zero_grad()
    return norm


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The weights that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def tiny_checkpoint(folder: Path, config: ChatConfig, script: Script | None = None, **sizes: Any) -> Path:
    """A checkpoint with random weights whose tokenizer knows the words of the configured episodes.

    Args:
        folder: where it is saved; one that is there is taken as it is.
        config: whose recipe and tasks give the words; its seed is that of the weights.
        script: demonstrates the episodes; None: `agents.demonstrations` does.
        sizes: see `agents.policies.tiny_qwen.build_tiny_qwen`.
    """
    if not (folder / "config.json").exists():
        env = VideoQAEnv(config.tasks, config.rules, video_root=config.root)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
            build_tiny_qwen(unfinished, corpus(env, script), seed=config.seed, **sizes)
            Path(unfinished).chmod(0o755)  # temporary folders are closed to others
            Path(unfinished).rename(folder)
            Path(unfinished).mkdir()
    return folder


def corpus(env: VideoQAEnv, script: Script | None = None, episodes: int = 64) -> list[str]:
    """Texts of some demonstrated episodes, and the whole numbers up to the length of a video."""
    grammar, texts = get_grammar(env.recipe.grammar), []
    speak = script or Demonstrator(grammar, seed=0)
    for seed in range(episodes):
        env.reset(seed=seed)
        if script is None and not env.state.task.evidence:  # nothing to demonstrate a look at
            env.step(Answer(env.state.task.answer))
        while not env.state.terminated:
            env.step(grammar.parse(speak(env.state).text, env.state))
        for message in grammar.messages(env.state):
            texts += [f"{message.role}\n", message.text]
        texts += [f" {number}" for number in range(round(env.state.video.duration_s) + 1)]
    return texts


def training_parser(
    about: str | None, config_class: type[ChatConfig], out: Path
) -> argparse.ArgumentParser:
    """What the command of a training loop reads; a server can sample for loops that play."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out, help="folder; gone on with if it holds a run")
    if "collector" in {option.name for option in fields(config_class)}:
        about_server = "of a vLLM that samples, see agents.engines.vllm_server; by default the model does"
        parser.add_argument("--server", metavar="URL", default="", help=about_server)
    add_options(parser, config_class)
    return parser


@reported
def command_line(
    about: str | None,
    config_class: type[M],
    train: Callable[[M, ChatActor, Path, bool], TrainingRun],
    out: Path,
) -> None:
    """The command of a training loop: from one checkpoint to another.

    Args:
        about: what ``--help`` says.
        config_class: every field of it is an option.
        train: called with config, actor, folder and whether to show progress.
        out: the folder by default; the trained checkpoint is its ``model``.
    """
    parser = training_parser(about, config_class, out)
    arguments = parser.parse_args()
    config = read_config(parser, config_class, vars(arguments))
    server: str = getattr(arguments, "server", "")
    if server and (launched() or getattr(config, "collector", "local") == "ray"):
        parser.error(
            "--server is for one process that trains: without torchrun and without --collector ray"
        )
    quiet_libraries()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    join(config.device)
    if not config.checkpoint:
        arguments.out.mkdir(parents=True, exist_ok=True)
        made = from_first(lambda: str(tiny_checkpoint(arguments.out / "tiny", config)))
        config = replace(config, checkpoint=made)
    try:
        model = make_model(config, FrameStore(video_root=config.root, open_videos=64))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())  # transformers says it in several lines
        parser.error(f"--checkpoint {config.checkpoint} is no model that can be loaded: {why}")
    try:
        actor = make_actor(config, model, server)
    except (EngineError, ValueError) as error:
        parser.error(f"--server: {error}")
    try:
        run = train(config, actor, arguments.out, is_first())
        values = run.evaluated or run.evaluate()
    except EngineError as error:
        if not server:
            raise
        sys.exit(f"{error}\nThe same command goes on with the run in {arguments.out}")
    finally:
        actor.engine.close()
    actor.model.save(str(arguments.out / "model"))
    if is_first():
        told = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        sys.stdout.write(f"{told}\nThe checkpoint is {arguments.out / 'model'}\n")
    leave()
