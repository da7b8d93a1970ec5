"""Judges of answers: functions of a task and an answer, each usable in a reward term.

A judge returns a verdict (1.0 right, 0.5 partly, 0.0 wrong) or None: it abstains, and the reward term
that asked it is absent. `judge_lenient` and `judge_letter`, which compare exactly, live in
`videogym.rewards`; here are those that read numbers, compare words, or ask a language model.
"""

from videogym.judging.endpoint import ChatEndpoint, EndpointError, NoReply, Reply
from videogym.judging.language_model import RUBRIC, LanguageModelJudge, Tally
from videogym.judging.log import Judgement, JudgementLog, JudgementLogError
from videogym.judging.masking import masked
from videogym.judging.named import judge_named
from videogym.judging.recipe import with_judge
from videogym.judging.responder import EndpointResponder
from videogym.judging.rules import JudgeByKind, NumericJudge, TokenF1Judge, token_f1
from videogym.rewards import Judge, judge_lenient, judge_letter
from videogym.rewards.longvt_transcript import parse_verdict_code, parse_verdict_strict

__all__ = [
    "RUBRIC",
    "ChatEndpoint",
    "EndpointError",
    "EndpointResponder",
    "Judge",
    "JudgeByKind",
    "Judgement",
    "JudgementLog",
    "JudgementLogError",
    "LanguageModelJudge",
    "NoReply",
    "NumericJudge",
    "Reply",
    "Tally",
    "TokenF1Judge",
    "judge_lenient",
    "judge_letter",
    "judge_named",
    "masked",
    "parse_verdict_code",
    "parse_verdict_strict",
    "token_f1",
    "with_judge",
]
