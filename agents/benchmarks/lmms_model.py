"""videogym as a model of lmms-eval, ``--model videogym``: every request is an episode.

The prompt is the task's own, word for word. The frames are the recipe's, from the video that the prompt
names. The final answer goes back as the response. Prompts, extraction, judges and aggregation stay
lmms-eval's. What cannot be played is taken out of lmms-eval's table and counted apart.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages, ChatVideoContent
from loguru import logger
from tqdm import tqdm

from videogym import Task
from videogym.grammars import compared, load_prompt
from videogym.observations import check_text_lengths
from videogym.traces import TraceError
from videogym.video import UnfitVideo

from ..engines.base import EngineError
from .players import Played, config_from, make_player
from .questions import make_task, response
from .store import OtherRun, TraceStore

_NAMED = 5  # questions that are named


class NotAnEpisode(ValueError):
    """A task of lmms-eval asks what is no question about one whole video, or cannot read its own rows."""


class Absent(ValueError):
    """A question that cannot be played: its video is not there, or its prompt is too long."""


class VideoGym(lmms):  # type: ignore[misc]
    """The model. Its arguments are the `players.OPTIONS`, see `BenchmarkConfig`.

    Raises:
        ValueError: an argument is unknown or cannot be meant, or the folder of traces is another run's.
        EngineError: the server is out of reach, or of an untested version.
        OSError: a file is missing.
    """

    is_simple = False

    def __init__(
        self,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if batch_size not in (None, 1, "1") or max_batch_size is not None:
            raise ValueError(
                f"episodes in play together are max_concurrent_rollouts, not batch_size {batch_size!r}"
            )
        number = int(os.environ.get("RANK", 0))
        self.config = config_from({**arguments, "device": _own_device(device or "cpu")})
        self.device = torch.device(self.config.model.device)  # lmms-eval gathers numbers on it
        self._store = TraceStore(Path(self.config.traces), self.config.settings(), number)
        if self.config.prompt_file and number == 0:
            for line in compared(load_prompt(self.config.prompt_file)):
                logger.info(f"videogym: {self.config.prompt_file}, {line}")
        self._player = make_player(self.config, number)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> VideoGym:
        """The model of ``--model_args``.

        Raises:
            SystemExit: an argument cannot be meant; the one line says why. After any other exception
                lmms-eval would end as if nothing had happened.
        """
        try:
            made: VideoGym = super().create_from_arg_string(arg_string, additional_config)
        except (ValueError, OSError, ImportError, EngineError) as error:
            raise SystemExit(f"videogym: {error}") from error
        return made

    def generate_until(self, requests: Sequence[Instance]) -> Iterator[GenerationResult | None]:
        """The responses, in order, each as soon as its episode has ended.

        lmms-eval caches a response before it asks for the next, so that a stopped run loses nothing that
        was played. A request that cannot be played gives None and is taken out of its task.

        Raises:
            SystemExit: a request asks about no video, about several, or about pictures, or a row is not
                what its task expects.
        """
        tasks: dict[str, Task] = {}
        left_out: dict[str, str] = {}
        try:
            for request in requests:
                name = _name(request)
                if name in tasks or name in left_out:
                    continue  # asked for twice, or to keep processes in step
                try:
                    tasks[name] = _task(name, request, self.task_dict)
                except Absent as error:
                    left_out[name] = str(error)
        except NotAnEpisode as error:
            raise SystemExit(f"videogym: {error}") from error
        return self._responses(requests, tasks, left_out)

    def _responses(
        self, requests: Sequence[Instance], tasks: Mapping[str, Task], left_out: dict[str, str]
    ) -> Iterator[GenerationResult | None]:
        begun, tokens = time.perf_counter(), 0
        results: dict[str, GenerationResult | None] = dict.fromkeys(left_out)
        playing = self._play(list(tasks.values()))
        for number, request in enumerate(tqdm(requests, "episodes", disable=self.rank != 0), start=1):
            while (name := _name(request)) not in results:
                played = next(playing)
                result = results[played.task.task_id] = _result(played)
                tokens += (result and result.token_counts.output_tokens) or 0
                if played.trace is None:
                    left_out[played.task.task_id] = played.cause
            if results[name] is None:
                _take_out(request)
            if number == len(requests):  # not after the loop: with a cache nobody asks for more than these
                self._store.leave_out(left_out)
                _tell(len(results), left_out, self._store.folder)
                seconds = time.perf_counter() - begun
                log_metrics(seconds, tokens, tokens / seconds, {"episodes": len(results)})
            yield results[name]

    def _play(self, tasks: Sequence[Task]) -> Iterator[Played]:
        """One episode of every task, those that are stored first."""
        try:
            stored = [Played(task, trace) for task in tasks if (trace := self._store.get(task))]
            yield from stored
            known = {played.task.task_id for played in stored}
            for played in self._player.play([task for task in tasks if task.task_id not in known]):
                if played.trace is not None:
                    self._store.add(played.trace)
                yield played
        except (EngineError, TraceError, OtherRun, OSError) as error:
            raise SystemExit(
                f"videogym: {error}\nvideogym: {len(self._store)} episodes are in {self._store.folder}; "
                "the same command continues from there"
            ) from error

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not for episodes.

        Raises:
            SystemExit: always.
        """
        raise SystemExit("videogym: an episode ends in an answer; tasks by loglikelihood cannot be played")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not for episodes.

        Raises:
            SystemExit: always.
        """
        raise SystemExit("videogym: rounds are the recipe's; tasks of several rounds cannot be played")


def _own_device(device: str) -> str:
    """Of several GPUs each process has its own."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def _name(request: Instance) -> str:
    return f"{request.task_name}/{request.doc_id}"


def _task(name: str, request: Instance, documents: Mapping[str, Any]) -> Task:
    """The question of a request.

    Raises:
        NotAnEpisode: it is none about one whole video, or the task cannot read its row.
        Absent: it cannot be played.
    """
    _, doc_to_messages, _, doc_id, task_name, split = request.args
    document = documents[task_name][split][doc_id]
    owner = getattr(doc_to_messages, "__self__", None)
    with _readable(name, document):
        messages = _messages(doc_to_messages, document)
        target = owner.doc_to_target(document) if owner is not None else None
    video, prompt = _asked(name, messages)
    if not os.path.isfile(video):
        raise Absent(f"{video}: no such file")
    task = make_task(name, video, prompt, target, document, task_name)
    try:
        check_text_lengths(task)
    except (ValueError, UnfitVideo) as error:
        raise Absent(str(error)) from error
    return task


@contextlib.contextmanager
def _readable(name: str, document: Mapping[str, Any]) -> Iterator[None]:
    """What a task's own code raises at a row of another version becomes a line that names the fields.

    lmms-eval itself prints a traceback and ends with status 0.

    Raises:
        NotAnEpisode: the row is not what the task expects.
    """
    try:
        yield
    except Absent:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotAnEpisode(
            f"{name}: the task cannot read its row ({type(error).__name__}: {error}), which has the fields "
            f"{', '.join(map(str, document))}; is it of another version of the benchmark?"
        ) from error


def _messages(doc_to_messages: Any, document: Mapping[str, Any]) -> ChatMessages:
    """What a task asks.

    Raises:
        Absent: the task itself says that a file is missing, in the ways that lmms-eval's tasks do.
    """
    try:
        return ChatMessages(messages=doc_to_messages(document))
    except (SystemExit, OSError) as error:
        raise Absent(str(error)) from error
    except AssertionError as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        if "exists" not in line:
            raise
        raise Absent(f"a file is missing: {line}") from error


def _asked(name: str, messages: ChatMessages) -> tuple[str, str]:
    """The video's path, and all texts.

    Raises:
        NotAnEpisode: there is no video, or something else beside it.
    """
    contents = [content for message in messages.messages for content in message.content]
    videos = [content for content in contents if isinstance(content, ChatVideoContent)]
    shown = [content for content in contents if content.type != "text"]
    if len(videos) != 1 or len(shown) != 1 or not isinstance(videos[0].url, str | os.PathLike):
        kinds = ", ".join(content.type for content in shown) or "nothing"
        raise NotAnEpisode(f"{name} shows {kinds}; an episode is about one video in a file")
    if videos[0].start_time is not None or videos[0].end_time is not None:
        raise NotAnEpisode(f"{name} asks about a part of its video; an episode is about the whole")
    texts = [content.text for content in contents if content.type == "text" and content.text]
    return os.fspath(videos[0].url), "\n".join(texts)


def _result(played: Played) -> GenerationResult | None:
    if played.trace is None:
        return None
    cost = played.trace.cost
    counts = TokenCounts(cost.tokens_in, cost.tokens_out) if cost else TokenCounts()
    return GenerationResult(response(played.trace), counts)


def _take_out(request: Instance) -> None:
    """Leave a request out of its task's metrics: lmms-eval passes over documents without one."""
    owner = getattr(request.args[1], "__self__", None)
    if owner is not None:
        owner.instances[:] = [one for one in owner.instances if one is not request]


def _tell(count: int, left_out: Mapping[str, str], folder: Path) -> None:
    if left_out:
        some = "".join(f"\n  {name}: {cause}" for name, cause in list(left_out.items())[:_NAMED])
        logger.error(
            f"videogym: {len(left_out)} of {count} questions could not be played and are NOT in the table "
            f"below, neither right nor wrong; all are in {folder}/left_out_*.json:{some}"
        )
    logger.info(f"videogym: traces of the episodes are in {folder}: videogym report {folder}")
