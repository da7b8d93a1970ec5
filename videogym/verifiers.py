"""Episodes for verifiers: a taskset, and the environment in which an agent plays its tasks.

The policy is a chat model: it reads questions and frames as messages with images, and writes the text of
a grammar, as everywhere in videogym. Episodes are played in the process of the evaluation or trainer, one
for each rollout. verifiers finds environments by the name of a top-level module; ``examples/peers`` has it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from videogym.env import DEFAULT_TASKS, VideoQAEnv
from videogym.grammars import FramePart, Message, TextPart
from videogym.rewards import RewardError, answered_right
from videogym.serving import IMAGE_TYPE, SharedEnvs, as_base64_jpeg
from videogym.sizes import frame_size
from videogym.video import VideoError
from videogym.wrappers import TextActions

try:
    import httpx
    import verifiers.v1 as vf
    from verifiers.v1.dialects.chat import message_to_wire
except ImportError as error:
    raise ImportError("this needs verifiers: pip install 'videogym[verifiers]'") from error


class VideoTasksetConfig(vf.TasksetConfig):
    """What is played: ``--env.taskset.tasks`` and so on."""

    tasks: str = DEFAULT_TASKS
    """Source of tasks, see `videogym.datasets.load_tasks`."""
    recipe: str = "DEFAULT"
    """Name of a recipe."""
    grammar: str | None = None
    """Name of a grammar; None: the recipe's."""
    video_root: str | None = None
    """Folder below which relative video paths lie."""
    traces: str | None = None
    """JSONL file to which every episode is appended, in videogym's format."""


class VideoTask(vf.Task[vf.TaskData]):
    """One question, by its id; what is asked and shown comes from the episode."""

    @property
    def key(self) -> str:
        """The task's own id."""
        return str(self.data.id)


class VideoTaskset(vf.Taskset[VideoTask, VideoTasksetConfig]):
    """The tasks of a source, in its order."""

    def __init__(self, config: VideoTasksetConfig) -> None:
        super().__init__(config)
        self.envs = SharedEnvs(
            config.tasks, config.recipe, video_root=config.video_root, traces=config.traces
        )

    def load(self) -> Iterator[VideoTask]:
        """One task for each of the source; no video is opened."""
        for task in self.envs.tasks:
            yield VideoTask(vf.TaskData(id=task.task_id, name=task.task_id), self.config.task)


class VideoHarnessConfig(vf.HarnessConfig):
    """The harness has no options of its own."""


class VideoHarness(vf.Harness[VideoHarnessConfig]):
    """A chat model and nothing around it, in this process: one request for each turn of the episode."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask the model for its next output."""
        _, conversation = self.resolve_prompt(data)
        body = {"model": ctx.model, "messages": [message_to_wire(message) for message in conversation]}
        async with httpx.AsyncClient(timeout=None) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
            )
        told = "" if answer.is_success else answer.text
        return vf.ProgramResult(exit_code=0 if answer.is_success else 1, stdout="", stderr=told)


class VerifiersEnvConfig(vf.EnvConfig):
    """One agent plays; ``--env.player.*`` says which."""

    player: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The policy; its program, `VideoHarness`, runs nothing, so it needs no container."""


class VerifiersEnv(vf.Env[VerifiersEnvConfig]):
    """An episode for each rollout: the environment asks, the agent writes, until it has answered.

    The trace gets the reward ``episode``, what the recipe pays for the whole of it, and metrics: one for
    each reward term that applied, and ``is_success``, ``turns``, ``frames_shown``, ``invalid_turns``.

    An episode that nobody can score is no reward but an error of its rollout, with which verifiers leaves
    it out: frames of a look could not be had (`VideoError`), or the judge abstained (`RewardError`).
    """

    async def run(self, task: VideoTask, agents: vf.Agents) -> None:
        """Play one episode; one that the agent leaves, at a limit say, is settled without an answer."""
        config, envs = self.taskset.config, self.taskset.envs
        episode = _Episode(TextActions(envs.make(), config.grammar))
        try:
            messages = await asyncio.to_thread(episode.begin, task.data.id)
            async with agents.player.interaction(task) as interaction:
                while messages:
                    segment = await interaction.turn(messages)
                    if segment.terminated:
                        await asyncio.to_thread(episode.leave)
                        break
                    messages = await asyncio.to_thread(episode.play, _written(segment.messages))
                episode.require_judged()
        finally:
            await asyncio.to_thread(episode.close)
        interaction.trace.record_reward("episode", episode.reward)
        interaction.trace.record_metrics(episode.metrics)


class _Episode:
    """An episode as messages that a chat model is sent.

    A rollout that is cancelled leaves the thread of its turn running; `close` waits for that turn.
    """

    def __init__(self, env: TextActions) -> None:
        inner = env.unwrapped
        assert isinstance(inner, VideoQAEnv)
        self._env, self._inner, self._sent = env, inner, 0
        self._turns: list[tuple[float, dict[str, Any]]] = []  # what each paid, and its info
        self._turn = threading.RLock()  # `leave` plays

    def begin(self, task_id: str) -> list[Any]:
        with self._turn:
            self._env.reset(options={"task_id": task_id})
            return self._news()

    def play(self, text: str) -> list[Any]:
        """The messages after an output; none when the episode is over.

        Raises:
            VideoError: the frames of a look could not be had.
        """
        with self._turn:
            return self._played(text)

    def _played(self, text: str) -> list[Any]:
        _, reward, _, _, info = self._env.step(text)
        self._turns.append((reward, info))
        if info["fault"]:
            raise VideoError(f"task {info['task_id']!r}: {info['fault']}")
        try:
            return [] if self._inner.state.terminated else self._news()
        except VideoError as error:
            self._inner.report_fault(str(error))  # for the trace
            raise VideoError(f"task {info['task_id']!r}: {error}") from error

    def leave(self) -> None:
        """Spend the turns that are left: the recipe settles an episode that has ended."""
        with self._turn:
            while not self._inner.state.terminated:
                self.play("")

    def require_judged(self) -> None:
        """Refuse an episode that has no reward.

        Raises:
            RewardError: the judge abstained.
        """
        _, last = self._turns[-1]
        paid = float(last["reward_terms"]["answer"]) if last["reward_present"].get("answer") else None
        if answered_right(self._inner.recipe.terms, paid, self._inner.state) is None:
            raise RewardError(f"task {last['task_id']!r}: the judge abstained, so there is no reward")

    def close(self) -> None:
        with self._turn:
            self._env.close()

    @property
    def reward(self) -> float:
        """What was paid so far."""
        return sum((reward for reward, _ in self._turns), 0.0)

    @property
    def metrics(self) -> dict[str, float]:
        """Sums of the terms that applied, and how the episode went."""
        _, last = self._turns[-1]
        present = [
            (name, float(value))
            for _, info in self._turns
            for name, value in info["reward_terms"].items()
            if info["reward_present"][name]
        ]
        sums = {name: sum(value for other, value in present if other == name) for name, _ in present}
        return sums | {
            "is_success": float(last["is_success"]),
            "turns": float(len(self._turns)),
            "frames_shown": float(last["frames_shown"]),
            "invalid_turns": float(sum(bool(info["invalid"]) for _, info in self._turns)),
        }

    def _news(self) -> list[Any]:
        """The messages since the last ones that were sent, without the model's own."""
        messages = self._env.messages
        news = [self._typed(message) for message in messages[self._sent :] if message.role != "assistant"]
        self._sent = len(messages)
        return news

    def _typed(self, message: Message) -> Any:
        kind = vf.SystemMessage if message.role == "system" else vf.UserMessage
        return kind(content=list(self._parts(message)))

    def _parts(self, message: Message) -> Iterator[Any]:
        for look, parts in groupby(message.parts, key=_look):
            if look is None:
                text = "".join(part.text for part in parts if isinstance(part, TextPart))
                yield vf.TextContentPart(text=text)
                continue
            times_s = [part.time_s for part in parts if isinstance(part, FramePart)]
            for pixels in self._pixels(look, times_s):
                url = f"data:{IMAGE_TYPE};base64,{as_base64_jpeg(pixels)}"
                yield vf.ImageUrlContentPart(image_url=vf.ImageUrlSource(url=url))

    def _pixels(self, look: tuple[Any, Any], times_s: list[float]) -> Any:
        region, scale = look
        state, box = self._inner.state, region.as_tuple() if region else None
        size = frame_size(state.video, state.rules, region, scale)
        return self._inner.store.frames(state.task.video, times_s, size=size, region=box).pixels


def _look(part: Any) -> tuple[Any, Any] | None:
    """Region and scale of a frame; None for a text."""
    return (part.region, part.scale) if isinstance(part, FramePart) else None


def _written(messages: Sequence[Any]) -> str:
    """What the model wrote, as it wrote it."""
    return "".join(message.content or "" for message in messages if message.role == "assistant")
