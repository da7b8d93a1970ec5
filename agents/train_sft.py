"""Supervised fine-tuning on interleaved trajectories: the cold start of a policy that calls for frames.

Examples are `agents.vlm.records`: episodes that a script plays (`agents.demonstrations.evidence`), with
reasoning in varied words and mistakes that get corrected; LongVT's own conversations, played again
(`agents.vlm.replay`); or any file of records, as rejection sampling selects them (`agents.train_rft`).
Conversations about images may stand beside them (`agents.vlm.images`). The loss is the mean negative
log-likelihood of the outputs' tokens. Demonstrated mistakes are read, not imitated.

Run ``python -m agents.train_sft --checkpoint FOLDER --out runs/sft``.

Deviations from LongVT: demonstrations by a script, unless its conversations are at hand; frames as images,
as in its reinforcement learning, where its own fine-tuning shows a video.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from videogym import Task
from videogym.datasets import Mixture, Tasks, read_longvt_images, read_longvt_traces
from videogym.datasets.mixture import MIXTURE_PREFIX, MixturePart, read_parts
from videogym.grammars import get_grammar

from .demonstrations.evidence import Demonstrator, ScriptedPolicy
from .demonstrations.scenes import HastyWords, SceneDemonstrator
from .training.bounds import Bounds, Coefficient, Count, CountOrNone, Share, ShareBelowOne
from .training.options import EvaluationConfig, RuntimeConfig
from .training.provenance import digest_of_weights
from .training.ranks import broadcast_from_rank0, is_first
from .training.run import TrainingRun, optimizer_step
from .vlm.actor import ChatActor
from .vlm.command import command_line
from .vlm.config import TASKS, ChatConfig, OptimizerConfig
from .vlm.env import ChatEnv
from .vlm.evaluation import make_evaluator
from .vlm.images import AboutImages, ImageFiles
from .vlm.lessons import Lessons, Pool, Stored, by_task
from .vlm.packing import in_packs, packed
from .vlm.policy import shard_model, trainable_parameters
from .vlm.records import Record, fingerprint, read_records
from .vlm.replay import Replayed
from .vlm.rollouts import demonstrate, make_chat_env
from .vlm.scoring import MicroBatch

log = logging.getLogger(__name__)
CONVERSATIONS = "longvt-sft:"  # how a source of tasks begins whose rows hold conversations
SCRIPTED = {  # options by the scripts that obey them
    ("scenes",): ("glances", "hasty", "gives_up", "hasty_words", "hasty_look"),
    ("evidence",): ("refused_calls", "look_again"),
    ("evidence", "scenes"): ("per_task", "wrong_looks"),
}
DEMONSTRATING = ("script", "demonstrated_tasks", *(name for names in SCRIPTED.values() for name in names))


@dataclass(frozen=True)
class DemonstrationConfig:
    """Who demonstrates where there are no records, and how."""

    script: Literal["evidence", "scenes", "traces"] = "evidence"
    """Who demonstrates: `agents.demonstrations.evidence`, for all tasks with evidence;
    `agents.demonstrations.scenes`, which says what frames show and teaches a model that cannot see yet; or
    the conversations in the rows of ``tasks``, ``longvt-sft:FILE``, see `agents.vlm.replay`."""
    glances: CountOrNone = 0
    """More demonstrations of each task by the scenes script, which only teach to read a look."""
    hasty: Share = 0.0
    """Share of the scenes script's episodes that begin with a look before the skim was searched, which is
    imitated: demonstrations of mixed quality, see `agents.demonstrations.scenes`."""
    gives_up: Share = 0.0
    """Share of the scenes script's looks without the evidence after which it answers by what it saw."""
    hasty_words: HastyWords = "colour"
    """What is said before a hasty look: what is looked for (colour), or a search that stops too early
    (search)."""
    hasty_look: CountOrNone = 0
    """Length of a hasty look in seconds, or pool frames; 0: as long as the look that ends a search."""
    demonstrated_tasks: CountOrNone = 1000
    """Number of tasks that are demonstrated, the first ones, of a mixture in all; of conversations those
    of each file, 0: all."""
    images: str = ""
    """LongVT's rows for fine-tuning that show images, a file or a mixture of files: learned beside the
    tasks' examples, see `agents.vlm.images`; empty: none."""
    images_share: ShareBelowOne = 0.25
    """Share of a step's tasks that are conversations about images, where there are any."""
    image_max_pixels: Annotated[int, Bounds(784)] = 1_003_520
    """Largest image, in pixels; 1280 tokens of Qwen2.5-VL."""
    per_task: Count = 4
    """Demonstrations per task, in different words; a conversation is played once."""
    wrong_looks: Share = 0.15
    """Share of the script's turns that look in the wrong place first."""
    refused_calls: Share = 0.1
    """Share of the evidence script's turns that make a call which is refused."""
    look_again: bool = False
    """Look also at evidence that the skim already shows, as LongVT's conversations do."""


@dataclass(frozen=True)
class SFTOptimizerConfig(OptimizerConfig):
    """AdamW, beside the highest learning rate."""

    weight_decay: Coefficient = 0.0
    """Weight decay of AdamW."""
    beta2: ShareBelowOne = 0.999
    """Second beta of AdamW; a model that starts from random weights learns faster with a lower one."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate warms up."""
    vision_lr_mult: Coefficient = 1.0
    """Factor of the vision tower's learning rate."""


@dataclass(frozen=True)
class Config(ChatConfig):
    """Everything a run depends on, beside the weights it starts from."""

    engine_version: ClassVar[int] = 1  # a run samples nothing: an evaluation takes the likeliest tokens

    records: str = ""
    """File or folder of examples; empty: a scripted policy demonstrates."""
    demonstrations: DemonstrationConfig = DemonstrationConfig()
    """Who demonstrates where there are no records, and how."""
    iterations: Count = 3000
    """Gradient steps."""
    groups: Count = 4
    """Tasks per gradient step, with all their examples."""
    learning_rate: Coefficient = 5e-5
    """Highest learning rate, falling in a half cosine."""
    pack_tokens: CountOrNone = 0
    """Tokens of a forward and backward pass: whole conversations stand one behind the other, without
    padding, and a longer one by itself; 51,200 in LongVT. 0: not packed, micro_batch_size at a time."""
    evaluation: EvaluationConfig = EvaluationConfig(TASKS.format(count=200, split="val"), eval_every=500)
    """Evaluations while a run trains."""
    runtime: RuntimeConfig = RuntimeConfig(checkpoint_every=500)
    """Where a run reads and writes."""
    optimizer: SFTOptimizerConfig = SFTOptimizerConfig()
    """AdamW, beside the highest learning rate."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: as in `ChatConfig`, an option is given that nothing depends on, shares cannot be
                meant, the tasks have no conversations, or fine-tuning cannot take a mixture.
        """
        super().__post_init__()
        script = self.demonstrations.script
        self._refuse_ignored()
        if script == "scenes":
            demonstrator(self)  # refuses shares that do not add up
        if script == "traces" and not all(
            part.tasks.startswith(CONVERSATIONS) for part, _ in weighted_sources(self.tasks, "tasks")
        ):
            raise ValueError(f"script='traces' needs tasks='{CONVERSATIONS}FILE', got {self.tasks!r}")
        if not self.records:
            _ = weighted_sources(self.tasks, "tasks")
        if self.demonstrations.images:
            _ = image_sources(self)
        # Conversations come to an end, and 0 takes all of them; what a script plays need not.
        if not self.demonstrations.demonstrated_tasks and script != "traces":
            raise ValueError("demonstrated_tasks must be at least 1, got 0: 0 needs script='traces'")

    @property
    def ignored(self) -> dict[str, str]:
        """See `LoopConfig.ignored`."""
        lesson = self.demonstrations
        why = "is for loops that play: examples show what their recipe does"
        found = dict.fromkeys(("first_frames", "allow_untested_vllm"), why)
        if not lesson.images:
            found |= dict.fromkeys(("images_share", "image_max_pixels"), "needs images")
        if self.records:
            return found | dict.fromkeys(DEMONSTRATING, "is for demonstrations, and there are records")
        for scripts, names in SCRIPTED.items():
            if lesson.script not in scripts:
                needed = " or ".join(f"script={name!r}" for name in scripts)
                found |= dict.fromkeys(names, f"needs {needed}, got {lesson.script!r}")
        return found


def train(config: Config, actor: ChatActor, out: Path, progress: bool = False) -> TrainingRun:
    """Train a policy in place.

    Args:
        config: of the run.
        actor: the policy.
        out: folder of the run; resumed if it holds one.
        progress: whether to show a progress bar.

    Raises:
        TrainedOnError: held-out tasks ask about videos of the tasks, the records or the images.
        RecordError: the examples are of another recipe or tokenizer.
        RunDiverged: a loss is not finite.
        CheckpointMismatch: the folder belongs to another kind of run.
    """
    torch.set_num_threads(config.runtime.threads)
    began_with = {"checkpoint": digest_of_weights(actor.model)}
    groups, adamw = weight_groups(config, shard_model(config, actor.model)), config.optimizer
    betas, decay = (0.9, adamw.beta2), adamw.weight_decay
    optimizer = torch.optim.AdamW(groups, config.learning_rate, betas, weight_decay=decay)
    evaluate = make_evaluator(config, actor, lambda: files_learned_from(config, actor))
    run = TrainingRun(config, out, actor.model, optimizer, nn.Module(), evaluate, began_with)
    if run.first_iteration >= config.iterations:
        actor.update_weights()
        return run
    if config.demonstrations.images:
        actor.model.store = ImageFiles(actor.model.store)
    # The first rank alone has the examples: all are told those of a step.
    lessons = make_lessons(config, actor, progress) if is_first() else None
    parameters = trainable_parameters(actor.model)
    for iteration in run.iterations(progress):
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * rate(config, iteration)
        records, micros = in_micro_batches(config, actor, examples_of(config, lessons, iteration))
        count, total = sum(int(learned(record).sum()) for record in records), 0.0
        with run.span("update"):
            for micro in micros:
                loss = nll(micro, records) / count * micro.active
                loss.backward()
                total += loss.item()
            step = optimizer_step(parameters, optimizer, total, config.optimizer.max_grad_norm)
        if run.is_due(iteration, config.evaluation.eval_every):
            actor.update_weights()
        run.end_iteration(iteration, len(records), step)
    actor.update_weights()
    if lessons is not None and (len(lessons.counts) > 1 or config.demonstrations.script == "traces"):
        sys.stderr.write(f"{lessons.counts.total()} conversations: {lessons}\n")
    return run


def examples_of(config: Config, lessons: Lessons | None, iteration: int) -> list[Record]:
    """The examples of a gradient step, by task; of several ranks the first has the lessons."""
    places = range(iteration * config.groups, (iteration + 1) * config.groups)
    tasks = broadcast_from_rank0(lambda: lessons.at(places) if lessons else [])
    return [record for task in tasks for record in task]


def in_micro_batches(
    config: Config, actor: ChatActor, records: list[Record]
) -> tuple[list[Record], Iterator[MicroBatch]]:
    """The records of a gradient step in the order in which they are scored, and their micro-batches."""
    if not config.pack_tokens:
        return records, actor.scorer.micro_batches(records, config.memory.micro_batch_size)
    packs = in_packs(actor.model, records, config.pack_tokens)
    return [record for pack in packs for record in pack], packed(actor.scorer, packs)


def weight_groups(config: Config, model: nn.Module) -> list[dict[str, object]]:
    """Trained weights by learning rate: the vision tower's and the others."""
    vision = [
        weight for name, weight in model.named_parameters() if ".visual." in name and weight.requires_grad
    ]
    known = {id(weight) for weight in vision}
    others = [weight for weight in trainable_parameters(model) if id(weight) not in known]
    groups: list[dict[str, object]] = [{"params": others, "full_lr": config.learning_rate}]
    if vision:
        groups.append({"params": vision, "full_lr": config.learning_rate * config.optimizer.vision_lr_mult})
    return groups


def rate(config: Config, iteration: int) -> float:
    """Factor of the learning rate: a rise, then a half cosine towards 0."""
    rise = config.optimizer.warmup * config.iterations
    if iteration < rise:
        return (iteration + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (iteration - rise) / (config.iterations - rise)))


def make_lessons(config: Config, actor: ChatActor, progress: bool) -> Lessons:
    """The configured examples by step; what stands in files is played when its step comes.

    Raises:
        RecordError: there is nothing to learn from, or stored examples are of another recipe or tokenizer.
    """
    lesson = config.demonstrations
    # What can be refused comes first: a script plays for minutes.
    images = image_pools(config, actor) if lesson.images else []
    pools = own_pools(config, actor, progress)
    if images:
        pools = [(pool, share * (1 - lesson.images_share)) for pool, share in pools]
        pools += [(pool, share * lesson.images_share) for pool, share in images]
    return Lessons(pools, config.seed, actor.model.store)


def own_pools(config: Config, actor: ChatActor, progress: bool) -> list[tuple[Pool, float]]:
    """Stored examples, conversations that are played again, or those of a script, with their shares."""
    lesson = config.demonstrations
    if config.records or lesson.script != "traces":
        examples = load_examples(config, actor, progress)
        return [(Stored(by_task(some)), share) for some, share in examples]
    env = make_chat_env(config, actor.model, config.tasks)
    pools: list[tuple[Pool, float]] = []
    for part, share in weighted_sources(config.tasks, "tasks"):
        traces = read_longvt_traces(part.tasks.removeprefix(CONVERSATIONS))
        traces = [trace for trace in traces if part.takes(trace.task)]
        pools.append((Replayed(env, traces[: lesson.demonstrated_tasks or None]), share))
    return pools


def image_pools(config: Config, actor: ChatActor) -> list[tuple[Pool, float]]:
    """Conversations about images, with their shares."""
    env = make_chat_env(config, actor.model, config.evaluation.eval_tasks)  # its tasks are of no matter
    most = config.demonstrations.image_max_pixels
    return [
        (AboutImages(env, read_longvt_images(part.tasks), part.video_root or config.root, most), share)
        for part, share in image_sources(config)
    ]


def image_sources(config: Config) -> list[tuple[MixturePart, float]]:
    """The files of images with their shares.

    Raises:
        ValueError: as `weighted_sources`, or a part chooses by metadata, which rows of images lack.
    """
    sources = weighted_sources(config.demonstrations.images, "images")
    for part, _ in sources:
        if part.where:
            raise ValueError(
                f"images: rows of images have no metadata to choose by: leave where={part.where.to_json()} "
                f"out of the part {part.tasks!r}"
            )
    return sources


def weighted_sources(source: str, option: str) -> list[tuple[MixturePart, float]]:
    """The parts of a mixture with their shares, or one source as the only part.

    Args:
        source: of tasks or images.
        option: that it was given by.

    Raises:
        ValueError: as `read_parts`, or weights change with the iteration, which is for loops that play.
    """
    parts = read_parts(source) if source.startswith(MIXTURE_PREFIX) else [MixturePart(source)]
    weights = [part.weight for part in parts if not isinstance(part.weight, tuple)]
    if len(weights) < len(parts):
        raise ValueError(
            f"{option}: fine-tuning takes weights that stay: a weight by iteration is for GRPO and PPO"
        )
    return [(part, weight / sum(weights)) for part, weight in zip(parts, weights, strict=True)]


def files_learned_from(config: Config, actor: ChatActor) -> Iterator[str]:
    """Videos and images that stored examples, and conversations about images, show."""
    if config.records:
        for record in stored_examples(config, actor):
            yield from {visual.video for turn in record.turns for visual in turn.visuals}
    for part, _ in image_sources(config) if config.demonstrations.images else ():
        for conversation in read_longvt_images(part.tasks):
            for message in conversation.messages:
                yield from (text for kind, text in message.parts if kind == "image")


def stored_examples(config: Config, actor: ChatActor) -> Iterator[Record]:
    """The named records.

    Raises:
        RecordError: they are of another recipe or tokenizer.
    """
    return read_records(Path(config.records), config.rules.identity, fingerprint(actor.model.tokenizer))


def load_examples(config: Config, actor: ChatActor, progress: bool) -> list[tuple[list[Record], float]]:
    """Stored examples, or those of the configured script, by parts of the tasks with their shares."""
    if config.records:
        return [(list(stored_examples(config, actor)), 1.0)]
    env, lesson = make_chat_env(config, actor.model, config.tasks), config.demonstrations
    examples = []
    for tasks, share in parts_of(env.env.tasks):
        ids = [task.task_id for task in tasks[: math.ceil(lesson.demonstrated_tasks * share)]]
        examples.append((demonstrations(config, env, ids, progress), share))
    if not any(turn.looked for some, _ in examples for record in some for turn in record.turns):
        log.warning(
            "none of %d demonstrations looks: the skim shows all evidence, and a policy that imitates them "
            "never calls for frames; set look_again, or take a recipe with a smaller skim",
            sum(len(some) for some, _ in examples),
        )
    return examples


def demonstrations(config: Config, env: ChatEnv, ids: Sequence[str], progress: bool) -> list[Record]:
    """What the configured script plays of some tasks."""
    lesson = config.demonstrations
    scripts = [(demonstrator(config), lesson.per_task)]
    if lesson.glances:
        scripts.append((demonstrator(config, glances=1.0), lesson.glances))
    played = (
        record for i in ids for script, count in scripts for record in demonstrate(env, script, [i], count)
    )
    total = len(ids) * (lesson.per_task + lesson.glances)
    return list(tqdm(played, "demonstrations", total, disable=not progress))


def parts_of(tasks: Tasks) -> list[tuple[Sequence[Task], float]]:
    """Tasks by the parts of a mixture, each with its share; all of them, where they are none."""
    if not isinstance(tasks, Mixture):
        return [(tasks, 1.0)]
    starts = accumulate(tasks.sizes, initial=0)
    return [
        (tasks[start : start + size], share)
        for start, size, share in zip(starts, tasks.sizes, tasks.shares, strict=False)
    ]


def demonstrator(config: Config, glances: float = 0.0) -> ScriptedPolicy:
    """The configured script."""
    grammar, lesson = get_grammar(config.rules.grammar), config.demonstrations
    if lesson.script == "scenes" and glances:
        return SceneDemonstrator(grammar, config.seed, wrong_looks=0.0, glances=glances)
    if lesson.script == "scenes":
        return SceneDemonstrator(
            grammar,
            config.seed,
            wrong_looks=lesson.wrong_looks,
            hasty=lesson.hasty,
            gives_up=lesson.gives_up,
            hasty_words=lesson.hasty_words,
            hasty_look=lesson.hasty_look,
        )
    return Demonstrator(
        grammar,
        config.seed,
        wrong_looks=lesson.wrong_looks,
        refused_calls=lesson.refused_calls,
        look_again=lesson.look_again,
    )


def learned(record: Record) -> Tensor:
    """(T,) bool of the tokens of all outputs, true on those that are to be imitated."""
    return torch.tensor([turn.trainable for turn in record.turns for _ in turn.output], dtype=torch.bool)


def nll(micro: MicroBatch, records: Sequence[Record]) -> Tensor:
    """Negative log-likelihood of what a micro-batch of the records is to imitate, summed over tokens."""
    mask = torch.cat([learned(record) for record in records[micro.place]])
    return -micro.scored.log_probs[mask.to(micro.scored.log_probs.device)].sum()


if __name__ == "__main__":
    command_line(__doc__, Config, train, Path("runs/sft"))
