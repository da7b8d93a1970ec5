"""The page holds what was stored, where it belongs, as text and nothing but text."""

# ruff: noqa: D103

import base64
import importlib.util
import io
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from zoo import ADDRESS, HOSTILE, UNICODE, played, zoo

from videogym import Answer, Crop, Segment, VideoQAEnv
from videogym.cli import main, progress_bar
from videogym.datasets import load_tasks
from videogym.evaluate import evaluate
from videogym.grammars import grammar_names
from videogym.intervals import proportion
from videogym.report import write_report
from videogym.report.episodes import episode_view
from videogym.report.thumbnails import Thumbnails
from videogym.report.timeline import axis, clock, percent, span, tick_path
from videogym.testing.policies import Random
from videogym.traces import RecordTraces, Trace, Traces, TurnTrace, append_trace, read_traces
from videogym.video import FrameStore

ROOT = Path(__file__).parents[2]
VOID = {"meta", "img", "input", "br", "link"}
# What the template closes by beginning the next one, as HTML allows.
OPEN_ENDED = {"th", "td", "dt", "dd", "li", "option", "path"}


class Page(HTMLParser):
    """What a parser of HTML that is not ours makes of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It is the one that is open."""
        while self._inside and self._inside[-1] != tag:
            assert self._inside[-1] in OPEN_ENDED, f"<{self._inside[-1]}> is open where <{tag}> ends"
            self._inside.pop()
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        """Keep it, by where it stands."""
        (self.scripts if self._inside[-1:] in (["script"], ["style"]) else self.texts).append(data)

    def of(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Attributes of all elements of a kind that have these."""
        return [a for t, a in self.tags if t == tag and attributes.items() <= a.items()]


def write(path: Path, *episodes: Trace, **options: object) -> Page:
    write_report(Traces(episodes, 0), path / "report.html", **options)  # type: ignore[arg-type]
    return Page(path / "report.html")


# --- safety --------------------------------------------------------------------------------------


def test_hostile_texts_are_text(tmp_path: Path) -> None:
    page = write(tmp_path, *zoo(), title=HOSTILE)
    calm = write(tmp_path, played(Answer("B")), title="calm")
    # No element, attribute or script that a harmless page has not.
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in calm.tags} | {
        "figure",
        "ol",
        "pre",
        "h2",
        "dl",
    }
    assert len(page.of("script")) == 2 and len(page.of("title")) == 1 and not page.of("b", src="x")
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert page.scripts[-1] == calm.scripts[-1]
    shown = [text for text in page.texts if text.strip() == HOSTILE]
    # Heading and title of the page, and of one episode: question twice, name twice, one option of two,
    # reason and output.
    assert len(shown) >= 2 + 7
    assert page.of("article", **{"data-task": HOSTILE})


def test_every_character_has_a_shape(tmp_path: Path) -> None:
    page = write(tmp_path, *zoo())
    (output,) = {text for text in page.texts if "日本語" in text and "\ufffd\ufffd end" in text}
    # A zero byte, an escape, a carriage return; what no file can hold is replaced.
    assert output == UNICODE.translate(
        {0: "\u2400", 27: "\u241b", 13: "\u240d", 0x85: "\ufffd", 0xD800: "\ufffd"}
    )
    text = (tmp_path / "report.html").read_bytes().decode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = write(tmp_path, *zoo())
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"src", "href", "srcset", "action", "data", "poster"}, tag
    assert "url(" not in page.scripts[0] and "@import" not in page.scripts[0]
    (policy,) = page.of("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy["content"] and "img-src data:;" in policy["content"]


def test_two_pages_of_the_same_episodes_are_equal(tmp_path: Path) -> None:
    write(tmp_path, *zoo())
    before = (tmp_path / "report.html").read_bytes()
    write(tmp_path, *zoo())
    assert (tmp_path / "report.html").read_bytes() == before


# --- what it says --------------------------------------------------------------------------------


def view(trace: Trace, count: int = 0):
    return episode_view(1, trace, trace.run, Thumbnails(FrameStore()), count)


def test_segments_lie_where_they_are() -> None:
    """On a video of 600 s: evidence 300 to 330, a look 280 to 320, refused ones where they lie in it."""
    shown = view(played(Crop(280, 320), Crop(-60, 30), Crop(9, 3), Crop(590, 1e9), Answer("A")))
    assert [(b.left, b.width) for b in shown.evidence] == [(50.0, 5.0)]
    spans = [[(b.left, b.width, b.refused) for b in turn.blocks] for turn in shown.turns]
    left, width = 100 * 280 / 600, 100 * 40 / 600
    assert spans[0] == [(pytest.approx(left, abs=1e-3), pytest.approx(width, abs=1e-3), False)]
    assert spans[1:] == [[(0.0, 5.0, True)], [], [(pytest.approx(98.333), pytest.approx(1.667), False)], []]
    # 20 of 50 seconds in common.
    assert shown.turns[0].blocks[0].title == "turn 1: crop 280 to 320 s; IoU with the evidence 0.40"
    assert shown.turns[1].blocks[0].title == "turn 2: crop -60 to 30 s; refused (negative)"
    assert [turn.label for turn in shown.turns] == ["crop", "refused", "refused", "crop", "answer"]
    assert shown.refused_turns == 2 and shown.verdict == "wrong"


def test_rewards_by_hand() -> None:
    """Behind the skim's 0.05 looks of IoU 0.4 and 1 pay half of each rise; a wrong answer gives it back."""
    rewards = view(played(Crop(280, 320), Crop(300, 330), Answer("A"))).rewards
    assert rewards.terms == ("coverage", "answer", "gate")
    assert [row.cells for row in rewards.rows] == [
        ("+0.175", "", ""),
        ("+0.300", "", ""),
        ("0", "0", "−0.475"),
    ]
    assert [row.total for row in rewards.rows] == ["+0.175", "+0.475", "0"]
    assert [(row.left, row.width, row.direction) for row in rewards.rows] == [
        (0.0, pytest.approx(17.5 / 0.475, abs=1e-2), "up"),
        (pytest.approx(17.5 / 0.475, abs=1e-2), pytest.approx(30 / 0.475, abs=1e-2), "up"),
        (0.0, 100.0, "down"),
    ]
    assert rewards.sums == ("+0.475", "0", "−0.475") and rewards.zero == 0.0


def test_a_waterfall_below_zero() -> None:
    trace = played(Crop(280, 320), Crop(300, 330), Answer("B"))
    trace = replace(
        trace, turns=tuple(replace(t, reward=r) for t, r in zip(trace.turns, (-1, 3, 0), strict=True))
    )
    rewards = view(trace).rewards
    # From -1 to 2: zero lies at a third.
    assert rewards.zero == 33.33
    assert [(row.left, row.width) for row in rewards.rows] == [(0.0, 33.33), (0.0, 100.0), (100.0, 0.0)]
    broken = replace(trace, turns=(replace(trace.turns[0], reward=math.nan), *trace.turns[1:]))
    assert [row.reward for row in view(broken).rewards.rows] == ["nan", "+3.000", "0"]


@pytest.mark.parametrize("written", ["B", " b ", "blue", "B. Blue"])
def test_the_given_option_is_found_however_it_was_written(written: str) -> None:
    trace = played(Answer(written), recipe="LONGVT/paper")
    assert [(o.right, o.given) for o in view(trace).options] == [(False, False), (True, True)]


def test_verdicts() -> None:
    by_task = {trace.task.task_id: view(trace).verdict for trace in zoo()}
    assert by_task == {
        "right": "right",
        "refused": "wrong",
        HOSTILE: "wrong",
        "open": "wrong",
        "never answered": "silent",
        "left": "cut",
        "no turn": "cut",
        "unjudged": "unjudged",
        "missing": "wrong",
        "changed": "wrong",
        "fault": "cut",
        "detail": "wrong",
    }


def test_regions_are_drawn_where_they_lie(tmp_path: Path) -> None:
    """Per cent of a frame: what was shown, with where the evidence lies, and that once more by itself."""
    page = write(tmp_path, zoo()[-1], thumbnails=2)
    styles = [a["style"] for a in page.of("i") if "height" in a.get("style", "")]
    due, shown = (
        "left:15.0%;top:30.0%;width:20.0%;height:30.0%",
        "left:10.0%;top:20.0%;width:40.0%;height:70.0%",
    )
    assert styles == [due, shown, due]


def test_the_page_says_what_was_stored(tmp_path: Path) -> None:
    page = write(tmp_path, *zoo())
    articles = page.of("article")
    assert [a["data-task"] for a in articles] == [trace.task.task_id for trace in zoo()]
    assert float(articles[0]["data-reward"]) == pytest.approx(zoo()[0].reward)
    assert articles[1]["data-refused"] == "1" and articles[5]["data-ending"] == "left"
    assert articles[-2]["data-fault"] == "1" and articles[-2]["data-ending"] == "fault"
    text = "".join(page.texts)
    for said in ("not annotated", "damaged at 104 s", "Which flag?", "a red flag", "DEFAULT@"):
        assert said in text


def test_metrics_of_a_run_are_those_of_evaluate(tmp_path: Path) -> None:
    env = RecordTraces(VideoQAEnv("procedural:brief_event?duration_s=60&count=30"), tmp_path / "t.jsonl")
    report = evaluate(Random(0), env)
    episodes = read_traces(env.path).episodes
    # One more that does not count.
    episodes = (*episodes, played(Crop(100, 130), fault="damaged", cut="fault: damaged", run="t"))
    text = "".join(write(tmp_path, *episodes, thumbnails=0).texts)
    accuracy, reward, tiou = report.accuracy, report.reward, report.tiou
    assert tiou is not None
    assert f"{100 * accuracy.mean:.1f} % {100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}" in text
    assert f"{reward.mean:.2f} ± {reward.high - reward.mean:.2f}{tiou.mean:.2f}" in text
    assert "31 1 not counted" in text
    hit = report.hit_rate
    assert hit is not None
    said = f"{100 * hit.mean:.1f} % {100 * hit.low:.1f}–{100 * hit.high:.1f}"
    assert text.index(said) > text.index("hit rate") and f"{said}{reward.mean:.2f} ±" in text


def test_intervals_of_a_run_are_clustered_by_video_as_in_evaluate(tmp_path: Path) -> None:
    """Four questions about each of three videos: worth less than twelve videos, on the page as well."""
    asked = load_tasks("procedural:brief_event?duration_s=60&count=3")
    tasks = [replace(task, task_id=f"{task.task_id}-{i}") for task in asked for i in range(4)]
    env = RecordTraces(VideoQAEnv(tasks), tmp_path / "t.jsonl")
    right = {task.task_id: task.answer for task in asked}

    def knows_one_video(observation: Any, info: Any) -> Answer:
        first = next(iter(right))
        truth = right[info["task_id"].rpartition("-")[0]]
        return Answer(truth if info["task_id"].startswith(first) else "ABCD"["ABCD".index(truth) - 1])

    accuracy = evaluate(knows_one_video, env).accuracy
    alone = proportion(4, 12)
    assert (accuracy.mean, accuracy.count) == (alone.mean, 12) and accuracy.low < alone.low - 0.05
    text = "".join(write(tmp_path, *read_traces(env.path).episodes, thumbnails=0).texts)
    assert f"{100 * accuracy.mean:.1f} % {100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}" in text


def test_the_hit_rate_asks_for_all_evidence(tmp_path: Path) -> None:
    """Two segments of which the skim shows the first; the second needs a look. None without any."""
    two = (Segment(300, 330), Segment(301.2, 301.8))
    assert view(played(Answer("B"), evidence=two)).hit is False
    assert view(played(Crop(300, 303), Answer("B"), evidence=two)).hit is True
    assert view(played(Answer("B"), evidence=None)).hit is None
    text = "".join(write(tmp_path, played(Answer("B"), evidence=two), thumbnails=0).texts)
    assert "not all of it was shown" in text


def test_the_page_explains_its_marks(tmp_path: Path) -> None:
    page = write(tmp_path, played(Answer("B")), thumbnails=0)
    assert page.of("details", **{"class": "legend"})
    for mark in ("right", "wrong", "unjudged", "silent", "cut"):
        assert page.of("b", **{"class": f"verdict {mark}"}), mark


def test_pictures_are_buttons_and_upright_ones_are_as_large(tmp_path: Path) -> None:
    """16 to 9 both ways: the longer side is 160 pixels of the page, and 256 in what is enlarged."""
    upright = "synthetic:brief_event?level=0&duration_s=600&seed=2&size=180x320"
    for video, shape in ((upright, ("90", "160")), (ADDRESS, ("160", "90"))):
        page = write(tmp_path, played(Answer("B"), video=video), thumbnails=1)
        (image,) = page.of("img")
        assert (image["width"], image["height"]) == shape
        stored = Image.open(io.BytesIO(base64.b64decode(pictures(page)[0])))
        assert max(stored.size) == 256 and image["alt"] == "frame of the skim at 0 s"
        assert page.of("button", **{"class": "picture"})


def test_what_may_be_cut_short_is_whole_in_its_title(tmp_path: Path) -> None:
    question, answer = "Which flag? " * 50, "a very long answer " * 20
    page = write(tmp_path, played(Answer(answer), question=question, kind="open", options=(), answer="B"))
    titles = [attributes.get("title") for _, attributes in page.tags]
    assert question in titles and answer in titles


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    one, other = played(Answer("A"), run="eval"), played(Answer("B"), run="eval")
    write_report(Traces((one,), 0), tmp_path / "r.html", Traces((other, replace(other, run="b")), 2))
    page = Page(tmp_path / "r.html")
    assert [a["data-run"] for a in page.of("article")] == ["eval", "eval (compared)", "b"]
    assert "2 unfinished last lines were left out" in "".join(page.texts)


# --- pictures ------------------------------------------------------------------------------------


def pictures(page: Page) -> list[str]:
    return list(json.loads(page.scripts[1]))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
def test_an_episode_has_no_more_pictures_than_asked_for(tmp_path: Path, count: int) -> None:
    trace = played(Crop(100, 130), Crop(280, 320), Crop(400, 500), Answer("B"))
    page = write(tmp_path, trace, thumbnails=count)
    assert len(page.of("img")) == count
    assert len(pictures(page)) <= count


def test_pictures_are_kept_once(tmp_path: Path) -> None:
    trace = played(Crop(100, 130), Answer("B"))
    one = write(tmp_path, trace)
    two = write(tmp_path, trace, replace(trace, run="again"))
    assert pictures(one) == pictures(two) and len(two.of("img")) == 2 * len(one.of("img")) == 24
    used = {int(image["data-picture"]) for image in one.of("img")}
    assert used == set(range(len(pictures(one))))


def test_pictures_are_of_the_frames_that_were_shown() -> None:
    """A region is cut out before it is made small."""
    trace = played(Crop(300, 330, (0.5, 0.0, 1.0, 0.5)), Answer("B"))
    made = Thumbnails(FrameStore())
    strip = made.strip(trace.task, trace.video, trace.clips[1], 3)
    assert strip.times_s == tuple(trace.clips[1].times_s[i] for i in (0, 8, 15))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.pictures[strip.pictures[0]]))))
    box = (0.5, 0.0, 1.0, 0.5)
    frame = FrameStore().frames(ADDRESS, [300.0], size=(256, 144), region=box, resizer="area").pixels[0]
    assert picture.shape == (144, 256, 3)
    assert np.abs(picture.astype(float) - frame).mean() < 6  # JPEG


def test_a_video_that_is_gone_costs_its_pictures_and_nothing_else(tmp_path: Path) -> None:
    page = write(tmp_path, *zoo())
    text = "".join(page.texts)
    assert "no pictures: /nowhere/a video.mp4: No such file or directory" in text
    assert "the file is not the one that was played" in text


@pytest.mark.parametrize(
    "video", ["\0", "a\0b.mp4", "synthetic:nonsense", "/", "../../x.mp4", "http://x/y.mp4"]
)
@pytest.mark.parametrize("root", [None, "."])
def test_no_address_of_a_video_stops_a_report(tmp_path: Path, video: str, root: str | None) -> None:
    trace = played(Answer("B"))
    trace = replace(trace, task=replace(trace.task, video=video))
    page = write(tmp_path, trace, store=FrameStore(video_root=root))
    assert any(text.startswith("no pictures: ") for text in page.texts) and not page.of("img")


def test_a_missing_video_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = FrameStore(), []
    really = store.open
    monkeypatch.setattr(store, "open", lambda source: asked.append(source) or really(source))
    trace = zoo()[8]
    write(tmp_path, trace, replace(trace, run="again"), store=store)
    assert asked == ["/nowhere/a video.mp4"]


def test_without_pictures_no_video_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FrameStore()
    monkeypatch.setattr(store, "open", lambda source: pytest.fail(source))
    assert "no pictures:" not in "".join(write(tmp_path, *zoo(), thumbnails=0, store=store).texts)


# --- the file ------------------------------------------------------------------------------------


def test_what_fails_leaves_the_page_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report.html"
    write(tmp_path, played(Answer("B")))
    before = out.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, *zoo(), thumbnails=0)
    assert out.read_bytes() == before and os.listdir(tmp_path) == ["report.html"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    ours, others = tmp_path / f".r[1].html.{dead.pid}.partial", tmp_path / f".x.html.{dead.pid}.partial"
    alive, strange = tmp_path / f".r[1].html.{os.getppid()}.partial", tmp_path / ".r[1].html.mine.partial"
    for path in (ours, others, alive, strange):
        path.write_text("half")
    write_report(Traces((played(Answer("B")),), 0), tmp_path / "r[1].html", thumbnails=0)
    assert not ours.exists() and others.exists() and alive.exists() and strange.exists()


@pytest.mark.parametrize(
    ("traces", "options", "said"),
    [
        (Traces((), 3), {}, "no episode"),
        (Traces(zoo()[:1], 0), {"compare": Traces((), 0)}, "no episode"),
        (Traces(zoo()[:1], 0), {"thumbnails": -1}, "at least 0, got -1"),
    ],
)
def test_what_cannot_be_reported_is_said(tmp_path: Path, traces: Traces, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write_report(traces, tmp_path / "r.html", **options)
    assert not os.listdir(tmp_path)


def test_progress_counts_episodes(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write(tmp_path, *zoo()[:3], thumbnails=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


# --- the timeline --------------------------------------------------------------------------------


@given(st.floats(1, 1e6))
def test_an_axis_has_a_few_round_times_in_the_video(duration_s: float) -> None:
    ticks = axis(duration_s)
    lefts = [tick.left for tick in ticks]
    assert 2 <= len(ticks) <= 12 and lefts[0] == 0.0
    assert lefts == sorted(set(lefts)) and lefts[-1] <= 100.0
    assert len({tick.label for tick in ticks}) == len(ticks)


def test_axes_by_hand() -> None:
    assert [tick.label for tick in axis(3600)] == [
        "0:00",
        "10:00",
        "20:00",
        "30:00",
        "40:00",
        "50:00",
        "1:00:00",
    ]
    assert [tick.label for tick in axis(5.28)] == ["0:00", "0:01", "0:02", "0:03", "0:04", "0:05"]
    assert [tick.left for tick in axis(240)] == [0, 12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100]


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(1, 1e5))
def test_spans_stay_on_the_timeline(start_s: float, length_s: float, duration_s: float) -> None:
    left, width = span(start_s, start_s + length_s, duration_s)
    assert 0 <= left <= 100 and width >= 0.35 and left + width <= 100.001


def test_ticks_in_one_place_are_one() -> None:
    path = tick_path([i / 100 for i in range(6000)], 60.0)
    assert path.count("M") == 1001 and percent(30, 60) == 50
    assert clock(0) == "0:00" and clock(86_399) == "23:59:59"


# --- the command ---------------------------------------------------------------------------------


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one ü", "two"):
        append_trace(tmp_path / f"{name}.jsonl", played(Crop(100, 130), Answer("B"), run=name))
    out = tmp_path / "my page.html"
    arguments = ["report", str(tmp_path / "one ü.jsonl"), "--compare", str(tmp_path / "two.jsonl")]
    assert main([*arguments, "--out", str(out), "--title", "<mine>", "--thumbnails", "3"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out) and said.err == ""
    page = Page(out)
    assert len(page.of("article")) == 2 and "<mine>" in page.texts and len(page.of("img")) == 6
    assert [a for a in page.of("option") if "data-first" in a] == [{"data-first": ""}] * 2


def test_progress_is_drawn_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show = progress_bar("episodes")
    show(1, 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show(1, 3)
    show(3, 3)
    drawn = capsys.readouterr().err.split("\r")
    assert drawn == ["", "█" * 10 + "░" * 20 + " 1/3 episodes", "█" * 30 + " 3/3 episodes\n"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jsonl"], "missing.jsonl: cannot be read: No such file or directory"),
        (["bad.jsonl"], "bad.jsonl: line 1: not JSON"),
        (["good.jsonl", "--out", "nowhere/r.html"], "No such file or directory"),
        (["good.jsonl", "--compare", "empty.jsonl"], "there is no episode to report"),
        (["good.jsonl", "--thumbnails", "-1"], "thumbnails must be at least 0, got -1"),
        (["good.jsonl", "--out", "good.jsonl"], "good.jsonl names a file of traces"),
        (["../*.jsonl"], "../*.jsonl: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    append_trace("good.jsonl", played(Answer("B")))
    Path("bad.jsonl").write_text("{\n")
    Path("empty.jsonl").touch()
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym report: error: ") and said in error and error.count("\n") == 1
    assert not Path("report.html").exists()


def test_the_command_is_a_module_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "videogym", "report", "nothing"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "videogym report: error: nothing: cannot be read: No such file or directory\n"


def test_without_jinja_the_command_names_the_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None; from videogym.cli import main, progress_bar; "
        "sys.exit(main(['report', 'x.jsonl']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install jinja2" in done.stderr


# --- the random policy in each grammar ------------------------------------------------------------


def test_ten_random_episodes_in_each_grammar_are_reported(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "make_report_pictures.py")
    assert spec is not None and spec.loader is not None
    pictures_script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures_script)
    traces = pictures_script.all_grammars(tmp_path)
    write_report(traces, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    runs = [a["data-run"] for a in page.of("article")]
    assert {run: runs.count(run) for run in runs} == {f"random {name}": 10 for name in grammar_names()}
    # They do what random policies do: look, answer rightly and wrongly, and write what cannot be read.
    assert {a["data-verdict"] for a in page.of("article")} >= {"right", "wrong"}
    assert sum(int(a["data-refused"]) for a in page.of("article")) > 5
    outputs = [t.turn.text for trace in traces.episodes for t in trace.turns]
    shown = set(page.texts)
    assert all(text in shown for text in outputs)
    assert isinstance(traces.episodes[0].turns[0], TurnTrace)
