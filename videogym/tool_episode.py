"""An episode as tools: what to call, and what comes back as text and frames.

For the protocols by which programs offer tools to language models: MCP, and trainers that take an
environment's methods for tools. A call becomes the text that a model would have written in the
grammar, so it is read, judged, paid and stored like any other output. Which protocol asks is not
known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from videogym.actions import Answer
from videogym.env import VideoQAEnv
from videogym.grammars import Grammar, Message, TextPart, get_grammar, prompted, with_subtitles
from videogym.grammars.conversation import question_text
from videogym.grammars.longvt import video_name
from videogym.grammars.tool_calls import write_call
from videogym.sizes import clip_size
from videogym.state import Clip, Invalid, Move, State, told_bounds
from videogym.video import VideoError

ANSWER_TOOL = "answer"
_ANSWER_TOOL = {
    "type": "function",
    "function": {
        "name": ANSWER_TOOL,
        "description": "Give the final answer. This ends the episode.",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "The answer"}},
            "required": ["text"],
            "additionalProperties": False,
        },
    },
}
_FORM = {
    "choice": "Answer with the letter of one option.",
    "numeric": "Answer with a number.",
    "open": "Answer in a few words.",
}

ToolPart = str | NDArray[np.uint8]  # a text, or a frame (H, W, 3)


@dataclass(frozen=True)
class ToolReply:
    """What a call brought, to be read in order: every frame follows its time."""

    parts: tuple[ToolPart, ...]
    error_code: str = ""  # of a call that was not executed; the parts say why

    @property
    def text(self) -> str:
        """The texts, one a line; frames leave no trace."""
        return "\n".join(part for part in self.parts if isinstance(part, str))


class ToolEpisode:
    """Episodes of an environment, played by tool calls, one after the other.

    Every call is a turn. Times are told whatever the recipe, and frames have the recipe's pixel budget.
    Where the recipe has a prompt, its system text and its question ask, with the times that they tell;
    replies stay those of tools.
    Parallel calls of one turn are not offered. `begin` comes first.

    Attributes:
        tools: schemas in OpenAI's function format: the grammar's, and ``answer`` where it has none.
        rewards: what each turn of the episode paid.
        info: of the last step.

    Args:
        env: a videogym environment that takes moves: plain, or in wrappers that change no action.
        grammar: a grammar or its name; None: the recipe's if that has tools, else ``"native"``.

    Raises:
        ValueError: the environment is none of ours, or the grammar is unknown or has no tools.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], grammar: str | Grammar | None = None) -> None:
        inner = env.unwrapped
        if not isinstance(inner, VideoQAEnv):
            raise ValueError(f"tools are those of a videogym environment, got {type(inner).__name__}")
        self._env, self._inner, rules = env, inner, inner.recipe.rules
        self._prompt = inner.recipe.prompt
        self._grammar: Grammar = get_grammar(grammar or inner.recipe.grammar)
        if grammar is None and not self._grammar.tools(rules) and self._prompt is None:
            self._grammar = get_grammar("native")
        self.tools = [_plain(tool) for tool in self._grammar.tools(rules)]
        if not self.tools:
            prompt = ", and the recipe's prompt speaks of them" if self._prompt else ""
            raise ValueError(f"the grammar {self._grammar.name!r} has no tools; it writes tags{prompt}")
        names = [tool["function"]["name"] for tool in self.tools]
        self._answers_by_tag = ANSWER_TOOL not in names
        if self._answers_by_tag:
            self.tools.append(_ANSWER_TOOL)
        self.rewards: list[float] = []
        self.info: dict[str, Any] = {}

    @property
    def state(self) -> State:
        """The current state, ground truth included."""
        return self._inner.state

    def begin(self, *, seed: int | None = None, task_id: str | None = None) -> ToolReply:
        """Start an episode and ask its question.

        Raises:
            VideoError: the video cannot be used, or its first frames cannot be shown.
            ValueError: there is no such task, or the seed is none.
        """
        if seed is not None and (type(seed) is not int or seed < 0):
            raise ValueError(f"seed is a whole number, not negative, got {seed!r:.80}")
        options = {} if task_id is None else {"task_id": task_id}
        _, self.info = self._env.reset(seed=seed, options=options)
        self.rewards = []
        return self.question()

    def close(self) -> None:
        """Close the environment, which stores an episode that was left, where it stores them."""
        self._env.close()

    def question(self) -> ToolReply:
        """The question with the first frames; asking again costs nothing.

        Raises:
            VideoError: the frames cannot be shown.
        """
        if self._prompt is None:
            return ToolReply(self._asked())
        messages = prompted(self._grammar, self._prompt).messages(self.state)[:2]
        system, question = with_subtitles(messages, self.state.task)
        told = "" if self._prompt.system is None else _words(system)
        asked = self._asked() if self._prompt.question is None else tuple(self._resolved(question))
        return ToolReply((told, *asked) if told else asked)

    def _asked(self) -> tuple[ToolPart, ...]:
        state = self.state
        count = len(state.skim.times_s)
        first = (
            f"Here are {count} of its frames, each after its time." if count else "No frame is shown first."
        )
        head = f"The video lasts {state.video.duration_s:.2f} s. {first}"
        ask = f"{question_text(state.task)}\n{_FORM[state.task.kind]} {_limits(state)}"
        if any("video_path" in tool["function"]["parameters"]["properties"] for tool in self.tools):
            ask += f"\nThe path of this video is: {video_name(state.task)}"
        return (head, *self._shown(state.skim), ask)

    def _resolved(self, message: Message) -> Iterator[ToolPart]:
        """The texts and frames of a message that shows the first frames."""
        frames = (part for part in self._shown(self.state.skim) if not isinstance(part, str))
        for is_text, parts in groupby(message.parts, key=lambda part: isinstance(part, TextPart)):
            if is_text:
                yield _words(Message(message.role, tuple(parts)))
            else:
                yield from (next(frames) for _ in parts)

    def call(self, name: str, arguments: dict[str, Any], thought: str = "") -> ToolReply:
        """Play one turn.

        Whatever is asked for, there is a reply: a tool that does not exist, arguments of the wrong type,
        nested without end or with numbers of thousands of digits, and times beyond the video are refused
        with a reason, and spend the turn as the recipe says.

        Args:
            name: of a tool.
            arguments: as JSON gave them.
            thought: stands before the call in the episode's text.

        Raises:
            ValueError: the grammar would read tags in the thought.
        """
        if self.state.terminated:
            return ToolReply(
                (f"The episode is over ({self.state.ending}); nothing is played any more.",), "over"
            )
        _, reward, _, _, self.info = self._env.step(self._move(name, arguments, thought))
        self.rewards.append(float(reward))
        frames = () if self.state.terminated else self._newest()
        state, refusal = self.state, self.state.turns[-1].error
        told = told_bounds(state.rules, state.turns[-1])
        news = (f"Refused. {refusal.reason}",) if refusal is not None else (told,) if told else ()
        end = f"The episode is over ({state.ending})." if state.terminated else _limits(state)
        return ToolReply((*frames, *news, end), "" if refusal is None else refusal.code)

    def _newest(self) -> tuple[ToolPart, ...]:
        """What the last turn brought; frames that cannot be shown make it a turn that brought none."""
        try:
            turn = self.state.turns[-1]
            return (*turn.replies, *(part for clip in turn.clips for part in self._shown(clip)))
        except VideoError as error:
            _, reward, _, _, self.info = self._inner.report_fault(str(error))
            self.rewards[-1] = float(reward)
            return ()

    def _move(self, name: str, arguments: dict[str, Any], thought: str) -> Move:
        move = self._thought_move(name, arguments, thought)
        if thought and move.actions != self._thought_move(name, arguments, "").actions:
            raise ValueError(f"leave tags out of the thought: {thought!r:.100}")
        return move

    def _thought_move(self, name: str, arguments: dict[str, Any], thought: str) -> Move:
        try:
            call = write_call(name, arguments)
        except (RecursionError, ValueError):  # of `json`; some of its readers take more than it writes
            reason = "The arguments are nested too deeply, or a number in them is too long."
            return Move((Invalid("malformed_call", reason),), write_call(name, {}), False)
        if name != ANSWER_TOOL or not self._answers_by_tag:
            # Grammars that ask for a thought get an empty one where it was thought elsewhere.
            return self._grammar.parse(f"<think>{thought}</think>{call}", self.state)
        if set(arguments) != {"text"} or not isinstance(arguments["text"], str):
            return Move((Invalid("type", "answer takes text, a string, and nothing else."),), call, False)
        try:
            words = self._grammar.write(Answer(arguments["text"]), self.state, thought)
        except ValueError:
            reason = "This answer cannot be written down: leave tags out of it."
            return Move((Invalid("format", reason),), call, False)
        return self._grammar.parse(words, self.state)

    def _shown(self, clip: Clip) -> Iterator[ToolPart]:
        """Times and frames of a clip, in turn."""
        batch = self._inner.store.frames(
            self.state.task.video,
            clip.times_s,
            size=clip_size(clip, self.state.video, self.state.rules),
            region=clip.region.as_tuple() if clip.region else None,
        )
        for time_s, pixels in zip(clip.times_s, batch.pixels, strict=True):
            yield f"[{time_s:.2f} s]"
            yield pixels


def _words(message: Message) -> str:
    """The texts of a message without the block of tools, which the protocol tells."""
    return "".join(part.text for part in message.parts if isinstance(part, TextPart) and not part.tools)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without keys that say nothing: ``"enum": null`` is no JSON schema."""
    items = {key: _plain(value) if isinstance(value, dict) else value for key, value in schema.items()}
    return {key: value for key, value in items.items() if value is not None}


def _limits(state: State) -> str:
    left, frames = state.turns_left, state.frames_left
    turns = "This is the last turn: answer." if left == 1 else f"{left} turns are left."
    return turns if frames is None else f"{turns} {frames} more frames can be shown."
