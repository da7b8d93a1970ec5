"""What is wrong with videos: every cause by name, from real files, and nothing hangs or crashes."""

# ruff: noqa: D103

import ast
import codecs
import inspect
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from films import BAD, MORE, NOTES, RATE, SOUND, fill, film, noise_inside, played_for_ever

from videogym import Segment, Task, open_video
from videogym.cli import main
from videogym.cli.places import find_places
from videogym.datasets import write_tasks
from videogym.doctor import CAUSES, examine, examine_all, finding
from videogym.doctor import causes as causes_module
from videogym.testing.coded_clips import read_code
from videogym.video import VideoError

ROOT = Path(__file__).parents[2]


def rows(capsys):
    """What `--json` wrote, by the names of files."""
    lines = capsys.readouterr().out.splitlines()
    return {Path(row["path"]).name: row for row in map(json.loads, lines)}


def codes(path, **how):
    return [found.code for found in examine(str(path), **how).findings]


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    """A folder of the thirty files; change none."""
    folder = tmp_path_factory.mktemp("films") / "my films, é"
    folder.mkdir()
    fill(folder)
    return folder


def test_thirty_files_fifteen_of_them_bad_in_fifteen_ways(thirty, capsys):
    began = time.monotonic()
    assert main(["doctor", str(thirty), "--json", "--jobs", "2"]) == 1
    assert time.monotonic() - began < 60
    told = rows(capsys)
    assert sorted(told) == sorted([*SOUND, *BAD]) and len(told) == 30
    assert {name for name, row in told.items() if row["usable"]} == set(SOUND)
    named = {name: row["findings"][0]["code"] for name, row in told.items() if name in BAD}
    assert named == {name: cause for name, (cause, _) in BAD.items()}
    assert len(set(named.values())) == 15
    noted = {name: {found["code"] for found in row["findings"]} for name, row in told.items()}
    assert {name: noted[name] for name in SOUND} == {name: NOTES.get(name, set()) for name in SOUND}
    assert all(found["advice"] for row in told.values() for found in row["findings"])


@pytest.mark.parametrize("name", MORE)
def test_more_ways_to_be_bad(tmp_path, name):
    cause, make = MORE[name]
    make(tmp_path / name)
    found = examine(str(tmp_path / name)).findings
    assert [f.code for f in found] == [cause]


@pytest.mark.parametrize("name", [*SOUND, *MORE, *BAD])
def test_the_doctor_calls_usable_what_the_reader_reads(thirty, tmp_path, name):
    """Both ways: a sound file gives its frames, and a bad one fails, or is too short for an episode."""
    path = thirty / name
    if name in MORE:
        path = tmp_path / name
        MORE[name][1](path)
    try:
        with open_video(str(path)) as video:
            video.frames_at(video.pts_s[:200], size=(32, 18))
            is_read = video.meta.num_frames >= 2
    except VideoError:
        is_read = False
    assert examine(str(path)).usable is is_read


def test_every_cause_can_be_met_or_is_staged_here():
    """So that none stays in the table that nothing names any more."""
    source = "".join(
        path.read_text() for path in (ROOT / "videogym").rglob("*.py") if path.name != "causes.py"
    )
    unnamed = [code for code in CAUSES if f'"{code}"' not in source]
    assert unnamed == []


def test_the_page_of_the_documentation_lists_every_cause():
    page = (ROOT / "docs" / "command.md").read_text()
    assert [code for code in CAUSES if f"`{code}`" not in page] == []


# --- what is said --------------------------------------------------------------------------------


def test_times_of_damage_are_those_of_the_group_of_pictures(tmp_path):
    """Noise over frames 60 to 89 of 30 a second, in the group from frame 50 to 99."""
    noise_inside(tmp_path / "noisy.mp4")
    (found,) = examine(str(tmp_path / "noisy.mp4")).findings
    assert "1 of 4 groups" in found.message and "1.67 to 3.33 s" in found.message
    # The noise lies over the numbers of pictures too, so that some are seen to be missing.
    assert codes(tmp_path / "noisy.mp4", decode="none") == ["damaged_frames"]


def test_a_long_file_is_sampled_unless_all_of_it_is_asked_for(tmp_path):
    """2,400 frames in groups of 50; noise in three groups that 20 places do not touch."""
    path = tmp_path / "long.mp4"
    film(path, 2400)
    sampled = examine(str(path))
    assert sampled.facts.frames_decoded == 20 * 50 and sampled.facts.longest_group == 50
    data = bytearray(path.read_bytes())
    import av

    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    chosen = {round(i * 47 / 19) for i in range(20)}
    missed = [group for group in range(48) if group not in chosen][:3]
    for group in missed:
        for position, size in packets[50 * group + 10 : 50 * group + 40]:
            data[position + 16 : position + size] = bytes(max(0, size - 16))  # headers stay whole
    path.write_bytes(data)
    assert codes(path) == []
    whole = examine(str(path), decode="all")
    assert whole.facts.frames_decoded == 2400 and [f.code for f in whole.findings] == ["damaged_frames"]
    spans = [f"{group * 50 / 30:.2f} to {(group + 1) * 50 / 30:.2f} s" for group in missed]
    assert whole.findings[0].message.endswith("; ".join(spans))


def test_a_path_that_may_not_be_read(tmp_path, monkeypatch):
    """Tests may run as root, who may read everything, so the refusals are staged."""
    film(tmp_path / "secret.mp4", 5)

    def deny(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", deny)
        (found,) = examine(str(tmp_path / "secret.mp4")).findings
    assert found.code == "permission" and found.command == f"chmod u+rX {tmp_path}/secret.mp4"
    with monkeypatch.context() as patched:
        patched.setattr("videogym.doctor.diagnosis.os.stat", deny)
        patched.setattr("videogym.doctor.diagnosis.os.access", lambda path, _: Path(path) != tmp_path)
        (found,) = examine(str(tmp_path / "secret.mp4")).findings
    # What is closed is the folder: opening the file itself would be refused, too.
    assert found.code == "permission" and found.command == f"chmod u+rX {tmp_path}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_path_that_may_truly_not_be_read(tmp_path):
    film(tmp_path / "secret.mp4", 5)
    (tmp_path / "secret.mp4").chmod(0)
    assert codes(tmp_path / "secret.mp4") == ["permission"]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_page_is_told_with_and_without_a_byte_order_mark(tmp_path, mark):
    (tmp_path / "page.mp4").write_bytes(mark + b"<!DOCTYPE html><h1>404</h1>")
    (tmp_path / "text.mp4").write_bytes(mark + b"not there")
    said = [examine(str(tmp_path / name)).findings[0].message for name in ("page.mp4", "text.mp4")]
    assert said == ["a web page or a server's reply, in place of what was to be fetched", "text"]


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "growing.mp4"
    film(path)

    def grow():
        with path.open("ab") as file:
            file.write(b"more")

    assert [f.code for f in examine(str(path), alive=grow).findings] == ["changing"]


@pytest.mark.parametrize("path", ["", "no\0path.mp4", "nowhere/a.mp4", "\ud800.mp4", "a.mp4/b.mp4"])
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    assert codes(path) == ["missing"]


def test_a_synthetic_address(capsys):
    assert codes("synthetic:brief_event?level=0&duration_s=600&seed=1") == []
    assert codes("synthetic:brief_event?level=9&duration_s=600&seed=1") == ["address"]


def test_names_are_shown_in_a_shape_and_quoted_for_a_shell(tmp_path, capsys):
    names = ["a\x1b[31mred.mp4", "b'quoted\".mp4", "-i.mp4", "12:30.mp4", os.fsdecode(b"latin-\xe9.mp4")]
    for name in names:
        data = film(tmp_path / name, 60, muxer_options={"movflags": "faststart"})
        (tmp_path / name).write_bytes(data[:-999])
    assert main(["doctor", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "\x1b" not in said and said.count("truncated:") == len(names)
    commands = [line.strip() for line in said.splitlines() if line.strip().startswith("ffmpeg ")]
    show = "ffmpeg() { printf '%s\\0' \"$2\"; }; "
    shown = subprocess.run(["bash", "-c", show + "\n".join(commands)], capture_output=True, check=True)
    asked = shown.stdout.split(b"\0")[:-1]
    assert sorted(asked) == sorted(os.fsencode(tmp_path / name) for name in names)


# The frames that are shown then; None where their codes lie aslant, or some are left out.
MENDED = {
    "cut.mp4": range(85),
    "timeless.mp4": range(160),
    "joined.ts": [*range(160), *range(160)],
    "disorder.avi": range(40),
    "leaning.mp4": None,
    "untimed.ts": range(160),
    "doubled.mkv": None,
    "one keyframe.mp4": range(700),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_mends_a_file_mends_it(thirty, tmp_path, ffmpeg, name):
    path, frames = tmp_path / name, MENDED[name]
    MORE[name][1](path) if name in MORE else path.write_bytes((thirty / name).read_bytes())
    (found,) = examine(str(path)).findings
    # Static builds crash in glibc's character sets when a transport stream names its service.
    run = f'ffmpeg() {{ GCONV_PATH=/nowhere {ffmpeg} -nostdin -loglevel fatal "$@"; }}; {found.command}'
    subprocess.run(["bash", "-c", run], check=True)
    mended = shlex.split(found.command)[-1]
    assert codes(mended) == []
    if frames is not None:
        with open_video(mended) as video:
            assert [read_code(pixels) for pixels in video.frames_at(video.pts_s).pixels] == list(frames)
            assert video.pts_s[-1] == pytest.approx((len(frames) - 1) / RATE, abs=2e-3)


def test_every_command_of_ffmpeg_is_run_here_or_cannot_be():
    """What needs another decoder, and what kills libav, cannot be made here."""
    met = {name: cause for name, (cause, _) in (BAD | MORE).items()} | {"one keyframe.mp4": "huge_group"}
    commands = {code for code, cause in CAUSES.items() if cause.command.startswith("ffmpeg ")}
    assert {met[name] for name in MENDED} == commands - {"codec", "crash"}


# --- processes -----------------------------------------------------------------------------------

DEADLY = """
import ctypes, os, signal, time
from videogym.doctor import examination

real = examination.examine

def examine(path, **how):
    name = os.path.basename(path)
    if name.startswith("hang"):
        ctypes.PyDLL(None).pause()
    if name.startswith("crash"):
        ctypes.string_at(0)
    if name.startswith("memory"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("bug"):
        raise ZeroDivisionError("a bug")
    return real(path, **how)

examination.examine = examine
"""


def test_a_film_that_is_read_for_minutes_is_given_up(tmp_path):
    played_for_ever(tmp_path / "for ever.mp4")
    ((_, found),) = examine_all([str(tmp_path / "for ever.mp4")], deadline_s=4)
    assert [one.code for one in found.findings] == ["hang"] and not found.usable


def test_a_decoder_that_hangs_or_dies_is_named_and_the_rest_is_examined(tmp_path, monkeypatch, capsys):
    """The deaths are staged in the children: nothing that libav is given here kills it."""
    names = ["a.mp4", "hang.mp4", "crash.mp4", "memory.mp4", "bug.mp4", "z.mp4"]
    film(tmp_path / "a.mp4", 3)
    for name in names[1:]:
        (tmp_path / name).write_bytes((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    paths = [str(tmp_path / name) for name in names]
    told = dict(examine_all(paths, children=2, deadline_s=12.0))
    found = {names[i]: [(f.code, f.message) for f in told[i].findings] for i in range(len(names))}
    assert found["a.mp4"] == found["z.mp4"] == []
    assert found["hang.mp4"] == [("hang", "reading it: no sign of life for 12 s")]
    assert found["crash.mp4"] == [("crash", "reading it: the process was ended by SIGSEGV")]
    assert found["memory.mp4"] == [("crash", "reading it: the process was ended by SIGKILL")]
    raising = DEADLY.splitlines().index('        raise ZeroDivisionError("a bug")') + 1
    told_place = f"(sitecustomize.py, line {raising})"
    assert found["bug.mp4"] == [("fault", f"reading it: ZeroDivisionError: a bug {told_place}")]


def test_nothing_is_ever_run():
    """Commands to mend are text: the modules that make them can start no process."""
    tree = ast.parse(inspect.getsource(causes_module))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert {alias.name for node in imports for alias in node.names} == {"os", "re", "shlex"}


# --- places --------------------------------------------------------------------------------------


def test_folders_are_searched_and_each_file_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("v/b.mp4", "v/deep/er/a.MKV", "v/notes.txt", "v/.part", "single.dat"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")
    Path("v/lost.webm").symlink_to("nowhere")
    Path("v/packed.mp4").mkdir()
    Path("v/packed.mp4/inner.mp4").write_text("x")
    places, wrong = find_places(["v", "single.dat", "v/b.mp4", "../" + tmp_path.name + "/v/b.mp4"])
    listed = [place.path for place in places]
    assert listed == [
        "v/b.mp4",
        "v/lost.webm",
        "v/packed.mp4",
        "v/deep/er/a.MKV",
        "v/packed.mp4/inner.mp4",
        "single.dat",
        f"../{tmp_path.name}/v/b.mp4",
    ]
    assert wrong == []


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, capsys):
    """Tests may run as root, who may read everything, so the refusal is staged."""
    (tmp_path / "closed").mkdir()
    film(tmp_path / "a.mp4", 5)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    told = rows(capsys)
    assert told["a.mp4"]["usable"] and told["closed"]["findings"][0]["code"] == "permission"


def test_a_folder_without_videos_is_said_to_be_so(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 2
    assert "no video in this folder" in capsys.readouterr().err


def test_a_folder_without_videos_is_said_to_be_so_after_other_trouble_too(tmp_path, capsys):
    (tmp_path / "tasks.jsonl").write_text("{")
    (tmp_path / "empty").mkdir()
    assert main(["doctor", str(tmp_path / "tasks.jsonl"), str(tmp_path / "empty")]) == 2
    assert "no video in this folder" in capsys.readouterr().err


def test_a_colon_in_the_name_of_a_lost_video_is_no_format():
    (place,), wrong = find_places(["12:30.mp4"])
    assert place.path == "12:30.mp4" and wrong == []


@pytest.fixture
def tasks(tmp_path):
    """A folder of two films, and five tasks about those and a lost one."""
    (tmp_path / "v" / "deep").mkdir(parents=True)
    film(tmp_path / "v" / "a b.mp4", 60)
    noise_inside(tmp_path / "v" / "deep" / "noisy.mp4")
    kinds = dict(kind="choice", options=("x", "y"), answer="A")
    listed = [
        Task("in", "a b.mp4", "?", evidence=(Segment(0.5, 2.0),), **kinds),
        Task("out", "a b.mp4", "?", evidence=(Segment(70, 80),), **kinds),
        Task("noisy", "noisy", "?", **kinds),
        Task("lost", "lost.mp4", "?", **kinds),
        Task("drawn", "synthetic:brief_event?level=0&duration_s=60&seed=1", "?", **kinds),
    ]
    write_tasks(tmp_path / "tasks.jsonl", listed)
    return tmp_path / "tasks.jsonl"


def test_tasks_are_looked_up_and_their_evidence_compared(tasks, capsys):
    assert main(["doctor", str(tasks), "--video-root", str(tasks.parent / "v"), "--json"]) == 1
    told = rows(capsys)
    found = {name: [f["code"] for f in row["findings"]] for name, row in told.items()}
    assert found == {
        "lost.mp4": ["missing"],
        "a b.mp4": ["evidence"],
        "noisy.mp4": ["damaged_frames"],
        "synthetic:brief_event?level=0&duration_s=60&seed=1": [],
    }
    assert told["a b.mp4"]["task_ids"] == ["in", "out"]
    assert "'out'" in told["a b.mp4"]["findings"][0]["message"] and told["lost.mp4"]["task_ids"] == ["lost"]


def test_what_stands_in_the_place_of_a_tasks_video_is_told(tasks, capsys):
    """As git-annex leaves it where the content was not fetched."""
    (tasks.parent / "v" / "lost.mp4").symlink_to(".git/annex/objects/lost")
    assert main(["doctor", str(tasks), "--video-root", str(tasks.parent / "v"), "--json"]) == 1
    lost = rows(capsys)["lost.mp4"]
    assert [found["code"] for found in lost["findings"]] == ["dangling_link"] and lost["task_ids"] == [
        "lost"
    ]


def test_without_a_root_the_paths_of_tasks_are_taken_as_they_stand(tasks, capsys, monkeypatch):
    monkeypatch.chdir(tasks.parent / "v")
    assert main(["doctor", str(tasks)]) == 1
    said = capsys.readouterr().out
    assert "BAD   noisy  (1 task: noisy)" in said and "BAD   a b.mp4  (2 tasks: in, out)" in said
    assert said.splitlines()[-1] == "1 of 4 can be used, 3 cannot: 2 missing, 1 evidence"


def test_a_broken_task_file_is_a_finding(tmp_path, capsys):
    (tmp_path / "tasks.jsonl").write_text('{"task_id": "1"}\n')
    assert main(["doctor", str(tmp_path / "tasks.jsonl")]) == 1
    said = " ".join(capsys.readouterr().out.split())  # lines are broken where the path's length has it
    assert "task_file:" in said and "line 1" in said


def test_every_mistake_of_a_task_file_is_named(tmp_path, capsys):
    sound = {"task_id": "1", "video": "a.mp4", "question": "Q?", "kind": "open", "answer": "a"}
    rows = [sound, sound | {"kind": "mcq"}, sound | {"task_id": "2"}, sound | {"task_id": "3", "answer": 3}]
    lines = [*map(json.dumps, rows), '{"task_id": "4",', json.dumps(sound)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    assert main(["doctor", str(tmp_path / "tasks.jsonl"), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    faults = found["message"].removeprefix(f"{tmp_path / 'tasks.jsonl'}: ").split("; line ")
    assert [fault.partition(":")[0].removeprefix("line ") for fault in faults] == ["2", "4", "5", "6"]
    for fault, what in zip(
        faults, ("'kind'", "'answer'", "not JSON", "already that of line 1"), strict=True
    ):
        assert what in fault


def test_a_published_data_set(tmp_path, capsys):
    film(tmp_path / "v1.mkv", 60)
    row = dict(qid=1, video_uid="v1", question="Who?", choices=["a", "b"], right_answer="B")
    (tmp_path / "cg.json").write_text(json.dumps([row | {"clue_intervals": [[0.5, 1]]}]))
    assert main(["doctor", f"cg-bench:{tmp_path}/cg.json", "--video-root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 of 1 can be used\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.mp4", "--deadline", "0"], "a deadline of up to 86400 s, got"),
        (["x.mp4", "--jobs", "0"], "it takes a child"),
        (["procedural:nothing"], "nothing"),
        (["cg-bnech:rows.parquet"], "FORMAT:PATH with a format of cg-bench, "),
        (["tasks.jsonl", "--video-root", "nowhere"], "--video-root must be a folder, got 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("tasks.jsonl").touch()
    assert main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym doctor: error: ") and said in error and error.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}.mp4").touch()
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m videogym doctor {shlex.quote(str(tmp_path))} --json | head -n 1",
        shell=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout)["findings"][0]["code"] == "empty" and done.stderr == ""


def test_causes_and_commands_are_complete():
    for code, cause in CAUSES.items():
        found = finding(code, "a b.mp4", "seen")
        assert found.advice and found.advice.endswith((".", ")")), code
        assert "{" not in found.command and cause.severity in ("error", "note")
        if "ffmpeg" in found.command:
            assert shlex.split(found.command)[-1] == "a b.mended.mp4"
