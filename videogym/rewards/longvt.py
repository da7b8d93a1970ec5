"""Terms of LongVT: a well-formed episode, its crop's overlap, and the published code's reading of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from videogym.geometry import Segment, segment_iou
from videogym.rewards import longvt_transcript
from videogym.rewards.answers import Judge, judge_lenient, verdict_of
from videogym.rewards.grounding import looked_segments
from videogym.state import State


def well_formed_episode(before: State, after: State) -> float:
    """1.0 if every turn obeyed the grammar and the episode ended with an answer, else 0.0."""
    return float(after.answer is not None and all(turn.well_formed for turn in after.turns))


@dataclass(frozen=True)
class CropOverlap:
    """LongVT's time reward on the last executed crop.

    ``iou`` divides the seconds in common by the hull of both segments, which is the union when they
    overlap; ``recall`` by the length of the evidence. With several evidence segments the best
    counts (the source knows one). Absent without evidence; 0.0 without a crop.

    Source: LongVT, R_time. Which of several crops counts is open in the paper; its code takes the
    last one written, executed or not (see `TranscriptScore`).
    """

    measure: Literal["iou", "recall"] = "iou"

    def __call__(self, before: State, after: State) -> float | None:
        """The overlap in [0, 1]."""
        evidence, looks = after.task.evidence, looked_segments(after)
        if not evidence:
            return None
        if not looks:
            return 0.0
        return max(self._overlap(looks[-1], segment) for segment in evidence)

    def _overlap(self, look: Segment, segment: Segment) -> float:
        if self.measure == "iou":
            return segment_iou(look, segment)
        inter = min(look.end_s, segment.end_s) - max(look.start_s, segment.start_s)
        return max(0.0, inter) / segment.length_s


@dataclass(frozen=True)
class TranscriptScore:
    """One part of LongVT's reward, read from the episode's whole text as its code reads it.

    Source: ``custom_rewards/vl_agent.py`` of LongVT. ``part`` is ``"answer"``, ``"format"`` or
    ``"time"``; ``variant`` is the flag its training script sets.
    """

    part: Literal["answer", "format", "time"]
    variant: Literal["iou", "recall"] = "iou"
    judge: Judge = judge_lenient

    @property
    def asks(self) -> bool:
        """Whether this part asks whether the answer is right."""
        return self.part == "answer"

    def __call__(self, before: State, after: State) -> float | None:
        """The part in [0, 1]; ``time`` is None without annotation, ``answer`` where the judge abstains."""
        text = longvt_transcript.transcript(after)
        if self.part == "format":
            return float(longvt_transcript.format_ok(text))
        if self.part == "answer":
            answer = longvt_transcript.final_answer(text) or ""
            short = len(answer) < longvt_transcript.MAX_ANSWER_CHARS
            return verdict_of(self.judge, after.task, answer) if answer and short else 0.0
        evidence = after.task.evidence
        if not evidence:
            return None
        crop = longvt_transcript.last_crop(text)
        if crop is None or not longvt_transcript.has_tool_response(text):
            return 0.0
        window = (evidence[0].start_s, evidence[0].end_s)
        iou, recall = longvt_transcript.overlap(crop, window)
        return iou if self.variant == "iou" else recall
