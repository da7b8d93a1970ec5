"""Tasks planted into a folder of videos: what they ask, what they show, and what is refused."""

# ruff: noqa: D103

from __future__ import annotations

import json
import pickle
import shutil
import unicodedata
import warnings
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from guessing import right_by_text
from PIL import Image

from videogym import VideoQAEnv
from videogym.datasets import PlantedTasks, find_overlap, load_tasks, read_tasks, write_tasks
from videogym.datasets.planted import Footage
from videogym.datasets.planted_families import PlantedFamily
from videogym.datasets.procedural import SPLITS
from videogym.evaluate import evaluate
from videogym.testing.coded_clips import draw_code, write_clip
from videogym.testing.policies import Oracle
from videogym.video import FrameStore, VideoChanged, VideoMeta, VideoNotFound, open_video
from videogym.video.planted import PlantedAddress
from videogym.video.synthetic import InvalidAddress
from videogym.video.synthetic.script import EVENT_COLOURS

FAMILIES = get_args(PlantedFamily)
FAST = {"preset": "ultrafast", "g": "60"}
SECONDS = 128
META = VideoMeta("0", 128.0, 256, 2.0, 160, 96, "h264")


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOGYM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos, one of a variable rate, in folders, and some pictures."""
    folder = tmp_path_factory.mktemp("footage")
    (folder / "a b").mkdir()
    for i in range(5):
        write_clip(folder / "a b" / f"{i}.mp4", 2 * SECONDS, rate=2, first=100 * i, codec_options=FAST)
    steps = [(300, 1000)[i % 3 == 0] for i in range(2 * SECONDS)]
    pts = np.concatenate([[0], np.cumsum(steps[:-1])]).tolist()
    write_clip(folder / "vfr.mp4", len(pts), pts=pts, time_base=Fraction(1, 1000), codec_options=FAST)
    (folder / "pictures").mkdir()
    for i, name in enumerate(("boat", "kite", "moon", "tree", "wolf")):
        Image.fromarray(draw_code(i)).save(folder / "pictures" / f"{name}.png")
    return folder


def tasks_of(root: Path, family: str, **fields: Any) -> PlantedTasks:
    fields = {"split": "all", "count": 40} | fields
    if family == "picture":
        fields = {"pictures": "pictures"} | fields
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tasks = load_tasks(f"planted:{family}?{query}", root)
    assert isinstance(tasks, PlantedTasks)
    return tasks


PLAIN = [family for family in FAMILIES if family != "detail"]  # which needs larger videos


@pytest.mark.parametrize(
    ("family", "level"), [*((family, 0) for family in PLAIN), ("what", 3), ("word", 3)]
)
def test_the_answer_is_in_the_evidence_and_nowhere_else(family, level, root):
    """Outside its evidence the pixels are those of the file, but for what misleads; in it they are not."""
    for task in tasks_of(root, family, level=level, count=3):
        address = PlantedAddress.parse(task.video)
        with FrameStore(video_root=root) as store:
            pts_s = store.open(task.video).pts_s
            assert task.evidence
            for segment in task.evidence:
                first, last = np.searchsorted(pts_s, [segment.start_s, segment.end_s]).tolist()
                times = pts_s[[first - 1, first, last - 1, min(last, len(pts_s) - 1)]].tolist()
                ours, bare = (
                    store.frames(s, times, size=None).pixels for s in (task.video, address.source)
                )
                # Bars stand at the left all the time: what is asked about lies beside them.
                changed = (ours != bare)[:, :, 17:].any(axis=(1, 2, 3)).tolist()
                assert changed == [False, True, True, False]


@pytest.mark.parametrize(
    ("family", "recipe"), [*((family, "DEFAULT") for family in PLAIN), ("scene", "VIDEO_MTR/paper")]
)
def test_the_skim_shows_none_of_it_and_an_oracle_answers(family, recipe, root):
    tasks = tasks_of(root, family, count=4)
    env = VideoQAEnv(tasks, recipe, video_root=str(root))
    for task in tasks:
        env.reset(options={"task_id": task.task_id})
        for segment in PlantedAddress.parse(task.video).insertions:
            times = env.store.open(task.video).pts_s[segment.first : segment.end]
            is_bar = segment.box[0] == 0.0
            assert is_bar or not set(times.tolist()) & set(env.state.skim.times_s), task.task_id
    report = evaluate(Oracle(), env, task_ids=[task.task_id for task in tasks])
    assert report.accuracy.mean == 1.0
    assert report.hit_rate is not None and report.hit_rate.mean == 1.0


@pytest.mark.parametrize("family", ["what", "order", "count", "scene"])
def test_no_text_tells_the_answer(family, root):
    train = tasks_of(root, family, count=200, seed=1)
    test = tasks_of(root, family, count=200)
    for way, right in right_by_text(train, test).items():
        assert abs(np.mean(right) - 0.25) < 0.11, f"{family}: {way}"
    assert min(Counter(task.answer for task in test).values()) > 25


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize("family", PLAIN)
def test_addresses_are_equally_long_whatever_the_answer(family, level, root):
    """How many insertions there are could be counted in them, and in which corner one is."""
    tasks = tasks_of(root, family, level=level, count=30)
    assert len({len(task.video.partition("?")[2]) for task in tasks}) == 1


def test_nothing_of_the_answer_can_be_read_in_the_address_and_no_observation_holds_it(root):
    for task in tasks_of(root, "word"):
        word = task.options["ABCD".index(task.answer)]
        assert word not in task.video and word not in task.task_id
        env = VideoQAEnv([task], "LONGVT/paper", video_root=str(root))
        observation, _ = env.reset()
        assert "planted" not in repr({k: v for k, v in observation.items() if k != "video"})


def test_a_question_is_about_what_is_drawn(root):
    """By the insertions themselves, which the address holds."""
    for task in tasks_of(root, "count"):
        words = task.question.split()
        colour, shape = words[words.index("a") + 1 : words.index("appear")][0], words[-6]
        rgb, kind = EVENT_COLOURS[colour], {"circle": "ellipse", "square": "rectangle"}.get(shape, shape)
        insertions = PlantedAddress.parse(task.video).insertions
        asked = [one for one in insertions if (one.rgb, one.kind) == (rgb, kind)]
        assert str(len(asked)) == task.options["ABCD".index(task.answer)]
        assert len(task.evidence or ()) == len(asked)
        assert any((one.rgb == rgb) != (one.kind == kind) for one in insertions), "nothing misleads"
    for task in tasks_of(root, "when"):
        insertions = PlantedAddress.parse(task.video).insertions
        assert len({one.kind for one in insertions}) == 1 and len({one.rgb for one in insertions}) == 4
        (segment,) = task.evidence or ()
        assert task.options["ABCD".index(task.answer)] == (
            f"at {(segment.start_s + segment.end_s) / 2:.1f} seconds"
        )


def test_tasks_follow_from_content_and_settings_alone(root, tmp_path):
    """Whatever the folder is called; another process, another order and another clock change nothing."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    one, other = tasks_of(root, "scene"), tasks_of(copy, "scene")
    assert list(one) == list(other) and one.name == other.name
    assert list(pickle.loads(pickle.dumps(one))) == list(one)
    assert one.by_id(one[7].task_id) == one[7]
    assert len({task.video for task in one}) == len(one)
    for changed in ({"seed": 1}, {"level": 1}, {"event_s": 3}, {"side": 0.4}):
        assert tasks_of(root, "scene", **changed).name != one.name
    (copy / "vfr.mp4").unlink()
    assert tasks_of(copy, "scene").name != one.name
    for gone in ("planted-x-000000", one[0].task_id.replace("scene", "what"), f"{one.name}-000040"):
        with pytest.raises(ValueError, match="no task"):
            one.by_id(gone)


def test_splits_are_divided_by_the_content_of_videos(root, tmp_path):
    """Which split a video is in follows from its bytes, and these from the encoder at hand."""
    every = tasks_of(root, "what").footage
    for split in SPLITS:
        due = {one.path for one in every if one.split == split}
        if due:
            tasks = tasks_of(root, "what", split=split)
            assert {one.path for one in tasks.footage} == due
            assert {PlantedAddress.parse(task.video).source for task in tasks} == due
        else:
            with pytest.raises(InvalidAddress, match=f"no video of split '{split}'"):
                tasks_of(root, "what", split=split)
    # Another name, and others less, move a video to no other split.
    shutil.copy(root / every[0].path, tmp_path / "renamed.mp4")
    (alone,) = tasks_of(tmp_path, "what").footage
    assert alone.split == every[0].split


def test_three_of_five_videos_are_for_training():
    counts = Counter(Footage("a.mp4", replace(META, fingerprint=f"{i:x}")).split for i in range(5000))
    assert {split: round(count / 1000) for split, count in counts.items()} == {
        "train": 3,
        "val": 1,
        "test": 1,
    }


def test_a_guard_knows_footage_that_was_trained_on(root, tmp_path):
    """By the names of files: with some of them elsewhere, and with none."""
    trained = tasks_of(root, "count")
    for name, shared in (("0.mp4", 40), ("other.mp4", 0)):
        folder = tmp_path / name.removesuffix(".mp4")
        folder.mkdir()
        shutil.copy(root / "a b" / "0.mp4", folder / name)
        assert len(find_overlap(tasks_of(folder, "what"), trained).videos) == shared


def test_files_that_cannot_be_used_are_passed_over_and_listed(root, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(root / "a b" / "0.mp4", folder / "good.mp4")
    shutil.copy(root / "a b" / "0.mp4", folder / "same.mp4")
    whole = (root / "a b" / "1.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mkv").write_text("not a video")
    (folder / "notes.txt").write_text("no ending of a video")
    write_clip(folder / "short.mp4", 300, codec_options=FAST)
    write_clip(folder / "few.mp4", 200, rate=1, codec_options=FAST)
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    with pytest.warns(UserWarning, match=r"files of which no task is made: cut\.mp4.*and 4 more"):
        tasks = load_tasks("planted:what?split=all&count=3", folder)
    assert isinstance(tasks, PlantedTasks)
    assert [one.path for one in tasks.footage] == ["good.mp4"]
    why = {row.place: row.why for row in tasks.left_out}
    assert why.keys() == {
        "cut.mp4",
        "empty.mp4",
        "text.mkv",
        "short.mp4",
        "few.mp4",
        "same.mp4",
        "gone.mp4",
    }
    assert why["short.mp4"] == "10 s, at least 120 s are needed unless event_s is given"
    assert why["few.mp4"] == "200 frames, at least 240 are needed"
    assert why["same.mp4"] == "the same content as good.mp4"
    assert len(tasks_of(folder, "what", event_s=0.2).footage) == 2  # and the short one


def test_a_video_that_changed_since_its_tasks_were_made_is_refused(root, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(root / "a b" / "0.mp4", folder / "a.mp4")
    tasks = tasks_of(folder, "what", count=2)
    write_tasks(tmp_path / "kept.jsonl", tasks)
    shutil.copy(root / "a b" / "1.mp4", folder / "a.mp4")
    env = VideoQAEnv(str(tmp_path / "kept.jsonl"), video_root=str(folder))
    with pytest.raises(VideoChanged, match=r"a\.mp4: its fingerprint is .*, not .*: it changed since"):
        env.reset()


def test_tasks_can_be_kept_in_a_file_and_written_as_videos(root, tmp_path):
    tasks = tasks_of(root, "inset", count=3)
    write_tasks(tmp_path / "kept.jsonl", tasks)
    assert list(read_tasks(tmp_path / "kept.jsonl")) == list(tasks)
    assert json.loads((tmp_path / "kept.jsonl").read_text().splitlines()[0])["metadata"]["footage"]
    located = load_tasks({"planted:inset?split=all&count=3": root})
    with open_video(located[0].video) as alone, FrameStore(video_root=root) as store:
        assert alone.meta == store.open(tasks[0].video).meta


def test_words_pictures_fonts_and_places_are_the_users_own(root, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(root / "a b" / "0.mp4", folder / "a.mp4")
    shutil.copy(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", folder / "letters.ttf"
    )
    words = ["Nüsse", "Äpfel", "ёлка", "мост", "Öl", "λόγος", "naïve", "Šípek"]
    (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(InvalidAddress, match="the font that Pillow brings has no letter 'ü' of 'Nüsse'"):
        tasks_of(folder, "word", words="words.txt")
    tasks = tasks_of(folder, "word", words="words.txt", font="letters.ttf", place="0.5,0.25", side=0.3)
    assert {text for task in tasks for text in task.options} == set(words)
    boxes = {one.box for task in tasks for one in PlantedAddress.parse(task.video).insertions}
    assert len(boxes) == 1
    x0, y0, x1, y1 = boxes.pop()
    assert (x0 + x1) / 2 == pytest.approx(0.5) and (y0 + y1) / 2 == pytest.approx(0.25)
    with FrameStore(video_root=folder) as store:
        assert store.frames(tasks[0].video, [0.0], size=None).pixels.any()
    (folder / "words.txt").write_text("\n".join([*words, "漢字"]), encoding="utf-8")
    with pytest.raises(InvalidAddress, match=r"letters\.ttf has no letter '漢'"):
        tasks_of(folder, "word", words="words.txt", font="letters.ttf")


def test_pictures_are_passed_over_that_cannot_be_read_or_are_there_twice(root, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(root / "a b" / "0.mp4", folder / "a.mp4")
    shutil.copytree(root / "pictures", folder / "p")
    good = (folder / "p" / "boat.png").read_bytes()
    (folder / "p" / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "p" / "text.jpg").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "p" / "torn.png")  # in several chunks
    head, _, tail = (folder / "p" / "torn.png").read_bytes().rpartition(b"IDAT")
    (folder / "p" / "torn.png").write_bytes(head + b"\0\1\2\3" + tail)
    (folder / "p" / "zoo.png").write_bytes(good)
    with pytest.warns(UserWarning, match=r"files of which no task is made: p/cut\.png: .*not a picture"):
        tasks = load_tasks("planted:picture?split=all&count=40&pictures=p", folder)
    assert isinstance(tasks, PlantedTasks)
    why = {row.place: row.why for row in tasks.left_out}
    assert why.keys() == {"p/cut.png", "p/text.jpg", "p/torn.png", "p/zoo.png"}
    assert why["p/zoo.png"] == "the same content as p/boat.png"
    assert {text for task in tasks for text in task.options} == {"boat", "kite", "moon", "tree", "wolf"}
    (folder / "p" / "zoo.png").unlink()
    for name in ("boat", "kite", "moon", "tree"):
        (folder / "p" / f"{name}.png").write_text("no picture")
    with pytest.raises(
        InvalidAddress, match=r"at least 2 pictures: p/boat\.png: .*not a picture"
    ) as caught:
        load_tasks("planted:picture?split=all&pictures=p", folder)
    assert "\n" not in str(caught.value)


def test_words_that_do_not_fit_or_look_alike_make_no_tasks(root, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(root / "a b" / "0.mp4", folder / "a.mp4")
    words = ["one", "two", "three", "four", "five", "six", "seven", "W" * 40]
    (folder / "words.txt").write_text("\n".join(words))
    with pytest.raises(InvalidAddress, match=r"no video .*a\.mp4: insertion: 'W+' does not fit into"):
        tasks_of(folder, "order", words="words.txt", level=3)
    assert len(tasks_of(folder, "what", words="words.txt", level=3)) == 40  # which shows no words
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    shutil.copy(fonts / "DejaVuSans.ttf", folder / "letters.ttf")
    (folder / "words.txt").write_text(
        "\n".join(["Öl", unicodedata.normalize("NFD", "Öl"), *words[:7]]), encoding="utf-8"
    )
    tasks = tasks_of(folder, "word", words="words.txt", font="letters.ttf")
    assert {text for task in tasks for text in task.options} == {"Öl", *words[:7]}


def test_only_large_videos_are_asked_about_in_detail(root, tmp_path):
    with pytest.raises(InvalidAddress, match=r"no video of split 'all'.*160x96, at least 921600 pixels"):
        tasks_of(root, "detail")
    grey = np.full((720, 1280, 3), 120, np.uint8)
    how: dict[str, Any] = {"size": (1280, 720), "draw": lambda number, width, height: grey}
    write_clip(tmp_path / "large.mp4", 240, rate=2, codec_options=FAST, **how)
    (task,) = tasks_of(tmp_path, "detail", count=1)
    env = VideoQAEnv([task], video_root=str(tmp_path))
    assert evaluate(Oracle(), env, episodes=1).accuracy.mean == 1.0
    assert task.evidence_region is not None and task.evidence_region.area < 0.01


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("planted:whatever", "family must be one of what, word"),
        ("planted:what?level=4", "level must be 0 to 3, got 4"),
        ("planted:what?count=0", "count must be 1 to 1000000000000000000, got 0"),
        ("planted:what?split=dev", "split must be one of train, val, test, all"),
        ("planted:what?colour=red", "field 'colour' is unknown"),
        ("planted:what?side=1.5", "side must be 0.02 to 1 of the frame, got 1.5"),
        ("planted:what?side=0.9&place=0.2,0.5&split=all", "leave it; choose a smaller side"),
        ("planted:what?place=0.2", "'place' must be X,Y"),
        ("planted:what?place=2,0.5", "'place' must be X,Y"),
        ("planted:what?event_s=0", "event_s must be above 0"),
        ("planted:what?event_s=1000&split=all", "too short for insertions of 1000 s"),
        ("planted:picture?split=all", "pictures must be a folder"),
        ("planted:picture?split=all&pictures=a b", "at least 2 pictures"),
        ("planted:word?words=none.txt", "cannot be read"),
        ("planted:word?words=../x.txt", "lies outside video_root"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(source, says, root):
    with pytest.raises((InvalidAddress, VideoNotFound), match=says) as caught:
        load_tasks(source, root)
    assert "\n" not in str(caught.value)


def test_a_folder_is_needed(root):
    with pytest.raises(ValueError, match="need a folder of videos, video_root"):
        load_tasks("planted:what")
    with pytest.raises(ValueError, match="video_root must be a folder"):
        PlantedTasks("what", root / "nowhere")


def test_levels_make_insertions_smaller_paler_and_shorter(root):
    sizes = []
    for level in range(4):
        insertions = [
            one
            for task in tasks_of(root, "what", level=level, count=10)
            for one in PlantedAddress.parse(task.video).insertions
        ]
        lengths = [one.end - one.first for one in insertions]
        sizes.append((np.mean([one.box[2] - one.box[0] for one in insertions]), insertions[0].opacity))
        assert max(lengths) <= 8
    assert sizes == sorted(sizes, reverse=True) and sizes[0][1] == 1.0 > sizes[3][1]


def test_a_plain_task_of_the_footage_is_known_to_a_guard(root):
    trained = tasks_of(root, "what")
    asked = replace(trained[0], task_id="plain", video=PlantedAddress.parse(trained[0].video).source)
    assert find_overlap([asked], trained).videos == ("plain",)
