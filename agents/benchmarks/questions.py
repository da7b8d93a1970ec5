"""Questions of a harness as tasks of episodes, and what an episode came to as the harness's response.

A harness composes its own prompts and reads answers out of responses by rules of its own. So the whole
prompt is the question, word for word, and options that stand in it are not listed again (`AsAsked`). They
are known to the environment all the same, which then reads and judges answers as of any question of choice.
No harness and no model is known here.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from videogym import Task
from videogym.answers import option_named
from videogym.grammars import GrammarWrapper, Message
from videogym.metadata import Metadata, MetadataError
from videogym.state import State
from videogym.traces import Trace

NO_ANSWER = "-"  # of an episode without one; no rule of extraction finds a letter or a number in it
ANSWER_TAG = "<answer>"  # what prompts name that want an answer in tags
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION = re.compile(r"\s*(?:\(([A-Z])\)\s*|([A-Z])[.):]\s+)(\S.*)")
_ASKED = {"question", "option", "options", "candidates", "answer"}  # fields that the prompt or the task has
_LONGEST = 500  # characters of a field that is kept as metadata


def lettered_options(prompt: str) -> tuple[str, ...]:
    r"""The options that a prompt lists, one a line from A on, without their letters; () if there are none.

    The last such list counts. A line without a letter belongs to the option before it and is not read.

    >>> lettered_options("What falls?\nA. a leaf\nB. a stone\nAnswer with the letter.")
    ('a leaf', 'a stone')
    """
    found: list[str] = []
    for line in prompt.split("\n"):
        match = _OPTION.fullmatch(line)
        letter = (match[1] or match[2]) if match else ""
        if match and letter == "A":
            found = [match[3].strip()]
        elif match and found and letter == _LETTERS[len(found) % 26]:
            found.append(match[3].strip())
    return tuple(found) if 2 <= len(found) <= 26 else ()


def true_answer(target: object, options: tuple[str, ...]) -> str | None:
    """What a harness's target says: the letter of an option, or the answer itself where there are none.

    Args:
        target: a letter, the text of an option, or an index from 0, as a number or in digits.
        options: of the prompt.

    Returns:
        None: it is not told, or names no option.
    """
    if isinstance(target, bool) or not isinstance(target, int | float | str):
        return None
    if not options:
        return str(target)
    if isinstance(target, str):
        named = _letter(target, options)
        if named is not None or not target.strip().isdecimal():
            return named
    index = int(target)
    return _LETTERS[index] if 0 <= index < len(options) and index == float(target) else None


def _letter(answer: str, options: tuple[str, ...]) -> str | None:
    return option_named(Task("any", "any", "any", "choice", options, "A"), answer)


def make_task(
    task_id: str, video: str, prompt: str, target: object, document: Mapping[str, Any], source: str
) -> Task:
    """The task of a question.

    It is one of choice where the prompt lists options and the target names one of them.

    Args:
        task_id: names it.
        video: path.
        prompt: all that is asked, options and instructions included.
        target: what is right, as the harness has it.
        document: the row of the benchmark; what JSON can say of it becomes metadata.
        source: name of the benchmark.
    """
    options = lettered_options(prompt)
    answer = true_answer(target, options)
    if options and answer is None:
        answer = true_answer(target, ())
        options = ()
    return Task(
        task_id,
        video,
        prompt,
        kind="choice" if options else "open",
        options=options,
        answer=answer or "",
        source=source,
        metadata=_told(document),
    )


def _told(document: Mapping[str, Any]) -> Metadata:
    kept = {}
    for name, value in document.items():
        try:
            if name not in _ASKED and len(json.dumps(value)) <= _LONGEST:
                kept[name] = Metadata({name: value})[name]
        except (TypeError, ValueError, MetadataError):  # a picture, a date, a number that is none
            continue
    return Metadata(kept)


def response(trace: Trace) -> str:
    """What an episode answers to the harness.

    A prompt that lists options gets the letter of the one that the answer names. A prompt that asks for
    ``<answer>`` tags gets the last output as it was written, or the answer in these tags if it has none.
    Any other prompt gets the answer. An episode that ended without one gives `NO_ANSWER`: nobody shall find
    a letter in its thoughts.
    """
    answer, prompt = trace.answer, trace.task.question
    if answer is None or not answer.strip():
        return NO_ANSWER
    if ANSWER_TAG in prompt:
        text = trace.turns[-1].turn.text or ""
        return text if ANSWER_TAG in text else f"{ANSWER_TAG}{answer}</answer>"
    options = trace.task.options or lettered_options(prompt)
    return (options and _letter(answer, options)) or answer


@dataclass(frozen=True)
class AsAsked(GrammarWrapper):
    """A grammar that shows a question as it stands, without a list of its options behind it."""

    def messages(self, state: State) -> tuple[Message, ...]:
        """The grammar's, of a choice whose options stand in its question."""
        task = copy.copy(state.task)
        object.__setattr__(task, "options", ())  # no task of choice could be made without
        return self.grammar.messages(replace(state, task=task))
