"""LongVT's reward read from the whole text of an episode, as its published code reads it.

The text is the decoded response: assistant outputs, role words and tool responses in one string,
special tokens removed. All functions are pure, take linear time and never raise on a text. What is
scored here may differ from what was executed; that is the published behaviour.

Source: ``custom_rewards/vl_agent.py`` of LongVT.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Literal

from videogym.grammars.blocks import THINK, after_thought, bodies
from videogym.grammars.longvt import LongVT
from videogym.grammars.longvt_calls import ANSWER, CROP_VIDEO, last_answer, read_turn
from videogym.grammars.tool_calls import TOOL_CALL, TOOL_RESPONSE, write_call
from videogym.state import State

Variant = Literal["iou", "recall", "tool", "acc_format", "default"]
MAX_ANSWER_CHARS = 1000  # an answer this long is wrong and breaks the format
_OPENING_TAGS = re.compile(rf"<({THINK}|{TOOL_CALL}|{ANSWER})>")


def transcript(state: State) -> str:
    """The response text of an episode so far.

    Outputs with calls appear as the rollout stores them: the text before the first call, then the
    calls that were read, without what follows them. ``user`` and ``assistant`` are what is left of
    the chat template around tool responses; frames leave no trace. What a policy is told about an
    output that could not be read has no place in the published loop and is left out.
    """
    text, before = "", ""
    for message in LongVT("code").messages(state)[2:]:
        if message.role == "assistant":
            text += ("assistant\n" if before else "") + _stored(message.text)
        elif message.role == "tool":
            text += ("" if before == "tool" else "user") + message.text
        before = message.role
    return text


def _stored(output: str) -> str:
    reading = read_turn(output)
    return reading.kept_text + "".join(write_call(*call) for call in reading.calls)


def format_ok(text: str) -> bool:
    """Whether the format term pays: thoughts, calls and one answer in the one order allowed.

    Without calls the text is a thought and the answer; with k calls it starts with ``<think>``, ends
    with ``</answer>`` and opens think, k times (tool_call, think), answer. An empty answer passes,
    one of 1,000 characters does not.
    """
    thoughts, calls = text.count(f"<{THINK}>"), text.count(f"<{TOOL_CALL}>")
    if thoughts == 0 or thoughts != text.count(f"</{THINK}>") or calls != text.count(f"</{TOOL_CALL}>"):
        return False
    if text.count(f"<{ANSWER}>") != 1 or text.count(f"</{ANSWER}>") != 1:
        return False
    return len(final_answer(text) or "") < MAX_ANSWER_CHARS and _in_order(text, calls)


def _in_order(text: str, calls: int) -> bool:
    if calls == 0:
        return after_thought(text, ANSWER) is not None
    stripped = text.strip()
    if not (stripped.startswith(f"<{THINK}>") and stripped.endswith(f"</{ANSWER}>")):
        return False
    return _OPENING_TAGS.findall(stripped) == [THINK, *[TOOL_CALL, THINK] * calls, ANSWER]


def final_answer(text: str) -> str | None:
    """The answer that is judged, stripped: the last one; None unless both answer tags occur."""
    answer = last_answer(text)
    return None if answer is None else answer.strip()


def has_tool_response(text: str) -> bool:
    """Whether the text holds a tool response; without one no crop is scored."""
    return f"<{TOOL_RESPONSE}>" in text


def last_crop(text: str) -> tuple[float, float] | None:
    """Start and end, in seconds, of the crop that is scored, executed or not; None without one.

    The calls are walked from last to first and parsed as Python literals, not as JSON: ``true``,
    ``null`` or ``NaN`` make a call invisible and an earlier one is taken. A call that is a crop but
    whose arguments are of an impossible type ends the walk without a crop.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a literal with an odd escape warns
        for body in reversed(bodies(text, TOOL_CALL)):
            try:
                times = _crop_times(ast.literal_eval(body.strip()))
            except (ValueError, SyntaxError, KeyError):
                continue
            except (TypeError, OverflowError, RecursionError, MemoryError):
                return None
            if times is not None:
                return times
    return None


def _crop_times(call: object) -> tuple[float, float] | None:
    if not isinstance(call, dict) or call.get("name") != CROP_VIDEO:
        return None
    arguments = call.get("arguments", {})
    if "start_time" not in arguments or "end_time" not in arguments:
        return None
    return float(arguments["start_time"]), float(arguments["end_time"])


def overlap(crop: tuple[float, float], segment: tuple[float, float]) -> tuple[float, float]:
    """Seconds in common, over the hull of both intervals and over the segment's length.

    The hull runs from the first start to the last end and equals the union when the intervals
    overlap. Where a denominator is not positive the value is 1.0 if they overlap, else 0.0. Bounds
    are seconds, may be inverted or infinite; NaN overlaps nothing.
    """
    # The order of arguments decides what max and min make of NaN.
    common = max(0, min(crop[1], segment[1]) - max(crop[0], segment[0]))
    hull = max(crop[1], segment[1]) - min(crop[0], segment[0])
    return _share(common, hull), _share(common, segment[1] - segment[0])


def _share(common: float, whole: float) -> float:
    if whole > 0:
        return common / whole
    return 1.0 if common > 0 else 0.0


def parse_verdict_code(text: str) -> float:
    """The judge's verdict as the published code reads it, 0.0 where it finds none.

    The reply is exactly ``1``, ``0.5`` or ``0``; or it holds ``Judgement:``, and what follows the
    last one is searched for a 1, then 0.5, so that "Judgement: 0.1" and "Judgement: 10" are 1.0.
    """
    reply = text.strip()
    if "Judgement:" not in reply:
        return {"1": 1.0, "0.5": 0.5}.get(reply, 0.0)
    reply = reply.split("Judgement:")[-1]
    if "1" in reply:
        return 1.0
    return 0.5 if "0.5" in reply else 0.0


def parse_verdict_strict(text: str) -> float | None:
    """The judge's verdict if it is one of 1, 0.5 and 0, however many zeros follow, else None."""
    reply = text.split("Judgement:")[-1].strip()
    return float(reply) if re.fullmatch(r"1(\.0*)?|0(\.0*)?|0?\.50*", reply) else None


def score(
    text: str, segment: tuple[float, float] | None, verdict: str, variant: Variant
) -> tuple[float | None, ...]:
    """The published reward of one response.

    Args:
        text: the whole decoded response.
        segment: evidence in seconds, None without annotation.
        verdict: the judge's reply; not looked at when there is no answer to judge.
        variant: which of the published flags is set; training uses ``"iou"``.

    Returns:
        ``(total, accuracy, format, term)``, without the term for ``"acc_format"`` and ``"default"``.
        The term is the overlap (``"iou"``, ``"recall"``) or the tool bonus (``"tool"``). Where the
        published code raises `KeyError`, a response with a tool response to a question without
        evidence, the term is None and the total leaves it out.
    """
    answer = final_answer(text)
    judged = bool(answer) and len(answer or "") < MAX_ANSWER_CHARS
    accuracy, form = parse_verdict_code(verdict) if judged else 0.0, float(format_ok(text))
    if variant == "default":
        return 0.8 * accuracy + 0.2 * form, accuracy, form
    if variant == "acc_format":
        return accuracy + form, accuracy, form
    if variant == "tool":
        bonus = float(has_tool_response(text) and accuracy >= 0.5)
        return accuracy + form + bonus, accuracy, form, bonus
    time = _time_term(text, segment, variant)
    return accuracy + form + (time or 0.0), accuracy, form, time


def _time_term(text: str, segment: tuple[float, float] | None, variant: Variant) -> float | None:
    if not has_tool_response(text):
        return 0.0
    if segment is None:
        return None
    crop = last_crop(text)
    if crop is None:
        return 0.0
    iou, recall = overlap(crop, segment)
    return iou if variant == "iou" else recall


def score_span_answer(text: str, truth: str, recall: bool = False) -> tuple[float, float, float]:
    """The published reward of a response whose answer is itself a span, ``[start, end]`` in seconds.

    Args:
        text: the whole decoded response.
        truth: the true span as a Python list.
        recall: divide by the true span's length instead of the hull.

    Returns:
        ``(total, overlap, format)``. The format is looser than `format_ok`: the order of tags is not
        checked, and after the last thought any number of answers may stand.
    """
    after = text.split(f"</{THINK}>")[-1]
    answers = after.count(f"<{ANSWER}>"), after.count(f"</{ANSWER}>")
    value = 0.0
    if 0 not in answers:
        predicted = _span(text.split(f"<{ANSWER}>")[-1].split(f"</{ANSWER}>")[0].strip())
        true = _span(truth)
        if predicted is not None and true is not None:
            value = overlap(predicted, true)[1 if recall else 0]
    form = float(0 not in answers and answers[0] == answers[1] and _span_format_ok(text))
    return value + form, value, form


def _span_format_ok(text: str) -> bool:
    thoughts, calls = text.count(f"<{THINK}>"), text.count(f"<{TOOL_CALL}>")
    if thoughts == 0 or thoughts != text.count(f"</{THINK}>") or calls != text.count(f"</{TOOL_CALL}>"):
        return False
    if calls == 0:
        return after_thought(text, ANSWER) is not None
    return text.strip().startswith(f"<{THINK}>") and text.strip().endswith(f"</{ANSWER}>")


def _span(text: str) -> tuple[float, float] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
        if not isinstance(value, list) or len(value) != 2:
            return None
        return float(value[0]), float(value[1])
    except (ValueError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError):
        return None
