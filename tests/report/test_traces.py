"""Stored episodes come back as they were played, whoever writes, and whatever a killed writer leaves."""

# ruff: noqa: D103

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given
from hypothesis import strategies as st
from zoo import HOSTILE, TASK, UNICODE, played, zoo

from videogym import (
    Answer,
    Crop,
    Invalid,
    Move,
    Region,
    Segment,
    Select,
    TextActions,
    VideoError,
    VideoQAEnv,
)
from videogym.actions import Find
from videogym.cli import main
from videogym.evaluate import evaluate
from videogym.report import write_report
from videogym.state import Action, Clip, Result, Task, Turn
from videogym.testing.env_suite import odd_action
from videogym.testing.policies import Random
from videogym.traces import (
    RecordTraces,
    Trace,
    TraceError,
    TurnTrace,
    append_trace,
    from_line,
    read_traces,
    to_line,
)
from videogym.traces.files import prepare, require_writable
from videogym.video import VideoMeta

PROOF = Path(__file__).parents[1] / "benchmarks" / "prove_traces.py"
LOOKS = (Crop(280, 320), Crop(9, 3))
TWO_LOOKS = (*LOOKS, Answer("B"))

# --- lines ---------------------------------------------------------------------------------------

any_text = st.text(st.characters(), max_size=20) | st.sampled_from([HOSTILE, UNICODE, "\u2028\n\r\x85"])
full_text = any_text.filter(bool)
any_float = st.floats()
seconds = st.floats(0, 1e5)
regions = st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.5, 1), st.floats(0.5, 1))
segments = st.tuples(seconds, st.floats(0.001, 1e5)).map(lambda pair: Segment(pair[0], sum(pair)))
clips = st.builds(
    Clip,
    st.lists(seconds, max_size=4).map(tuple),
    st.none() | regions.map(lambda box: Region(*box)),
)
invalids = st.builds(Invalid, any_text, any_text)
boxes = st.none() | st.tuples(*[any_float] * 4)
refused = st.builds(
    Result,
    st.builds(Select, any_float, any_float) | st.builds(Crop, any_float, any_float, boxes) | invalids,
    error=invalids,
)
executed = st.builds(
    Result,
    st.builds(lambda s: Crop(s.start_s / 1e6, s.end_s), segments) | st.builds(Answer, any_text),
)
looked = st.builds(
    lambda result, clip: replace(result, clip=clip) if isinstance(result.action, Crop) else result,
    executed,
    clips,
)
turns = st.builds(
    TurnTrace,
    st.builds(
        Turn,
        st.lists(refused | looked, max_size=3).map(tuple),
        st.none() | any_text,
        st.booleans(),
        any_text,
    ),
    any_float,
    st.dictionaries(any_text, st.none() | any_float, max_size=3),
)
tasks = st.builds(
    Task,
    full_text,
    full_text,
    full_text,
    st.just("open"),
    answer=any_text,
    evidence=st.none() | st.lists(segments, max_size=3).map(tuple),
    source=any_text,
)
tasks = st.builds(
    lambda task, box: replace(task, evidence_region=box and Region(*box)) if task.evidence else task,
    tasks,
    st.none() | regions,
)
videos = st.builds(
    VideoMeta,
    any_text,
    st.floats(1, 1e5),
    st.integers(0, 10**9),
    any_float.filter(lambda x: abs(x) < 1e9),
    st.integers(1, 9999),
    st.integers(1, 9999),
    any_text,
    st.booleans(),
    st.integers(0, 270),
)
traces = st.builds(
    Trace,
    any_text,
    any_text,
    tasks,
    videos,
    clips,
    st.lists(turns, max_size=3).map(tuple),
    st.sampled_from(["", "answered", "turn_limit", "call_limit", "malformed"]),
    any_text,
    st.none() | st.booleans(),
)


@given(traces)
def test_a_trace_comes_back_from_its_line(trace: Trace) -> None:
    line = to_line(trace)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    # Compared as it is written, since a NaN equals nothing.
    assert to_line(from_line(line)) == line


def test_episodes_that_were_played_come_back_equal() -> None:
    for trace in zoo():
        if trace.task.task_id != "left":  # it asks for a segment from NaN
            assert from_line(to_line(trace)) == trace


def test_a_line_by_hand() -> None:
    """What other readers rely on: a look at a third of the evidence, a refused one, the right answer."""
    row = json.loads(to_line(played(Crop(300, 310), Move((Crop(9, 3),), "oops"), Answer("B"))))
    assert row["version"] == 1 and row["run"] == "zoo" and row["recipe"].startswith("DEFAULT@")
    assert row["task"] == {
        "task_id": "zoo",
        "video": "synthetic:brief_event?level=0&duration_s=600&seed=1",
        "question": "Which flag?",
        "kind": "choice",
        "options": ["red", "blue"],
        "answer": "B",
        "evidence": [[300, 330]],
        "source": "zoo",
        "evidence_region": None,
    }
    assert row["video"]["duration_s"] == 600 and row["video"]["width"] == 640
    assert len(row["skim"]["times_s"]) == 32 and row["skim"]["region"] is None
    look, refusal, answer = row["turns"]
    (result,) = look["results"]
    assert result["action"] == {"kind": "crop", "start_s": 300, "end_s": 310, "region": None}
    assert result["clip"]["times_s"][0] == 300 and result["error"] is None
    # Half of the IoU, which is a third; the answer is due at the end.
    paid = 0.5 * (1 / 3 - 30 / 600)  # of the evidence the skim has a twentieth
    assert look["terms"] == {"coverage": pytest.approx(paid), "answer": None, "gate": None}
    assert look["text"] is None and look["reward"] == pytest.approx(paid) and look["fault"] == ""
    assert refusal["text"] == "oops" and refusal["results"][0]["clip"] is None
    assert refusal["results"][0]["error"]["code"] == "order"
    assert answer["terms"] == {"coverage": 0, "answer": 1, "gate": 0}
    assert (row["ending"], row["cut"], row["correct"], row["answer"]) == ("answered", "", True, "B")
    assert row["reward"] == pytest.approx(1 + paid)


def test_numbers_that_json_lacks_are_written_as_text() -> None:
    line = to_line(played(Crop(float("nan"), float("-inf")), cut="left"))
    action = json.loads(line, parse_constant=lambda name: pytest.fail(name))["turns"][0]["results"][0][
        "action"
    ]
    assert (action["start_s"], action["end_s"]) == ("nan", "-inf")


GOOD = json.loads(to_line(played(Crop(280, 320, (0.1, 0.1, 0.9, 0.9)), Crop(9, 3), Answer("B"))))


def broken(path: str, value: object) -> bytes:
    """The line of a good trace with one field set to a value, or taken away."""
    row = json.loads(json.dumps(GOOD))
    *way, last = path.split(".")
    inner = row
    for name in way:
        inner = inner[int(name) if name.isdigit() else name]
    if value is KeyError:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return json.dumps(row).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", 2, "'version' must be 1, got 2"),
        ("run", KeyError, "'run' is missing"),
        ("run", 5, "'run' must be str, got 5"),
        ("correct", 1, "'correct' must be bool, got 1"),
        ("ending", "won", "'ending' must be one of"),
        ("task", [], "'task' must be dict"),
        ("task.answer", "Z", "answer must be one of A, B"),
        ("task.options", ["red", 5], "'options' must be str, got 5"),
        ("task.evidence", [[30, 20]], "0 <= start_s < end_s"),
        ("task.evidence", [30, 40], r"\[\[start_s, end_s\], ...\]"),
        ("video.duration_s", 0, "'duration_s' must be seconds above 0"),
        ("video.height", 0, "at least one pixel, got 640 x 0"),
        ("video.width", True, "'width' must be int, got True"),
        ("skim.times_s", ["nan"], "'skim.times_s' must be int or float"),
        ("skim.times_s", [10**400], "too large"),
        ("turns", {}, "'turns' must be list"),
        ("turns.0.reward", None, r"'turns\[0\].reward' must be int or float"),
        ("turns.0.terms", [1], r"'turns\[0\].terms' must be dict"),
        ("turns.0.results.0.action.kind", "jump", "'kind' must be one of"),
        ("turns.0.results.0.clip.region", [0, 0, 1], r"\[x0, y0, x1, y1\]"),
        ("turns.0.results.0.clip.region", [0, 0, 2, 1], r"must lie in \[0, 1\]"),
        ("turns.0.results.0.clip.scale", 0.0, "'turns.*scale' must be a finite number above 0"),
        ("turns.1.results.0.error.reason", None, "'reason' must be str"),
    ],
)
def test_a_field_that_is_wrong_is_named(path: str, value: object, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        from_line(broken(path, value))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[]", "must be dict"),
        (b'{"version": 1', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "recursion"),
        (b'{"version": NaN}', "NaN is no JSON"),
    ],
)
def test_what_is_no_trace_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        from_line(line)


def test_fields_of_others_are_passed_over() -> None:
    assert from_line(broken("note", "mine")) == from_line(json.dumps(GOOD).encode())


# --- files ---------------------------------------------------------------------------------------


def test_what_is_cut_at_any_byte_loses_the_last_episode_and_no_more(tmp_path: Path) -> None:
    path, first = tmp_path / "t.jsonl", played(*TWO_LOOKS)
    second = replace(first, task=replace(first.task, question=UNICODE[:-5]))
    whole = to_line(first) + to_line(second)
    start = len(to_line(first))
    for end in [*range(start, len(whole) + 1, 7), *range(start, start + 40), len(whole) - 1, len(whole)]:
        path.write_bytes(whole[:end])
        found = read_traces(path)
        # A line that lacks nothing but its end is whole.
        kept = (first, second) if end >= len(whole) - 1 else (first,)
        assert found.episodes == kept
        assert found.torn == (start < end < len(whole) - 1)


@pytest.mark.parametrize("size", [0, 1, 40, 1000, -1])
def test_the_next_writer_cuts_what_is_torn(tmp_path: Path, size: int) -> None:
    path, trace = tmp_path / "t.jsonl", played(*TWO_LOOKS)
    line = to_line(trace)
    path.write_bytes(line + line[:size] if size else line)
    append_trace(path, trace)
    # All of a line but its end is no loss: the end is added.
    assert path.read_bytes() == line * (3 if size == -1 else 2)


def test_a_last_line_longer_than_any_block_is_found(tmp_path: Path) -> None:
    path, trace = tmp_path / "t.jsonl", played(*TWO_LOOKS)
    long = replace(trace, run="x" * 200_000)
    for torn in (to_line(long)[:-5], to_line(long)[:65_536], to_line(long)[:65_537]):
        path.write_bytes(to_line(trace) + torn)
        append_trace(path, trace)
        assert path.read_bytes() == to_line(trace) * 2


def test_what_is_not_ours_is_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for text in (b"some notes", b'line one\n{"version": 2, "run": "x', b"\x00\x00"):
        path.write_bytes(text)
        with pytest.raises(TraceError, match="left as it is"):
            append_trace(path, played(*TWO_LOOKS))
        assert path.read_bytes() == text


@pytest.mark.parametrize(
    "text", [b"notes\n", b'{"a": 1}\n', b'{"a": 1}', b'\n{"version": 2, "run": "x"}\n']
)
def test_a_file_of_something_else_is_refused_before_the_first_episode(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "other.jsonl"
    path.write_bytes(text)
    for refusing in (prepare, require_writable):
        with pytest.raises(TraceError, match=r"other\.jsonl: line [12]: .*left as it is"):
            refusing(path)
    assert (
        main(
            [
                "eval",
                "oracle",
                "--tasks",
                "procedural:brief_event?level=0&count=1&split=test",
                "--traces",
                str(path),
            ]
        )
        == 2
    )
    assert path.read_bytes() == text


def test_any_other_broken_line_names_file_and_line(tmp_path: Path) -> None:
    path, line = tmp_path / "t.jsonl", to_line(played(*TWO_LOOKS))
    path.write_bytes(line + b"\n" + line[:100] + b"\n" + line)
    with pytest.raises(TraceError, match=r"t\.jsonl: line 3: not JSON"):
        read_traces(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "folder/x", "zero\0byte"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read_traces(tmp_path / name)


@pytest.mark.parametrize("command", ["report", "diff", "eval"])
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_what_has_no_end_is_refused_in_one_line(tmp_path: Path, command: str, kind: str) -> None:
    """A device, a pipe that nobody writes to, and a terabyte of zeros, in a process that may hang."""
    path = tmp_path / "t.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    arguments = {
        "report": [str(path), "--out", str(tmp_path / "r.html"), "--thumbnails", "0"],
        "diff": [str(path), str(path)],
        "eval": ["oracle", "--tasks", str(path)],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "videogym", command, *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and str(path) in done.stderr
    if kind != "sparse":
        assert "not a regular file" in done.stderr


@pytest.mark.parametrize("name", ["width", "height", "num_frames", "rotation", "avg_fps", "duration_s"])
@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, 2**80])
def test_a_number_that_no_video_has_is_named(tmp_path: Path, name: str, value: float) -> None:
    row = json.loads(to_line(played(Answer("B"))))
    row["video"][name] = (
        value if name in ("avg_fps", "duration_s") or isinstance(value, int) else int(value)
    )
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(TraceError, match=rf"line 1: field '{name}' must be at most ") as caught:
        read_traces(tmp_path / "t.jsonl")
    assert len(str(caught.value)) < 300


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"no \*\.jsonl"):
        read_traces(tmp_path)
    for name in ("b ü.jsonl", "a.jsonl"):
        append_trace(tmp_path / name, played(Answer("B"), run=name))
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"version": 1, "ru')
    found = read_traces(tmp_path)
    assert [trace.run for trace in found.episodes] == ["a.jsonl", "b ü.jsonl"] and found.torn == 1


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, trace, write = tmp_path / "t.jsonl", played(*TWO_LOOKS), os.write
    append_trace(path, trace)
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:100]))
    with pytest.raises(OSError, match="No space left"):
        append_trace(path, trace)
    assert path.read_bytes() == to_line(trace)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Lines of 300 kB are written in many pieces: without a lock they would mix."""
    path = tmp_path / "t.jsonl"
    program = (
        "import sys; from dataclasses import replace; from zoo import played; from videogym import Answer;"
        "from videogym.traces import append_trace\n"
        "trace = replace(played(Answer('B')), cut='x' * 300_000)\n"
        "for i in range(30): append_trace(sys.argv[1], replace(trace, run=f'{sys.argv[2]} {i}'))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), name], cwd=Path(__file__).parent)
        for name in "ab"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    runs = [trace.run for trace in read_traces(path).episodes]
    assert sorted(runs) == sorted(f"{name} {i}" for name in "ab" for i in range(30))
    for name in "ab":
        assert [run for run in runs if run[0] == name] == [f"{name} {i}" for i in range(30)]


def test_killed_writers_lose_and_break_nothing() -> None:
    """At two moments each, one of them while it writes; fifty are tests/benchmarks/prove_traces.py."""
    done = subprocess.run([sys.executable, str(PROOF), "--moments", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- recording -----------------------------------------------------------------------------------


def recorder(path: Path, **changes: object) -> tuple[RecordTraces, VideoQAEnv]:
    env = VideoQAEnv([TASK], "DEFAULT", **changes)  # type: ignore[arg-type]
    return RecordTraces(env, path), env


def test_an_episode_is_stored_when_its_last_step_returns(tmp_path: Path) -> None:
    env, _ = recorder(tmp_path / "my run.jsonl")
    env.reset(seed=0)
    paid = 0.0
    for action in TWO_LOOKS:
        assert not read_traces(tmp_path / "my run.jsonl").episodes
        _, reward, _, _, info = env.step(action)
        paid += reward
    (trace,) = read_traces(tmp_path / "my run.jsonl").episodes
    assert trace == replace(played(*TWO_LOOKS), run="my run")
    assert trace.reward == paid and trace.correct and info["is_success"]
    assert trace.frames_shown == info["frames_shown"]
    env.reset()
    env.close()
    assert len(read_traces(tmp_path / "my run.jsonl").episodes) == 1


@pytest.mark.parametrize("env_id", sorted(name for name in gymnasium.registry if "videogym/" in name))
def test_whatever_was_played_is_read_back(env_id: str, tmp_path: Path) -> None:
    """Numbers that no policy should put out; in rules that clamp many of them are executed."""
    env = RecordTraces(gymnasium.make(env_id, tasks=[TASK]), tmp_path / "t.jsonl")
    rng = np.random.default_rng(3)
    env.action_space.seed(3)
    shown = []
    for _ in range(12):
        env.reset()
        ended = False
        while not ended:
            action = odd_action(env, rng)
            if rng.random() < 0.7:  # a look, with what may be left out left out
                action |= {"kind": 0} | {name: np.zeros(1) for name in ("fps", "scale") if name in action}
                action |= {"frames": 0} if "frames" in action else {}
            *_, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
        shown.append(env.unwrapped.state.turns)
    env.close()
    stored = read_traces(tmp_path / "t.jsonl").episodes
    # By their texts: NaN is not equal to itself.
    assert [repr(tuple(paid.turn for paid in one.turns)) for one in stored] == [repr(one) for one in shown]
    write_report(read_traces(tmp_path / "t.jsonl"), tmp_path / "page.html", thumbnails=0)


def test_looks_that_rules_clamp_are_stored_like_all_others() -> None:
    eva = played(Crop(300.0, 120.0), Answer("B"), recipe="EVA/code")  # no count, no scale
    zoom = played(Crop(700, 710), Answer("B"), recipe="VIDEO_ZOOMER/code")  # behind the end, no rate
    for trace in (eva, zoom):
        assert trace.turns[0].turn.looked and not trace.looks
        assert from_line(to_line(trace)) == trace


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-3])
def test_a_look_that_is_shrunk_keeps_a_scale(scale: float) -> None:
    trace = played(Crop(0, 600, frames=10**6, scale=scale), recipe="EVA/code")
    (result,) = trace.turns[0].turn.results
    assert result.clip is not None and result.clip.scale is not None and result.clip.scale > 0
    assert from_line(to_line(trace)) == trace


@pytest.mark.parametrize(
    "action",
    [
        Crop(np.float32(1), np.float32(5)),
        Crop(np.int64(1), np.float16(5)),
        Crop(1, 5, np.array([0.1, 0.2, 0.5, 0.9], np.float32)),
        Crop(1, 5, [0.1, float("nan"), 0.5, 0.9]),
        Crop(1, 5, 7),  # type: ignore[arg-type]
        Crop(1, 5, Region(np.float32(0.1), 0, 1, 1)),
        Crop("a", 5),  # type: ignore[arg-type]
        Crop(0, 10**400),
        Crop(None, True),  # type: ignore[arg-type]
        Select(np.float32(1), np.float32(5)),
        Answer(5),  # type: ignore[arg-type]
        Answer(None),  # type: ignore[arg-type]
        Find(5),  # type: ignore[arg-type]
    ],
    ids=repr,
)
@pytest.mark.parametrize("recipe", ["DEFAULT", "FIND", "VIDEO_MTR/paper", "LONGVT/code", "EVA/code"])
def test_actions_of_other_numbers_and_of_none_are_played_and_read_back(action: Action, recipe: str) -> None:
    trace = played(action, Answer("B"), recipe=recipe)
    assert repr(from_line(to_line(trace)).turns) == repr(trace.turns)
    assert type(Crop(np.float32(1), 5).start_s) is type(Crop(1, 5).end_s) is float
    assert not trace.turns[0].turn.valid or isinstance(action, Crop | Select)


def test_evidence_of_an_arrays_numbers_is_stored() -> None:
    evidence = (Segment(np.float32(1.5), np.int64(4)),)
    trace = played(Answer("B"), evidence=evidence, evidence_region=Region(*np.float32([0, 0, 0.5, 1])))
    assert from_line(to_line(trace)) == trace and trace.task.evidence == (Segment(1.5, 4.0),)


def test_an_episode_that_a_full_disk_refused_is_stored_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused when it ended by an answer, by a limit, and when it was left."""
    path = tmp_path / "t.jsonl"
    env = RecordTraces(TimeLimit(VideoQAEnv([TASK]), 2), path)
    for number, (goes_on, last) in enumerate([([], Answer("B")), (LOOKS[:1], LOOKS[1]), (LOOKS[:1], None)]):
        env.reset(seed=0)
        for action in goes_on:
            env.step(action)
        with monkeypatch.context() as full:
            full.setattr("videogym.traces.recording.append_trace", _full_disk)
            if last is not None:
                with pytest.raises(OSError, match="No space"):
                    env.step(last)
            for _ in range(2):
                with pytest.raises(OSError, match="No space"):
                    env.reset(seed=0)
        assert len(read_traces(path).episodes) == number
    env.close()
    found = read_traces(path).episodes
    assert [(one.answer, one.cut) for one in found] == [("B", ""), (None, "truncated"), (None, "left")]


def test_an_episode_that_is_no_line_does_not_hinder_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, _ = recorder(tmp_path / "t.jsonl")
    env.reset(seed=0)
    with monkeypatch.context() as broken:
        broken.setattr("videogym.traces.recording.append_trace", _no_line)
        with pytest.raises(TypeError):
            env.step(Answer("B"))
    env.reset(seed=0)
    env.step(Answer("A"))
    env.close()
    assert [one.answer for one in read_traces(tmp_path / "t.jsonl").episodes] == ["A"]


def _no_line(*_: object) -> None:
    raise TypeError("Object of type object is not JSON serializable")


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_episode_that_is_left_is_stored_by_whoever_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    env, _ = recorder(path)
    env.reset(seed=0)
    env.reset()  # nothing was played
    env.step(Crop(280, 320))
    env.reset()
    env.step(Crop(9, 3))
    env.close()
    env.close()
    first, second = read_traces(path).episodes
    assert first == replace(played(Crop(280, 320), cut="left"), run="t")
    assert second == replace(played(Crop(9, 3), cut="left"), run="t")


def test_a_limit_around_the_environment_cuts_the_episode(tmp_path: Path) -> None:
    env = RecordTraces(TimeLimit(VideoQAEnv([TASK]), 2), tmp_path / "t.jsonl", run="cut")
    env.reset(seed=0)
    for _ in range(2):
        env.step(Crop(9, 3))
    (trace,) = read_traces(env.path).episodes
    assert (trace.cut, trace.ending, len(trace.turns), trace.run) == ("truncated", "", 2, "cut")


def test_a_fault_that_is_reported_afterwards_takes_back_what_the_turn_was_paid(tmp_path: Path) -> None:
    env, inner = recorder(tmp_path / "t.jsonl")
    env.reset(seed=0)
    env.step(Crop(280, 320))
    inner.report_fault("no packet")
    env.close()
    (trace,) = read_traces(env.path).episodes
    assert trace.cut == "fault: no packet" and trace.turns[0].turn.fault == "no packet"
    assert trace.reward == 0 and trace.turns[0].terms == {"coverage": None, "answer": None, "gate": None}


def test_an_episode_that_was_branched_is_stored_whole(tmp_path: Path) -> None:
    """The wrapper saw the second turn of no branch paid, but another one in its place."""
    env, inner = recorder(tmp_path / "t.jsonl")
    env.reset(seed=0)
    env.step(Crop(280, 320))
    before = inner.get_state()
    inner.step(Crop(300, 330))
    fork = inner.get_state()
    env.step(Answer("A"))
    inner.set_state(before)
    env.step(Crop(9, 3))
    inner.set_state(fork)
    env.step(Answer("B"))
    wrong, right = read_traces(env.path).episodes
    assert wrong == replace(played(Crop(280, 320), Crop(300, 330), Answer("A")), run="t")
    assert right == replace(played(Crop(280, 320), Crop(300, 330), Answer("B")), run="t")


def test_payments_are_kept_as_they_came(tmp_path: Path) -> None:
    """What a wrapper below made of the reward, not what the terms say."""
    inner = VideoQAEnv([TASK])
    env = RecordTraces(gymnasium.wrappers.TransformReward(inner, lambda r: 10 * r), tmp_path / "t.jsonl")
    env.reset(seed=0)
    env.step(Answer("B"))
    (trace,) = read_traces(env.path).episodes
    assert trace.reward == 10 and trace.turns[0].terms["answer"] == 1


def test_text_is_kept_unchanged(tmp_path: Path) -> None:
    env = RecordTraces(TextActions(VideoQAEnv([TASK])), tmp_path / "t.jsonl")
    env.reset(seed=0)
    env.step(HOSTILE)
    env.step(UNICODE)
    env.close()
    (trace,) = read_traces(env.path).episodes
    assert [turn.turn.text for turn in trace.turns] == [HOSTILE, UNICODE]
    assert trace.turns[0].turn.error is not None


def test_what_is_evaluated_is_what_is_stored(tmp_path: Path) -> None:
    env = RecordTraces(VideoQAEnv("procedural:brief_event?duration_s=60&count=20"), tmp_path / "t.jsonl")
    report = evaluate(Random(0), env)
    stored = read_traces(env.path).episodes
    assert [trace.task.task_id for trace in stored] == [episode.task_id for episode in report.episodes]
    assert [trace.reward for trace in stored] == [episode.reward for episode in report.episodes]
    assert [trace.correct for trace in stored] == [episode.correct for episode in report.episodes]
    assert sum(trace.frames_shown for trace in stored) == report.frames.mean * 20


def test_a_vector_of_environments_shares_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    envs = gymnasium.vector.SyncVectorEnv([lambda: recorder(path)[0]] * 3)
    envs.reset(seed=0)
    action = envs.single_action_space.sample() | {"kind": 1, "option": 1}
    envs.step(
        gymnasium.vector.utils.create_empty_array(envs.single_action_space, 3)
        | {"kind": [1, 1, 1], "option": [1, 0, 1], "answer": (action["answer"],) * 3}
    )
    assert [trace.correct for trace in read_traces(path).episodes] == [True, False, True]


def test_the_wrapper_is_recreated_from_its_spec(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    made = RecordTraces(gymnasium.make("videogym/VideoQA-v0"), path, run="again")
    assert made.spec is not None
    again = gymnasium.make(made.spec)
    assert isinstance(again, RecordTraces) and (again.path, again.run) == (str(path), "again")


def test_a_file_that_cannot_be_written_is_known_before_the_first_episode(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="folder does not exist"):
        recorder(tmp_path / "nowhere" / "t.jsonl")
    with pytest.raises(ValueError, match="needs a videogym environment, got CartPoleEnv"):
        RecordTraces(gymnasium.make("CartPole-v1"), tmp_path / "t.jsonl")


def test_a_bad_video_stores_nothing(tmp_path: Path) -> None:
    env = RecordTraces(VideoQAEnv([replace(TASK, video="/nowhere.mp4")]), tmp_path / "t.jsonl")
    with pytest.raises(VideoError):
        env.reset(seed=0)
    env.close()
    assert read_traces(env.path).episodes == ()


def test_sums_of_turns_are_those_of_the_environment() -> None:
    for trace in zoo():
        assert trace.frames_shown == sum(len(clip.times_s) for clip in trace.clips)
        assert all(one.end_s <= trace.video.duration_s for one in trace.looks)
    assert all(one != other for one, other in pairwise(zoo()))


def test_all_that_a_line_lacks_is_named(tmp_path):
    """Of the line itself, and of what is in it."""
    sound = GOOD
    for place, names in (
        ((), ("recipe", "ending", "cut")),
        (("task",), ("question", "answer")),
        (("video",), ("fingerprint", "width")),
        (("skim",), ("times_s", "region")),
        (("turns", 0), ("well_formed", "terms")),
        (("turns", 0, "results", 0), ("clip", "error")),
    ):
        row = json.loads(json.dumps(sound))
        inner = row
        for step in place:
            inner = inner[step]
        for name in names:
            del inner[name]
        listed = ", ".join(map(repr, names))
        with pytest.raises(TraceError, match=f"^fields {listed} are missing$"):
            from_line(json.dumps(row).encode())
