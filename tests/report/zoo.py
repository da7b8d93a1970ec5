"""Episodes that a report must survive: all that can go wrong in one, and texts that would like to."""

from __future__ import annotations

from dataclasses import replace

from videogym import Answer, Crop, Invalid, Move, Region, Segment, Task, VideoQAEnv
from videogym.rewards import answered_right
from videogym.traces import Trace, TurnTrace, trace_of

ADDRESS = "synthetic:brief_event?level=0&duration_s=600&seed=1"
TASK = Task("zoo", ADDRESS, "Which flag?", "choice", ("red", "blue"), "B", (Segment(300, 330),), "zoo")
HOSTILE = (
    "</script><script>document.title='pwned'</script></title></textarea></style>--><img src=x "
    "onerror=\"document.title='pwned'\"><b>bold</b> &amp; &lt; 'single' \"double\" `back` {{ 7 * 7 }} "
    "{% raw %} ${7} ]]>"
)
UNICODE = "Ünïcode 日本語 🎞️ עברית \u202eright to left\u202c\x00\x1b[31m\r\x85\ud800 end"


def played(*actions, run="zoo", cut="", fault="", recipe="DEFAULT", **changes) -> Trace:
    """An episode of `TASK`, changed, by actions or moves."""
    env = VideoQAEnv([replace(TASK, **changes)], recipe)
    env.reset(seed=0)
    turns = []
    for action in actions:
        _, reward, _, _, info = env.step(action)
        if fault:
            _, reward, _, _, info = env.report_fault(fault)
        present, terms = info["reward_present"], info["reward_terms"]
        paid = {name: float(value) if present[name] else None for name, value in terms.items()}
        turns.append(TurnTrace(env.state.turns[-1], reward, paid))
    correct = answered_right(env.recipe.terms, turns[-1].terms.get("answer") if turns else None, env.state)
    env.close()
    return trace_of(env.state, tuple(turns), correct=correct, run=run, cut=cut)


def zoo() -> tuple[Trace, ...]:
    """One of each."""
    missing = played(Crop(100, 130), Answer("A"), task_id="missing")
    missing = replace(missing, task=replace(missing.task, video="/nowhere/a video.mp4"))
    changed = played(Answer("A"), task_id="changed")
    changed = replace(changed, video=replace(changed.video, fingerprint="another"))
    faulty = played(
        Crop(100, 130), task_id="fault", fault="damaged at 104 s", cut="fault: damaged at 104 s"
    )
    return (
        played(
            Crop(280, 320),
            Crop(290, 334, (0.1, 0.2, 0.5, 0.9)),
            Crop(9, 3),
            Crop(500, 700),
            Answer("B"),
            task_id="right",
        ),
        played(
            Move((Crop(-5, 30),), "x" * 5000),
            Move((Crop(590, 1e9),), UNICODE),
            Answer("A"),
            task_id="refused",
        ),
        played(
            *(Move((Invalid("format", HOSTILE),), HOSTILE, False), Answer("A")),
            **{"task_id": HOSTILE, "question": HOSTILE, "options": (HOSTILE, UNICODE[:-5])},
        ),
        played(
            Answer("a" * 400), kind="open", options=(), answer="a red flag", task_id="open", evidence=None
        ),
        played(*[Crop(9, 3)] * 6, task_id="never answered"),
        played(Crop(599.8, 600), Crop(float("nan"), float("inf")), task_id="left", cut="left"),
        played(task_id="no turn", cut="left"),
        replace(played(Answer("?"), kind="open", options=(), task_id="unjudged"), correct=None),
        missing,
        changed,
        faulty,
        played(
            Crop(300, 330, (0.1, 0.2, 0.5, 0.9)),
            Answer("A"),
            task_id="detail",
            evidence_region=Region(0.15, 0.3, 0.35, 0.6),
        ),
    )
