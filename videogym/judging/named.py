"""The judge that a command names: rules, or an endpoint with its model, cache and deadline."""

from __future__ import annotations

from pathlib import Path

from videogym.judging.endpoint import ChatEndpoint
from videogym.judging.language_model import LanguageModelJudge
from videogym.judging.log import JudgementLog
from videogym.judging.rules import JudgeByKind, NumericJudge, TokenF1Judge
from videogym.rewards import Judge, judge_lenient, judge_letter
from videogym.writing import naming

CACHE = "judgements.jsonl"
DEADLINE_S = 60.0
RULES: dict[str, Judge] = {
    "lenient": judge_lenient,
    "letter": judge_letter,
    "rules": JudgeByKind(numeric=NumericJudge(), open=TokenF1Judge()),
}
REPLAY = "cache"  # name of the judge that asks nobody
ABOUT = (
    "judge of the answers: rules (numbers and shared words), lenient (the same but for case, articles and "
    "the like), letter (as Video-MTR compares), the URL of an endpoint of OpenAI's chat completions up to "
    "/v1, or cache, what such a judge has said before"
)


def judge_named(name: str, *, model: str = "", cache: str = CACHE, deadline_s: float = DEADLINE_S) -> Judge:
    """The judge of a name.

    Args:
        name: of `RULES`, ``"cache"``, or the URL of an endpoint. An endpoint that is down abstains, answer
            by answer, until it has left 50 requests in a row without a reply.
        model: by which the endpoint knows its model; it and a cache need one.
        cache: file of judgements that are kept and looked up; made where it is missing.
        deadline_s: seconds for one reply of an endpoint.

    Raises:
        ValueError: there is no such judge, or what it needs is missing or has no place.
        JudgementLogError: the cache is a file of something else.
        OSError: the cache cannot be made or read.
        ImportError: an endpoint, and httpx2 is not installed.
    """
    if name in RULES:
        if model:
            raise ValueError(f"the judge {name!r} has no model, got {model!r}; it is for an endpoint")
        return RULES[name]
    if name != REPLAY and not name.startswith(("http://", "https://")):
        raise ValueError(
            f"a judge is one of {', '.join(RULES)}, {REPLAY}, or the URL of an endpoint; got {name!r}"
        )
    if not model:
        raise ValueError(f"the judge {name!r} needs the name of its model")
    endpoint = None if name == REPLAY else ChatEndpoint(name, deadline_s=deadline_s)
    if endpoint is not None:
        with naming(cache):
            Path(cache).touch()
    judge = LanguageModelJudge(model, log=(log := JudgementLog(cache)), endpoint=endpoint)
    log.find("")  # reads all of it: a file that is none of judgements is refused now, not at an answer
    return judge
