"""A report that is too large for one page: nothing is lost, little is held, all or nothing appears."""

# ruff: noqa: D103

import gc
import json
import os
import re
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report import Page
from zoo import HOSTILE, UNICODE, played, zoo

from videogym import Answer, Crop
from videogym.cli import main
from videogym.report import parts, write_report
from videogym.traces import Trace, Traces, append_trace

CALL = re.compile(r'videogymReport\("(\w+)",(\d+),(.*)\)\n', re.DOTALL)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten episodes are many, and a file holds four."""
    monkeypatch.setattr(parts, "MOST_EPISODES", 10)
    monkeypatch.setattr(parts, "PART_EPISODES", 4)


def many(count: int, **changes: Any) -> tuple[Trace, ...]:
    """Episodes of which every third is right."""
    right, wrong = played(Crop(280, 320), Answer("B"), **changes), played(Answer("A"), **changes)
    one = [right if number % 3 == 0 else wrong for number in range(count)]
    return tuple(replace(t, task=replace(t.task, task_id=f"task {i}")) for i, t in enumerate(one))


def read(path: Path) -> Any:
    """What a file tells the page."""
    match = CALL.fullmatch(path.read_text(encoding="utf-8"))
    assert match is not None
    return json.loads(re.sub(r",\n\]$", "]", match[3]))


def book(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="book">(.*)</script>', page.read_text())
    return json.loads(text)


def test_a_page_of_ordinary_size_is_one_file(tmp_path: Path) -> None:
    assert write_report(Traces(many(10), 0), tmp_path / "r.html", thumbnails=0) is None
    assert os.listdir(tmp_path) == ["r.html"] and len(Page(tmp_path / "r.html").of("article")) == 10


def test_every_episode_of_a_large_report_is_in_its_files(tmp_path: Path) -> None:
    page = tmp_path / "r é.html"
    episodes = (*zoo(), *many(9))
    folder = write_report(Traces(episodes, 0), page, thumbnails=3)
    assert folder == tmp_path / "r é.files"
    told = book(page)
    assert told["count"] == 21 and not Page(page).of("article")
    place = tmp_path / told["folder"]
    # When the eleventh came it was too many for a page: files of 4, 4, 3; then of 4 as they came.
    assert told["starts"] == [1, 5, 9, 12, 16, 20]
    rows, texts = read(place / "index.js"), read(place / "texts.js")
    assert len(rows) == len(texts) == 21
    articles = [article for i in range(6) for article in read(place / f"part-{i}.js")]
    for number, (trace, article, row, text) in enumerate(
        zip(episodes, articles, rows, texts, strict=True), start=1
    ):
        found = _parsed(tmp_path, article)
        (attributes,) = found.of("article")
        assert attributes["data-number"] == str(number) and attributes["data-task"] == row[0]
        assert attributes["data-verdict"] == row[1]
        names = [
            told[kind][place] for kind, place in zip(("run", "recipe", "ending"), row[2:5], strict=True)
        ]
        assert names == [attributes[f"data-{kind}"] for kind in ("run", "recipe", "ending")]
        counts = [attributes[f"data-{name}"] for name in ("reward", "turns", "frames", "refused", "fault")]
        assert list(map(str, row[5:10])) == counts and float(row[5]) == pytest.approx(trace.reward)
        assert trace.task.question.lower()[:30] in text
        # What it shows lies beside it.
        part = max(i for i, start in enumerate(told["starts"]) if start <= number)
        shown = {image["data-picture"] for image in found.of("img")}
        assert not shown or shown <= read(place / f"pictures-{part}.js").keys()
    assert rows[2][0] == HOSTILE and "\ufffd\ufffd end" not in texts[2] and "日本語" in texts[2]
    assert UNICODE[:7].lower() in texts[2]


def _parsed(folder: Path, markup: str) -> Page:
    path = folder / "article.html"
    path.write_text(markup, encoding="utf-8")
    return Page(path)


def test_what_is_large_in_bytes_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_PAGE_BYTES", 30_000)
    assert write_report(Traces(many(3), 0), tmp_path / "r.html", thumbnails=0) is None
    assert write_report(Traces(many(3), 0), tmp_path / "r.html", thumbnails=12) is not None


def test_metrics_of_a_large_report_are_of_all_of_it(tmp_path: Path) -> None:
    """7 of 20 are right; all are shown the evidence by the skim."""
    write_report(Traces(many(20), 3), tmp_path / "r.html", thumbnails=0)
    text = "".join(Page(tmp_path / "r.html").texts)
    assert "35.0 % " in text and "3 unfinished last lines were left out" in text


def test_two_large_sides_are_told_apart(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    write_report(Traces(many(7), 0), page, Traces(many(7), 0), thumbnails=0)
    assert book(page)["run"] == ["zoo", "zoo (compared)"]
    assert [a for a in Page(page).of("option") if "data-first" in a] == [{"data-first": ""}] * 2


def test_no_more_is_held_than_a_page(tmp_path: Path) -> None:
    """Of 200 episodes that are read as they are reported not a quarter is alive at any time."""

    class Stream:
        torn, most = 0, 0

        def __iter__(self) -> Iterator[Trace]:
            alive: weakref.WeakSet[Any] = weakref.WeakSet()
            right = played(Answer("B"))
            for number in range(200):
                evidence = _Noted(right.recipe)
                alive.add(evidence)
                self.most = max(self.most, len(alive))
                yield replace(right, recipe=evidence, task=replace(right.task, task_id=str(number)))
                del evidence
                if number % 20 == 0:
                    gc.collect()

    class _Noted(str):
        """A text that can be watched; each episode has its own."""

        __hash__ = str.__hash__

    stream = Stream()
    write_report(stream, tmp_path / "r.html", thumbnails=0)
    assert book(tmp_path / "r.html")["count"] == 200 and stream.most < 50


# --- replacing one by another --------------------------------------------------------------------


def test_one_report_replaces_another(tmp_path: Path) -> None:
    page, folder = tmp_path / "r.html", tmp_path / "r.files"
    write_report(Traces(many(20), 0), page, thumbnails=0)
    (first,) = folder.iterdir()
    write_report(Traces(many(21), 0), page, thumbnails=0)
    (second,) = folder.iterdir()
    assert first != second and tmp_path / book(page)["folder"] == second
    # The same again is the same, to the byte.
    before = page.read_bytes()
    write_report(Traces(many(21), 0), page, thumbnails=0)
    assert page.read_bytes() == before and list(folder.iterdir()) == [second]
    write_report(Traces(many(3), 0), page, thumbnails=0)
    assert os.listdir(tmp_path) == ["r.html"]


def test_what_others_keep_in_the_folder_stays(tmp_path: Path) -> None:
    page, folder, elsewhere = tmp_path / "r.html", tmp_path / "r.files", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    folder.mkdir()
    (folder / "notes.txt").touch()
    (folder / ("0" * 32)).symlink_to(elsewhere)
    write_report(Traces(many(20), 0), page, thumbnails=0)
    write_report(Traces(many(3), 0), page, thumbnails=0)
    assert sorted(os.listdir(folder)) == ["0" * 32, "notes.txt"] and os.listdir(elsewhere) == ["kept"]


def test_what_a_killed_removal_left_is_not_taken_for_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer is killed while it removes the data of before; then the content of before comes again."""
    page, one, other = tmp_path / "r.html", Traces(many(20), 0), Traces(many(21), 0)
    write_report(one, page, thumbnails=0)
    really = shutil.rmtree

    def half(path: Path, *arguments: Any, **options: Any) -> None:
        if path.parent.name != "r.files":
            return really(path, *arguments, **options)
        next(path.glob("part-*.js")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        write_report(other, page, thumbnails=0)
    monkeypatch.setattr(shutil, "rmtree", really)
    write_report(one, page, thumbnails=0)
    told = book(page)
    articles = [
        a for i in range(len(told["starts"])) for a in read(tmp_path / told["folder"] / f"part-{i}.js")
    ]
    assert len(articles) == 20
    write_report(other, page, thumbnails=0)
    assert len(list((tmp_path / "r.files").iterdir())) == 1


@pytest.mark.parametrize("failing", [1, 3, 6, 8, 9])  # files and the page are each synced once
def test_what_fails_leaves_the_report_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    page = tmp_path / "r.html"
    write_report(Traces(many(21), 0), page, thumbnails=0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    calls, really = [], os.fsync

    def fail(handle: int) -> None:
        calls.append(handle)
        if len(calls) == failing:
            raise OSError(28, "No space left")
        really(handle)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_report(Traces(many(22), 0), page, thumbnails=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_line_that_cannot_be_read_is_known_late_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for trace in many(20):
        append_trace("t.jsonl", trace)
    with open("t.jsonl", "a", encoding="utf-8") as file:
        file.write('{"version": 1}\n')
    assert main(["report", "t.jsonl", "--thumbnails", "0"]) == 2
    lacking = ", ".join(map(repr, ("recipe", "task", "video", "skim", "turns", "ending", "cut", "correct")))
    assert f"t.jsonl: line 21: fields {lacking} are missing" in capsys.readouterr().err
    assert os.listdir() == ["t.jsonl"]


def test_the_command_says_where_the_episodes_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for trace in many(20):
        append_trace(tmp_path / "t.jsonl", trace)
    out = tmp_path / "r.html"
    assert main(["report", str(tmp_path / "t.jsonl"), "--out", str(out), "--thumbnails", "0"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert said.err.count("\n") == 1 and str(tmp_path / "r.files") in said.err
