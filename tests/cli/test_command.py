"""What all subcommands share: help that teaches, one line for a mistake, and a quiet terminal."""

# ruff: noqa: D103

import os
import re
import subprocess
import sys

import pytest

from videogym.cli import main
from videogym.cli.terminal import ProgressBar
from videogym.mistakes import printable
from videogym.testing.coded_clips import write_clip

NAMES = ("doctor", "look", "index", "eval", "diff", "report", "play")


def helped(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_leads_to_every_command(capsys):
    said = helped(capsys)
    assert all(re.search(rf"^    {name} +\w", said, re.MULTILINE) for name in NAMES)
    assert "videogym doctor videos/" in said


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_shows_how_it_is_used(capsys, monkeypatch, name):
    """Examples as they would be typed, whose options exist; and nothing that a terminal would break."""
    monkeypatch.setenv("COLUMNS", "100")
    said = helped(capsys, name)
    examples = re.findall(rf"^  (videogym {name} .*|videogym {name})$", said, re.MULTILINE)
    assert len(examples) >= 2 and max(map(len, said.splitlines())) <= 110
    options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", said, re.MULTILINE))
    used = {word for line in examples for word in re.findall(r"--[\w-]+", line)}
    assert used <= options, "an example uses an option that there is not"
    assert "%%" not in said and "%(" not in said


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["doctor"], ["look", "a.mp4", "--frames", "x"]])
def test_what_is_not_understood_is_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(tmp_path):
    """In the middle of work; the status is that of an interrupted command."""
    program = (
        "import os, signal, sys, videogym.cli.evaluation as evaluation\n"
        # A shell lets what it starts in the background pass over Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "evaluation.evaluate = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "from videogym.cli import main; sys.exit(main(['eval', 'oracle']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("arguments", [["--help"], ["look", "a.mp4"]])
def test_output_that_nobody_reads_is_no_traceback(tmp_path, arguments):
    """As in `videogym look a.mp4 | true`; what is written is kept back by Python until the end."""
    write_clip(tmp_path / "a.mp4", 3)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "videogym", *arguments], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": ""}, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_name_that_the_output_cannot_spell_ends_no_command(tmp_path):
    for name in ("a.mp4", "é 日.mp4", "z.mp4"):
        (tmp_path / name).touch()
    done = subprocess.run(
        [sys.executable, "-m", "videogym", "doctor", "."], cwd=tmp_path, capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"}, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"")
    assert rb"BAD   ./\xe9 \u65e5.mp4" in done.stdout and b"0 of 3 can be used" in done.stdout


def test_a_line_of_text_takes_the_place_of_the_bar(monkeypatch, capsys):
    bar = ProgressBar("files")
    bar.clear()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar(1, 2)
    bar.clear()
    bar.clear()
    bar(2, 2)
    bar.clear()
    drawn = capsys.readouterr().err
    assert drawn.count("\r\x1b[K") == 1 and drawn.endswith("2/2 files\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_texts_of_others_keep_a_terminal_as_it_is(text, shown):
    assert printable(text) == shown
    shown.encode()
