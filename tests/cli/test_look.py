"""What a video is, in words and on a sheet whose frames are those of their times."""

# ruff: noqa: D103

from pathlib import Path

import numpy as np
import pytest
from films import film, turned, variable
from PIL import Image

from videogym import Region, Segment, Task
from videogym.cli import main
from videogym.cli.look import contact_sheet
from videogym.datasets import write_tasks
from videogym.testing.coded_clips import read_code, write_clip
from videogym.video import open_video
from videogym.video.planted import Insertion, PlantedAddress

GREEN = (46, 158, 91)  # of the edges of evidence
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


def frames_of(sheet, count):
    """Frames of 225 x 135 pixels on a sheet, each with a pixel of what is around it."""
    height, width = 135, 225  # 160 x 96 in 240 x 135
    columns, rows = (sheet.shape[1] - 8) // (width + 8), (sheet.shape[0] - 34) // (height + 26)
    assert columns * rows >= count
    for i in range(count):
        left, top = 8 + i % columns * (width + 8), 34 + i // columns * (height + 26)
        yield sheet[top : top + height, left : left + width], tuple(sheet[top - 2, left + 9].tolist())


def code_of(frame):
    """The number in a frame that was 160 x 96 pixels large."""
    return read_code(np.asarray(Image.fromarray(frame).resize((160, 96))))


def test_the_sheet_shows_the_frames_of_its_times(tmp_path):
    """Ten frames of [1, 2): one in every tenth of a second, so frames 30, 33, ..., 57 of 30 a second."""
    film(tmp_path / "a.mp4")
    with open_video(str(tmp_path / "a.mp4")) as video:
        sheet = np.asarray(contact_sheet(video, Segment(1.0, 2.0), 10, "title"))
    codes = [code_of(frame) for frame, _ in frames_of(sheet, 10)]
    assert codes == [30 + 3 * i for i in range(10)]


@pytest.fixture
def planted(tmp_path):
    """A task about a square in frames 120 to 134 of 300, ten a second, and one whose answer is open."""
    write_clip(tmp_path / "a.mp4", 300, rate=10)
    with open_video(str(tmp_path / "a.mp4")) as video:
        fingerprint = video.meta.fingerprint
    square = Insertion(120, 135, (0.4, 0.4, 0.6, 0.8), "rectangle", rgb=(250, 0, 0))
    tasks = [
        Task(
            "square",
            str(PlantedAddress("a.mp4", fingerprint, (square,))),
            "Which colour?",
            "choice",
            ("blue", "red"),
            "B",
            (Segment(12.0, 13.5),),
            evidence_region=Region(0.4, 0.4, 0.6, 0.8),
        ),
        Task("open", "a.mp4", "Who?", "open", answer="Ann"),
    ]
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    return tmp_path


def test_a_task_is_shown_with_its_answer_and_its_evidence_in_green(planted, capsys):
    """Four frames of 30 s, and of 1.5 s of evidence the middles of its thirds: frames 122, 127 and 132."""
    out = planted / "sheet.png"
    source = ["--tasks", str(planted / "tasks.jsonl"), "--video-root", str(planted)]
    assert main(["look", *source, "--frames", "4", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["task square", "Which colour?", "A. blue", "B. red (right)"]
    assert "evidence from 12.000 to 13.500 s" in lines
    assert "evidence in the region 0.400, 0.400, 0.600, 0.800" in lines
    with Image.open(out) as image:
        found = list(frames_of(np.asarray(image.convert("RGB")), 7))
    assert [code_of(frame) for frame, _ in found] == [0, 75, 122, 127, 132, 150, 225]
    is_red = [np.abs(frame[81, 112].astype(int) - (250, 0, 0)).max() < 16 for frame, _ in found]
    assert is_red == [around == GREEN for _, around in found] == [2 <= i <= 4 for i in range(7)]
    # Its region is drawn around the square, from 90 pixels of 225 on.
    assert [tuple(frame[70, 90].tolist()) == GREEN for frame, _ in found] == is_red


def test_a_region_smaller_than_a_pixel_of_the_sheet_is_marked(tmp_path):
    """A text in the distance: 0.2 % of the frame, half a pixel of 225 x 135."""
    film(tmp_path / "a.mp4")
    tiny = Region(0.5, 0.5, 0.502, 0.502)
    task = Task(
        "t", "a.mp4", "Who?", "open", answer="Ann", evidence=(Segment(1.0, 2.0),), evidence_region=tiny
    )
    with open_video(str(tmp_path / "a.mp4")) as video:
        sheet = np.asarray(contact_sheet(video, Segment(1.0, 2.0), 1, "title", task))
    frame, around = next(frames_of(sheet, 1))
    assert around == GREEN and tuple(frame[67, 112].tolist()) == GREEN


def test_a_task_is_chosen_by_its_id_and_may_have_no_evidence(planted, capsys):
    source = ["--tasks", str(planted / "tasks.jsonl"), "--video-root", str(planted), "--task-id", "open"]
    assert main(["look", *source]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == ["task open", "Who?", "answer: Ann", "no evidence is annotated", "a.mp4"]


def test_a_procedural_task_needs_no_folder(tmp_path, capsys):
    source = "procedural:brief_event?level=0&duration_s=600&count=3&split=test"
    assert main(["look", "--tasks", source, "--out", str(tmp_path / "a.png"), "--frames", "5"]) == 0
    assert "(right)" in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as image:
        assert GREEN in {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}


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
        ([], "name either a VIDEO or the source of a task, --tasks"),
        (["a.mp4", "--tasks", "tasks.jsonl"], "name either a VIDEO or the source of a task, --tasks"),
        (["a.mp4", "--task-id", "x"], "--task-id needs the source of the task, --tasks"),
        (["--tasks", "procedural:brief_event?count=3", "--task-id", "x"], "no task 'x'"),
        (["--tasks", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    film(Path("a.mp4"))
    assert main(["look", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym look: error: ") and said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["a.mp4"]
