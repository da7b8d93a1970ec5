"""Trained policies, loaded by the path of their checkpoint.

A checkpoint knows what it was trained under, see `agents.training.provenance`, so a path is enough:

    policy = load_policy("runs/ppo")
    print(videogym.evaluate(policy, policy.make_env(), episodes=100))

A path is the folder of a run, one of its checkpoints, or the folder of a language model.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

from videogym import FrameStore, Recipe, TextActions, VideoQAEnv, evaluate, get_recipe
from videogym.results import describe_run, result_text
from videogym.video import UnfitVideo, VideoError

from . import train_grpo, train_ppo
from .compact.discrete import Acting, DiscretePolicy
from .compact.network import CompactPolicy
from .compact.run import RunConfig, make_env
from .training.archive import UnreadableCheckpoint, load_archive
from .training.options import options_of
from .training.provenance import CARRIED, options_of_run, read_provenance, recipe_of, require_recipe
from .training.staging import whole_file
from .vlm.actor import ChatActor
from .vlm.chat import Chat
from .vlm.config import ChatConfig
from .vlm.env import NoRoom, had_no_room, replied, require_room
from .vlm.evaluation import greedy
from .vlm.policy import load_trained, make_actor
from .vlm.records import Record, fingerprint
from .vlm.responder import with_model

_COMPACT: dict[str, type[RunConfig]] = {"train_ppo": train_ppo.Config, "train_grpo": train_grpo.Config}


@dataclass(frozen=True)
class ActingConfig(ChatConfig):
    """What a language model that is not trained needs to know."""

    trains: ClassVar[bool] = False


class LoadedPolicy:
    """A policy as `videogym.evaluate` calls it, by its likeliest outputs, and what it was trained under.

    Attributes:
        config: the options of its run; of a language model those that an evaluation has.
        trained: all that the checkpoint says, see `agents.training.provenance.provenance`.
    """

    def __init__(self, act: Any, config: RunConfig | ActingConfig, trained: Mapping[str, Any]) -> None:
        self._act, self.config, self.trained = act, config, trained

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any], env: Any) -> Any:
        """An action of the environment that `make_env` makes.

        Args:
            observation: of it.
            info: likewise.
            env: the unwrapped one.
        """
        return self._act(observation, info, env)

    def make_env(self, tasks: str = "") -> gymnasium.Env[Any, Any]:
        """An environment in which it acts.

        Args:
            tasks: their source; "": the held-out tasks of its run.
        """
        config = self.config
        tasks = tasks or self.trained["config"]["eval_tasks"]
        if isinstance(config, RunConfig):
            return make_env(config, tasks)
        recipe, act = config.rules, self._act
        if isinstance(act, Speaking):  # looks may be described by its own weights
            recipe = with_model(recipe, act.actor.model)
        return TextActions(VideoQAEnv(tasks, recipe, video_root=config.root))


def load_policy(
    path: str | os.PathLike[str],
    policy: DiscretePolicy | None = None,
    recipe: Recipe | None = None,
    **options: Any,
) -> LoadedPolicy:
    """The policy of a checkpoint.

    Args:
        path: see the top of this file.
        policy: one of your own class, which is given the checkpoint's weights; a compact policy of ours and
            a language model are made by themselves.
        recipe: in place of the one it was trained under, where that was one of your own.
        options: in place of those of its run, by name, such as ``video_root``.

    Raises:
        UnreadableCheckpoint: it is damaged, does not say what it was trained under, or its recipe is none
            that there is.
        TypeError: there is no such option.
        ValueError: it is no model that can be loaded.
        OSError: it cannot be read.
    """
    folder = Path(path)
    trained = read_provenance(folder)
    if trained is None:
        raise UnreadableCheckpoint(f"{folder} does not say what it was trained under")
    config = _config(folder, trained, recipe or recipe_of(trained))
    if recipe is None:
        require_recipe(trained, config)
    config = config.with_options(**options)
    if isinstance(config, RunConfig):
        return _compact(folder, trained, config, policy)
    if policy is not None:
        raise ValueError(f"{folder} is a language model, and needs no policy to be given")
    model = load_trained(config, FrameStore(video_root=config.root))
    return LoadedPolicy(Speaking(config, make_actor(config, model)), config, trained)


def _config(path: Path, trained: Mapping[str, Any], recipe: Recipe) -> RunConfig | ActingConfig:
    options = options_of_run(trained)
    try:
        if trained["algorithm"] in _COMPACT:
            return _COMPACT[trained["algorithm"]].of(**options, recipe=recipe)
        own = {name: value for name, value in options.items() if name in CARRIED}
        return ActingConfig.of(**own, recipe=recipe, checkpoint=str(path), tasks=options["eval_tasks"])
    except (TypeError, KeyError) as error:
        raise UnreadableCheckpoint(f"{path} has options of another version: {error}") from error


def _compact(
    path: Path, trained: Mapping[str, Any], config: RunConfig, policy: DiscretePolicy | None
) -> LoadedPolicy:
    described = trained.get("policy") or {}
    if policy is None:
        if described.get("kind") != "compact":
            raise UnreadableCheckpoint(f"{path} is of a policy of your own: make one, and give it too")
        policy = CompactPolicy.of(described, FrameStore(video_root=config.root))
    load_archive(path / "checkpoint" if path.is_dir() else path, {"policy": policy})
    acting = Acting(policy)
    return LoadedPolicy(lambda observation, info, _: acting(observation, info), config, trained)


@dataclass
class Speaking:
    """A language model that plays one episode at a time in `videogym.TextActions`.

    What it read and put out is kept by ids, so that it reads what it was trained on.
    """

    config: ActingConfig
    actor: ChatActor

    def __post_init__(self) -> None:
        """Nothing was read."""
        self._record: Record | None = None

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any], env: Any) -> str:
        """The likeliest output; "" in all turns from the one on for which the context has no room.

        Raises:
            VideoError: frames cannot be shown, or the question leaves no room in the context.
        """
        state, form = env.state, self.actor.model.chat_form(self.config.sampling.video_form)
        most = self.config.sampling.max_context
        chat = Chat(self.actor.model.tokenizer, env.recipe.language, form)
        if not state.turns:
            head, turn = chat.opening(state)
            blank = {"group": state.task.task_id, "sample_index": 0, "kind": "rollout"}
            self._record = Record(
                recipe=env.recipe.identity,
                tokenizer=fingerprint(self.actor.model.tokenizer),
                task_id=state.task.task_id,
                head=head,
                window=self.config.sampling.window or None,
                turns=(turn,),
                **blank,  # type: ignore[arg-type]
            )
            try:
                require_room(chat, self._record, most)
            except NoRoom as error:
                raise UnfitVideo(str(error)) from error
        else:
            assert self._record is not None, "it was not there when the episode began"
            if not self._record.done:
                self._record = replied(chat, self._record, state, most)
        if not self._record.done:
            self._record = self._answered(self._record, chat)
        return "" if self._record.done else chat.output_text(self._record.turns[-1].output)

    def _answered(self, record: Record, chat: Chat) -> Record:
        """With one output more; cut where that had no room to end.

        Raises:
            VideoError: frames cannot be shown.
        """
        (record,) = greedy(self.actor)([record])
        self.actor.engine.reset_cache()
        if record.abort_reason:  # the actor cuts a row whose frames break, so that others go on
            raise VideoError(record.abort_reason.removeprefix("fault: "))
        if had_no_room(chat, record, self.config.sampling.max_context):
            return replace(record, abort_reason="context")
        return record


def of_checkpoint(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `agents.evaluate` that a checkpoint of ours knows, by name; those of others are none.

    Raises:
        UnreadableCheckpoint: what it says of its training cannot be read.
        OSError: likewise.
    """
    path = Path(arguments.checkpoint)
    trained = read_provenance(path) if arguments.checkpoint and path.exists() else None
    if trained is None:
        return {}
    options = options_of_run(trained)
    found = {name: options[name] for name in CARRIED if name in options}
    if trained.get("prompt"):
        places = [place / "prompt.toml" for place in (path, path / "model", path.parent)]
        found["prompt_file"] = next((str(place) for place in places if place.is_file()), "")
    home = path if (path / "config.yaml").exists() else path.parent
    found |= {"recipe": trained["recipe"]["name"], "out": home / "evaluation"}
    return found | {"tasks": options["eval_tasks"], "episodes": options["eval_episodes"]}


def is_compact(path: Path) -> bool:
    """Whether a checkpoint is of a policy without a language model."""
    trained = read_provenance(path) if path.exists() else None
    return trained is not None and trained["algorithm"] in _COMPACT


def evaluate_compact(arguments: argparse.Namespace) -> str:
    """Evaluate a policy without a language model, and write ``result.json``.

    Args:
        arguments: of `agents.evaluate`: ``checkpoint``, ``recipe``, ``tasks``, ``episodes``, ``by``,
            ``trained_on`` and ``out``, and of `CARRIED` those that there are without a language model.

    Returns:
        The table.

    Raises:
        ValueError: as `load_policy`, or there is nothing to evaluate.
        OSError: a file cannot be read or written.
    """
    own = {
        option.name: getattr(arguments, option.name)
        for option in options_of(RunConfig)
        if option.name in CARRIED
    }
    policy = load_policy(arguments.checkpoint, recipe=get_recipe(arguments.recipe), **own)
    env = policy.make_env(arguments.tasks)
    report = evaluate(
        policy,
        env,
        episodes=arguments.episodes or None,
        trained_on=arguments.trained_on or None,
        by=[name.strip() for name in arguments.by.split(",") if name.strip()],
    )
    told = {name: getattr(arguments, name) for name in ("checkpoint", "tasks", "episodes", "trained_on")}
    with whole_file(arguments.out / "result.json") as file:
        file.write(result_text(report, describe_run(env, policy=told.pop("checkpoint"), **told)).encode())
    return str(report)
