"""What a video is, in words and on a sheet whose frames are those of their times."""

# ruff: noqa: D103

from pathlib import Path

import numpy as np
import pytest
from films import film, turned, variable
from PIL import Image

from videogym.cli import main
from videogym.cli.look import contact_sheet
from videogym.geometry import Segment
from videogym.testing.coded_clips import read_code
from videogym.video import open_video

SYNTHETIC = "synthetic:brief_event?level=0&duration_s=600&seed=1"


def test_the_facts_of_a_film(tmp_path, capsys):
    film(tmp_path / "a film.mp4")
    assert main(["look", str(tmp_path / "a film.mp4")]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        str(tmp_path / "a film.mp4"),
        "160x96, h264, 0:00:05 (5.333 s)",
        "160 frames, 30.000 a second, at a constant rate",
        "frames from 0.000 to 5.300 s, 33.3 to 33.3 ms apart",
    ]


def test_what_is_turned_or_varies_is_told(tmp_path, capsys):
    turned(tmp_path / "turned.mp4")
    variable(tmp_path / "variable.mp4")
    for name, words in (
        ("turned.mp4", "96x160, turned by 270 degrees"),
        ("variable.mp4", "variable rate"),
        ("variable.mp4", "20.0 to 400.0 ms apart, widest after"),
    ):
        assert main(["look", str(tmp_path / name)]) == 0
        assert words in capsys.readouterr().out


def test_the_sheet_shows_the_frames_of_its_times(tmp_path):
    """Ten frames of [1, 2): one in every tenth of a second, so frames 30, 33, ..., 57 of 30 a second."""
    film(tmp_path / "a.mp4")
    with open_video(str(tmp_path / "a.mp4")) as video:
        sheet = np.asarray(contact_sheet(video, Segment(1.0, 2.0), 10, "title"))
    height, width = 135, 225  # 160 x 96 in 240 x 135
    columns, rows = (sheet.shape[1] - 8) // (width + 8), (sheet.shape[0] - 34) // (height + 26)
    codes = []
    for i in range(10):
        left, top = 8 + i % columns * (width + 8), 34 + i // columns * (height + 26)
        frame = Image.fromarray(sheet[top : top + height, left : left + width])
        codes.append(read_code(np.asarray(frame.resize((160, 96)))))
    assert columns * rows >= 10 and codes == [30 + 3 * i for i in range(10)]


@pytest.mark.parametrize(("name", "kind"), [("s.png", "PNG"), ("S.JPG", "JPEG"), ("a b é.jpeg", "JPEG")])
def test_a_sheet_of_a_synthetic_video(tmp_path, monkeypatch, capsys, name, kind):
    monkeypatch.chdir(tmp_path)
    assert main(["look", SYNTHETIC, "--out", name, "--frames", "6"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == name
    with Image.open(name) as sheet:
        assert sheet.format == kind and sheet.width > 400
    assert [path.name for path in tmp_path.iterdir()] == [name], "something was left beside the picture"


def test_more_frames_than_there_are_show_each_once(tmp_path):
    film(tmp_path / "a.mp4", 3)
    with open_video(str(tmp_path / "a.mp4")) as video:
        small = contact_sheet(video, Segment(0.0, 0.1), 3, "")
        assert contact_sheet(video, Segment(0.0, 0.1), 500, "").size == small.size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4: No such file or directory"),
        (["a.mp4", "--out", "a.gif"], "--out must end in .jpg, .jpeg, .png, got a.gif"),
        (["a.mp4", "--out", "no/a.png"], "No such file or directory"),
        (["a.mp4", "--frames", "0"], "--frames must be 1 to 1000, got 0"),
        (["a.mp4", "--from", "9"], "--from 9 is not before the end of the video, 5.33333 s"),
        (["a.mp4", "--from", "3", "--to", "2"], "segment needs 0 <= start_s < end_s, got [3.0, 2.0)"),
        (["a.mp4", "--from", "nan"], "segment bounds must be finite"),
        (["synthetic:nothing?level=0"], "synthetic"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    film(Path("a.mp4"))
    assert main(["look", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym look: error: ") and said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["a.mp4"]
