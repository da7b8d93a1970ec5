"""The log: what is written stays, whoever writes beside and whenever a writer is killed."""

# ruff: noqa: D103

from __future__ import annotations

import json
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from videogym.judging import (
    Judgement,
    JudgementLog,
    JudgementLogError,
    Reply,
    parse_verdict_code,
    parse_verdict_strict,
)


def judgement(number: int, text: str | None = "Judgement: 1", **changes: object) -> Judgement:
    fields: dict[str, object] = {
        "task_id": f"t{number}",
        "question": "Which?",
        "reference": "red",
        "answer": f"answer {number}",
        "request": {"model": "m", "messages": [{"role": "user", "content": f"prompt {number}"}]},
        "reply": None if text is None else Reply(text, model="served"),
        "error": "deadline: too slow" if text is None else "",
        "parser": "parse_verdict_strict",
        "verdict": 1.0,
        "time": "2026-01-01T00:00:00+00:00",
    }
    return Judgement(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_log_gives_back_what_it_was_given(tmp_path: Path) -> None:
    log = JudgementLog(tmp_path / "new folder" / "judge ü.jsonl")
    assert log.find(judgement(0).key) is None
    given = [judgement(0), judgement(1, 'a "b"\n\u2028\x00 \ud800 é 🎈'), judgement(2, None)]
    assert [log.add(item) for item in given] == [item.reply for item in given]
    assert list(JudgementLog(log.path)) == given
    assert log.find(given[1].key) == JudgementLog(log.path).find(given[1].key) == given[1].reply
    assert log.path.read_bytes().count(b"\n") == 3


def test_the_first_reply_to_a_request_stays_and_an_abstention_is_no_reply(tmp_path: Path) -> None:
    ours, theirs = JudgementLog(tmp_path / "log"), JudgementLog(tmp_path / "log")
    assert ours.add(judgement(0, None)) is None
    assert theirs.add(judgement(0, "Judgement: 0")) == Reply("Judgement: 0", model="served")
    # Ours was asked at the same time: it takes what is stored, with or without a reply of its own.
    assert ours.add(judgement(0, "Judgement: 1")) == Reply("Judgement: 0", model="served")
    assert ours.add(judgement(0, None)) == Reply("Judgement: 0", model="served")
    assert [item.reply and item.reply.text for item in ours] == [None, "Judgement: 0"]


def test_a_reply_is_found_under_all_that_decides_it_and_nothing_else() -> None:
    one = judgement(0)
    assert one.key == judgement(0, None, task_id="other", parser="code", verdict=None, time="").key
    for changed in ({"model": "n"}, {"seed": 1}, {"messages": []}, {"max_tokens": 9}):
        assert judgement(0, request={**one.request, **changed}).key != one.key
    assert judgement(0, request=dict(reversed(one.request.items()))).key == one.key


def test_another_parser_reads_the_stored_replies(tmp_path: Path) -> None:
    log = JudgementLog(tmp_path / "log")
    for number, text in enumerate(["Judgement: 1", "1.0", "Judgement: 0.1", "well", None]):
        log.add(judgement(number, text))
    log.add(judgement(9, reply=Reply("Judgement: 0", complete=False)))
    assert [item.verdict_by(parse_verdict_strict) for item in log] == [1, 1, None, None, None, None]
    assert [item.verdict_by(parse_verdict_code) for item in log] == [1, 0, 1, 0, None, None]
    with pytest.raises(ValueError, match=r"None or in \[0, 1\]; .*read 7 in 'Judgement: 1'"):
        next(iter(log)).verdict_by(lambda text: 7)


# --- what others leave -------------------------------------------------------------------------


def test_a_torn_last_line_is_dropped_in_reading_and_cut_in_writing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    JudgementLog(path).add(judgement(0))
    whole = path.read_bytes()
    JudgementLog(path).add(judgement(1, answer="long " * 100))  # what is left can be longer than what comes
    line = path.read_bytes()[len(whole) :]
    for length in (1, 5, len(line) // 2, len(line) - 1):
        path.write_bytes(whole + line[:length])
        log = JudgementLog(path)
        assert [item.task_id for item in log] == ["t0"]
        assert log.find(judgement(1).key) is None
        assert path.read_bytes() == whole + line[:length], "reading must not write"
        log.add(judgement(2))
        assert [item.task_id for item in JudgementLog(path)] == ["t0", "t2"]
        assert path.read_bytes().endswith(b"\n"), "nothing is left behind the new line"


@pytest.mark.parametrize("content", [b"my notes", b'{"task_id": "a"}', b"\x00\x01", b'{"version": 2, "x'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    for use in (list, lambda log: log.find("?"), lambda log: log.add(judgement(0))):
        with pytest.raises(JudgementLogError, match="notes ends in something that is no piece of a judgem"):
            use(JudgementLog(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: b"{broken", "line 2: JSONDecodeError"),
        (lambda line: b"[]", "line 2: "),
        (lambda line: b"null", "line 2: "),
        (lambda line: b"", "line 2: JSONDecodeError"),
        (lambda line: b"\xff\xfe", "line 2: UnicodeDecodeError"),
        (lambda line: line.replace(b'"version": 1', b'"version": 2'), "version 2, this code reads 1"),
        (lambda line: line.replace(b'"question"', b'"query"'), "query"),
        (lambda line: line.replace(b'"complete"', b'"whole"'), "whole"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "log"
    log = JudgementLog(path)
    log.add(judgement(0))
    line = path.read_bytes().rstrip(b"\n")
    with path.open("ab") as file:
        file.write(change(line) + b"\n")  # type: ignore[operator]
    for use in (list, lambda log: log.find("?"), lambda log: log.add(judgement(1))):
        with pytest.raises(JudgementLogError, match=message):
            use(JudgementLog(path))
    assert log.find(judgement(0).key) is not None, "what was read before stays"


def test_a_file_begun_anew_is_read_anew(tmp_path: Path) -> None:
    log = JudgementLog(tmp_path / "log")
    for number in range(3):
        log.add(judgement(number))
    log.path.unlink()
    JudgementLog(log.path).add(judgement(7))
    assert log.find(judgement(7).key) is not None
    assert log.find(judgement(0).key) is None


def test_a_pickled_log_reads_its_file_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = JudgementLog("log")
    log.add(judgement(0))
    data = pickle.dumps(log)
    assert b"answer 0" not in data
    monkeypatch.chdir("/")
    assert pickle.loads(data).find(judgement(0).key) == judgement(0).reply


# --- many writers ------------------------------------------------------------------------------

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_judgement_log import JudgementLog, judgement
log = JudgementLog(sys.argv[2])
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    reply = log.add(judgement(number, f"Judgement: {sys.argv[5]}"))
    print(number, reply.text[-1], flush=True)
"""


def writer(path: Path, first: int, stop: int, verdict: int) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(path), str(first), str(stop), str(verdict)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def test_processes_share_one_file_and_agree_on_every_reply(tmp_path: Path) -> None:
    """Two processes get different replies to the same forty requests: both keep the stored one."""
    path = tmp_path / "log"
    writers = [writer(path, 0, 40, verdict) for verdict in (0, 1)]
    told = [process.communicate(timeout=60)[0] for process in writers]
    assert [process.returncode for process in writers] == [0, 0]
    assert told[0] == told[1] and len(told[0].splitlines()) == 40
    stored = [f"{item.task_id[1:]} {item.reply.text[-1]}" for item in JudgementLog(path) if item.reply]
    assert sorted(stored) == sorted(told[0].splitlines())


def test_threads_share_one_log(tmp_path: Path) -> None:
    log = JudgementLog(tmp_path / "log")
    threads = [
        threading.Thread(target=lambda first=first: [log.add(judgement(first + n)) for n in range(20)])
        for first in (0, 10, 20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item.task_id for item in log) == sorted(f"t{n}" for n in range(40))


def test_killed_writers_lose_nothing_that_they_told(tmp_path: Path) -> None:
    """Four writers are killed at random moments, one after the other; each goes on in the same file."""
    path, told, rng = tmp_path / "log", 0, random.Random(0)
    for _ in range(4):
        process = writer(path, told, 100_000, 1)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        # What follows the last line end was told in part: unbuffered, a line is written piece by piece.
        *lines, _ = process.communicate(timeout=60)[0].split("\n")
        told = int(lines[-1].split()[0]) + 1 if lines else told + 1
        stored = [item.task_id for item in JudgementLog(path)]
        assert stored[:told] == [f"t{n}" for n in range(told)]
        assert len(stored) <= told + 1 and len(set(stored)) == len(stored)
    assert told > 10
    for line in path.read_bytes().splitlines()[:told]:
        json.loads(line)
