"""A person accepts and rejects tasks, in a browser; only what was accepted is exported when asked."""

# ruff: noqa: D103

import http.client
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from videogym import Segment, Task, VideoQAEnv
from videogym.cli import main
from videogym.data import DataError, WorkFolder, export, kept_tasks
from videogym.data.verdicts import Verdicts
from videogym.play import PlayServer, Refused, Review, Stale
from videogym.testing.coded_clips import write_clip
from videogym.video import VideoError, open_video

ADDRESS = "synthetic:brief_event?level=0&duration_s=600&seed=1"
TASKS = [
    Task("flag", ADDRESS, "Which flag?", "choice", ("red", "blue"), "B", (Segment(300.0, 303.0),)),
    Task("man", ADDRESS, "Who?", "open", answer="Ann", evidence=(Segment(10.0, 40.0), Segment(90.0, 90.4))),
    Task("bare", ADDRESS, "Where?", "open", answer="here"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.jsonl"


def lines(path: Path) -> list[tuple[str, str]]:
    return [(row["task_id"], row["verdict"]) for row in map(json.loads, path.read_text().splitlines())]


def test_a_task_is_shown_with_its_answer_and_the_frames_of_its_evidence(path: Path) -> None:
    with VideoQAEnv(TASKS) as env, Verdicts(path, writes=True) as verdicts:
        review = Review(env, verdicts)
        told = review.view()
        assert (told["outcome"]["right"], told["outcome"]["evidence"]) == ("B", [[300.0, 303.0]])
        assert told["review"] == {"verdict": None, "accepted": 0, "rejected": 0, "left": 3}
        skim, evidence = told["clips"]
        assert evidence["pictures"] == len(evidence["times_s"]) == 6  # of 3 s at 2 a second
        assert all(300.0 <= time_s < 303.0 for time_s in evidence["times_s"])
        picture = np.asarray(Image.open(io.BytesIO(review.picture(1, 1, 0) or b"")))
        with open_video(ADDRESS) as video:
            true = video.frames_at([evidence["times_s"][0]], size=tuple(skim["size"])).pixels[0]
        assert np.abs(picture.astype(int) - true).mean() < 4.0  # JPEG
        review.decide(1, True)
        told = review.view()
        assert [len(clip["times_s"]) for clip in told["clips"][1:]] == [16, 1]


def test_verdicts_are_appended_and_the_last_one_counts(path: Path) -> None:
    with VideoQAEnv(TASKS) as env, Verdicts(path, writes=True) as verdicts:
        review = Review(env, verdicts)
        with pytest.raises(Stale):
            review.decide(2, True)
        review.decide(1, True)
        review.decide(2, False)
        review.decide(3, True)
        assert lines(path) == [("flag", "accept"), ("man", "reject"), ("bare", "accept")]
        assert review.view()["review"] == {"verdict": True, "accepted": 2, "rejected": 1, "left": 0}
        review.decide(4, False)  # all have one, so it begins anew
        assert lines(path)[-1] == ("flag", "reject") and verdicts.of(TASKS[0]) is False
        with pytest.raises(Refused):
            review.act(5, 0, None)  # type: ignore[arg-type]


def test_a_review_goes_on_with_what_has_no_verdict(path: Path) -> None:
    with Verdicts(path, writes=True) as verdicts:
        verdicts.add(TASKS[0], True)
    with VideoQAEnv(TASKS) as env, Verdicts(path, writes=True) as verdicts:
        review = Review(env, verdicts)
        assert review.view()["outcome"]["task_id"] == "man"
        review.next_episode(1)
        assert review.view()["outcome"]["task_id"] == "bare"
        assert lines(path) == [("flag", "accept")], "going on is no verdict"


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """60 s at 4 frames a second; from 29 to 30 s, between two first frames, none can be decoded."""
    path = tmp_path / "torn.mp4"
    write_clip(path, 240, rate=4, codec_options={"g": "5", "bf": "0"})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for begin, size in packets[116:120]:
        content[begin : begin + size] = bytes(size)
    path.write_bytes(content)
    return path


def of_torn(torn: Path) -> list[Task]:
    """Four questions; the evidence of the second cannot be shown."""
    return [
        Task(name, torn.name, f"{name}?", "open", answer="Ann", evidence=(Segment(*span),))
        for name, span in (("a", (1.0, 3.0)), ("b", (29.0, 30.0)), ("c", (40.0, 41.0)), ("d", (50.0, 51.0)))
    ]


def test_a_task_whose_evidence_cannot_be_shown_is_passed_over_alone(torn: Path, path: Path) -> None:
    with (
        VideoQAEnv(of_torn(torn), video_root=str(torn.parent)) as env,
        Verdicts(path, writes=True) as verdicts,
    ):
        review = Review(env, verdicts)
        shown = []
        for episode in (1, 2, 3):
            shown.append(review.view()["outcome"]["task_id"])
            review.decide(episode, True)
        assert shown == ["a", "c", "d"]
        told = review.view()
        assert told["outcome"]["task_id"] == "a", "all that can be shown have a verdict"
        assert told["review"] == {"verdict": True, "accepted": 3, "rejected": 0, "left": 1}
        (why,) = told["skipped"]
        assert "torn.mp4: the frame at" in why and "cannot be decoded" in why


def test_where_nothing_can_be_shown_any_more_the_task_that_is_shown_stays(torn: Path, path: Path) -> None:
    tasks = of_torn(torn)
    with Verdicts(path, writes=True) as verdicts:
        verdicts.add(tasks[1], False)
        verdicts.add(tasks[2], False)
    with VideoQAEnv(tasks, video_root=str(torn.parent)) as env, Verdicts(path, writes=True) as verdicts:
        review = Review(env, verdicts)
        torn.unlink()
        with pytest.raises(VideoError, match="none of the 4 tasks has a usable video"):
            review.decide(1, True)
        told = review.view()
        assert (told["question"], told["outcome"]["task_id"], told["episode"]) == ("a?", "a", 1)
        assert told["review"]["verdict"] is True and len(told["clips"]) == 2


def test_a_verdict_says_nothing_of_a_task_that_has_changed(path: Path) -> None:
    with Verdicts(path, writes=True) as verdicts:
        verdicts.add(TASKS[0], True)
        for changes in (
            {"answer": "A"},
            {"evidence": None},
            {"question": "Who?"},
            {"options": ("red", "green")},
        ):
            assert verdicts.of(replace(TASKS[0], **changes)) is None  # type: ignore[arg-type]
        assert verdicts.of(replace(TASKS[0], video="elsewhere.mp4")) is True


def test_a_file_of_something_else_is_refused_and_so_is_a_second_reviewer(
    path: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="No such file of verdicts"):
        Verdicts(path)
    path.write_text('{"key": "a", "verdict": "perhaps"}\n')
    with pytest.raises(DataError, match="line 1: verdict must be accept or reject, got 'perhaps'"):
        Verdicts(path)
    other = tmp_path / "other.jsonl"
    with Verdicts(other, writes=True), pytest.raises(DataError, match="another review adds to this file"):
        Verdicts(other, writes=True)
    Verdicts(other, writes=True).close()


@pytest.fixture
def server(path: Path) -> Iterator[PlayServer]:
    with VideoQAEnv(TASKS) as env, Verdicts(path, writes=True) as verdicts:
        with PlayServer(Review(env, verdicts)) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield server
            server.shutdown()


def posted(server: PlayServer, body: object) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)) as line:
        line.request(
            "POST", f"/{server.token}/verdict", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())


def test_verdicts_come_by_http(server: PlayServer, path: Path) -> None:
    for body in ({"episode": 1}, {"episode": 1, "accepted": "yes"}, {"episode": 1, "accepted": 1}):
        assert posted(server, body)[0] == 400
    assert posted(server, {"episode": 9, "accepted": True})[0] == 409
    assert not path.exists()
    status, told = posted(server, {"episode": 1, "accepted": True})
    assert (status, told["episode"], told["outcome"]["task_id"]) == (200, 2, "man")
    assert lines(path) == [("flag", "accept")]


@pytest.mark.browser
def test_the_keys_y_and_n_decide(server: PlayServer, path: Path, browser: Any) -> None:
    from playwright.sync_api import expect

    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    refused: list[str] = []
    page.on("response", lambda reply: refused.append(reply.url) if reply.status >= 400 else None)
    page.goto(server.address)
    expect(page.locator("#outcome .verdict")).to_have_text("no verdict yet")
    expect(page.locator("#outcome dd").first).to_have_text("B. blue")
    expect(page.locator("#question")).to_have_text("Which flag?")
    page.keyboard.press("y")
    expect(page.locator("#question")).to_have_text("Who?")
    page.keyboard.press("n")
    expect(page.locator("#question")).to_have_text("Where?")
    page.locator("#accept").click()
    expect(page.locator("#outcome .verdict")).to_have_text("accepted")
    page.wait_for_load_state("networkidle")
    context.close()
    # Pictures of questions that were left while they loaded are there no more.
    assert complaints == [] and not [url for url in refused if not re.search(r"/frames/[123]/", url)]
    assert lines(path) == [("flag", "accept"), ("man", "reject"), ("bare", "accept")]


def test_only_what_was_accepted_is_exported_when_asked(tmp_path: Path, path: Path) -> None:
    from videogym.data.work import Item, run_step
    from videogym.datasets import load_tasks
    from videogym.datasets.task_files import task_row

    work = tmp_path / "work"
    with WorkFolder(work) as folder:
        folder.video_root = tmp_path
        parents: tuple[str, ...] = ()
        for step in ("scenes", "captions", "questions"):
            run_step(folder, step, [Item("a", parents, {}, {})], lambda source: source)
            parents = (folder.kept(step)[0]["key"],)
        (folder.file("scenes").rows[0]).update(
            video=ADDRESS, fingerprint=open_video(ADDRESS).meta.fingerprint
        )
        items = [Item(task.task_id, parents, {}, task) for task in TASKS]
        run_step(folder, "filter", items, lambda task: {"task": task_row(task)})
        assert kept_tasks(folder) == TASKS
        with Verdicts(path, writes=True) as verdicts:
            verdicts.add(TASKS[1], True)
            verdicts.add(TASKS[0], False)
        assert export(folder, "tasks", tmp_path / "all.jsonl") == 3
        assert export(folder, "tasks", tmp_path / "some.jsonl", accepted=path) == 1
    assert [task.task_id for task in load_tasks(str(tmp_path / "some.jsonl"))] == ["man"]
    line = ["data", "export", "--work", str(work), "--format", "tasks", "--out", str(tmp_path / "x.jsonl")]
    assert main([*line, "--accepted", str(tmp_path / "none.jsonl")]) == 2
    assert not (tmp_path / "x.jsonl").exists()


def test_a_review_stores_no_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["play", "--review", str(tmp_path / "v.jsonl"), "--traces", str(tmp_path / "t.jsonl")]
    assert main(line) == 2
    assert "--review plays nothing: leave --traces out" in capsys.readouterr().err
