"""Published conversations become examples: said again word for word, answered by frames of this recipe."""

# ruff: noqa: D103

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_chat import ODD, RECIPE, TASKS, load, make_actor

from agents import train_sft
from agents.train_sft import Config, learned, make_lessons
from agents.vlm import replay as replay_module
from agents.vlm.command import command_line
from agents.vlm.config import ChatConfig
from agents.vlm.images import AboutImages, ImageFiles
from agents.vlm.records import Record
from agents.vlm.replay import replay, with_path
from agents.vlm.rollouts import make_chat_env
from agents.vlm.scoring import Scorer
from videogym import Recipe
from videogym.datasets import TaskFileError, read_longvt_images, read_longvt_traces
from videogym.testing.coded_clips import write_clip

ANSWER = "<think>I see it.</think><answer>a red flag</answer>"


def call(start: float, end: float, path: str = "/mnt/set/a.mp4", thought: str = "Closer.") -> str:
    arguments = {"video_path": path, "start_time": start, "end_time": end}
    body = json.dumps({"name": "crop_video", "arguments": arguments})
    return f"<think>{thought}</think>\n<tool_call>\n{body}\n</tool_call>"


def write_rows(path: Path, *talks: tuple[str, ...], video: str = "/mnt/set/a.mp4") -> str:
    """Rows as LongVT publishes them, one a conversation; the source that reads them."""
    rows = []
    for outputs in talks:
        asked = [
            {"type": "video_url", "video_url": {"url": video}},
            {"type": "text", "text": f"What is waved?\nThe Video path for this video is: {video}"},
        ]
        said = [{"role": "assistant", "content": [{"type": "text", "text": text}]} for text in outputs]
        rows.append(json.dumps({"messages": [{"role": "user", "content": asked}, *said]}))
    path.write_text("\n".join(rows))
    return f"longvt-sft:{path}"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 30 seconds, where another machine had them under ``/mnt``, one with another ending."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "set").mkdir()
    write_clip(folder / "set" / "a.mkv", count=240, rate=8)
    write_clip(folder / "set" / "b.mp4", count=240, rate=8)
    return folder


def play(source: str, videos: Path, checkpoint: Path, recipe: Recipe = RECIPE, **options: Any) -> Any:
    config = ChatConfig.of(recipe=recipe, tasks=source, video_root=str(videos), **options)
    env = make_chat_env(config, load(checkpoint), source)
    counts: Counter[str] = Counter()
    records = list(replay(env, read_longvt_traces(source.removeprefix("longvt-sft:")), counts))
    return records, counts


def test_a_conversation_is_said_again_and_sees_the_frames_it_asks_for(
    tmp_path: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    source = write_rows(tmp_path / "sft.jsonl", (call(5, 9), ANSWER))
    (record,), counts = play(source, videos, checkpoints["qwen2_5_vl"])
    assert counts == {"kept": 1}
    assert (record.kind, record.ending, record.success) == ("demonstration", "answered", True)
    # The file is called a.mkv here, and so does the prompt; nothing else of the output has changed.
    assert [turn.text for turn in record.turns] == [call(5, 9, "a.mkv"), ANSWER]
    assert all(turn.trainable and not any(turn.log_probs) for turn in record.turns)
    shown = [time_s for visual in record.turns[1].visuals for time_s in visual.times_s]
    assert shown and all(5 <= time_s <= 9 for time_s in shown)
    assert all(visual.video.endswith("set/a.mkv") for turn in record.turns for visual in turn.visuals)


def test_what_does_not_go_through_is_left_out_and_counted(
    tmp_path: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    talks = {
        "kept": (ANSWER,),
        "refused: order": (call(9, 5), ANSWER),
        "refused: format": (f"{call(5, 9)}{ANSWER}",),
        "ended early": (ANSWER, ANSWER),
    }
    source = write_rows(tmp_path / "sft.jsonl", *talks.values())
    records, counts = play(source, videos, checkpoints["qwen2_5_vl"])
    assert counts == dict.fromkeys(talks, 1) and len(records) == 1
    source = write_rows(tmp_path / "lost.jsonl", (ANSWER,), video="/mnt/set/c.mp4")
    with pytest.warns(UserWarning, match="not found"):
        assert play(source, videos, checkpoints["qwen2_5_vl"]) == ([], {"not played": 1})
    source = write_rows(tmp_path / "long.jsonl", (call(0, 30), ANSWER))
    (record,), _ = play(source, videos, checkpoints["qwen2_5_vl"])
    ids, visuals = record.context(1)  # frames are at least a token each: so much does not fit
    room = len(ids) + len(visuals) - 1
    assert play(source, videos, checkpoints["qwen2_5_vl"], max_context=room) == ([], {"cut": 1})


def test_a_conversation_that_the_turns_end_is_no_example(
    tmp_path: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    """Two turns, three outputs: the second look is refused, the answer would never be said."""
    source = write_rows(tmp_path / "sft.jsonl", (call(0, 4), call(5, 9), ANSWER))
    assert play(source, videos, checkpoints["qwen2_5_vl"], recipe=ODD) == ([], {"refused: last_turn": 1})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (call(1, 2, 'a "b" \\ c.mp4'), call(1, 2, "new.mp4")),
        (f"{call(1, 2, 'x')}{call(3, 4, 'y')}", f"{call(1, 2, 'new.mp4')}{call(3, 4, 'new.mp4')}"),
        # In a thought it is what was said.
        (call(1, 2, "x", '"video_path": "x"'), call(1, 2, "new.mp4", '"video_path": "x"')),
        (ANSWER, ANSWER),
        ("<tool_call>broken", "<tool_call>broken"),
    ],
)
def test_only_paths_of_calls_change(said: str, expected: str) -> None:
    assert with_path(said, "new.mp4") == expected


def test_none_that_goes_through_is_an_error_that_says_why(
    tmp_path: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    source = write_rows(tmp_path / "sft.jsonl", (call(9, 5), ANSWER), (call(8, 4), ANSWER))
    config = Config.of(recipe=RECIPE, tasks=source, video_root=str(videos), script="traces")
    lessons = make_lessons(config, make_actor(load(checkpoints["qwen2_5_vl"])), progress=False)
    with pytest.raises(ValueError, match=r"none of 2 examples in a row .*: kept 0, refused: order 2$"):
        lessons.at(range(1))
    with pytest.raises(ValueError, match=r"script='traces' needs tasks='longvt-sft:FILE', got 'x.jsonl'"):
        Config.of(script="traces", tasks="x.jsonl")


def test_the_command_trains_on_them_below_a_folder_of_videos(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From rows and videos to a checkpoint; held-out rows ask about the other video."""
    train = write_rows(tmp_path / "train.jsonl", (call(5, 9), ANSWER), (call(9, 5), ANSWER))
    held_out = write_rows(tmp_path / "val.jsonl", (ANSWER,), video="/mnt/set/b.mp4")
    options = f"--tasks {train} --eval-tasks {held_out} --video-root {videos} --script traces"
    small = "--recipe LONGVT_TINY --iterations 2 --groups 2 --eval-episodes 1 --max-new-tokens 4"
    monkeypatch.setattr("sys.argv", ["train_sft", *options.split(), *small.split()])
    command_line("", Config, train_sft.train, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "config.json").exists()
    # Four places; two of them have the row that does not go through, and then the other one.
    assert "6 conversations: kept 4, refused: order 2\n" in capsys.readouterr().err


# --- step by step, from several files ------------------------------------------------------------


def test_conversations_are_played_when_their_step_comes(
    tmp_path: Path, videos: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None before the first step, and as many as a step has places; whatever was asked before."""
    talks = [(call(5, 5 + number), ANSWER) for number in range(1, 9)]
    source = write_rows(tmp_path / "sft.jsonl", *talks)
    config = Config.of(recipe=RECIPE, tasks=source, video_root=str(videos), script="traces")
    played: list[str] = []
    real = replay_module.play_scripted_turn

    def play_turn(env: Any, record: Any, said: Any) -> Any:
        played.append(said.text)
        return real(env, record, said)

    monkeypatch.setattr(replay_module, "play_scripted_turn", play_turn)
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    lessons = make_lessons(config, actor, progress=False)
    assert played == []
    first = lessons.at(range(2))
    assert len(played) == 4 and [len(some) for some in first] == [1, 1]
    later = lessons.at(range(6, 10))
    again = make_lessons(config, actor, progress=False)
    assert again.at(range(6, 10)) == later and again.at(range(2)) == first
    everything = [some[0].task_id for some in lessons.at(range(16))]
    assert sorted(everything[:8]) == sorted(everything[8:]) == [f"sft-{n}" for n in range(1, 9)]


def test_files_are_mixed_by_weight_and_each_is_gone_through(
    tmp_path: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    """Three places in four are of the first file; in both no row comes again before all have come."""
    few = write_rows(tmp_path / "few.jsonl", *[(call(1, 2 + number), ANSWER) for number in range(3)])
    many = write_rows(tmp_path / "many.jsonl", *[(call(2, 3 + number), ANSWER) for number in range(20)])
    parts = [{"tasks": few, "weight": 3}, {"tasks": many, "weight": 1}]
    tasks = f"mixture:{json.dumps(parts)}"
    config = Config.of(recipe=RECIPE, tasks=tasks, video_root=str(videos), script="traces")
    lessons = make_lessons(config, make_actor(load(checkpoints["qwen2_5_vl"])), progress=False)
    ids = [some[0].task_id for some in lessons.at(range(80))]
    of_few, of_many = ([i for i in ids if i.startswith(name)] for name in ("few", "many"))
    assert 48 <= len(of_few) <= 72 and len(of_few) + len(of_many) == 80
    for some, size in ((of_few, 3), (of_many, 20)):
        passes = [some[first : first + size] for first in range(0, len(some), size)]
        assert all(len(set(one)) == len(one) for one in passes)
    wrong = f"mixture:{json.dumps([*parts, {'tasks': 'x.jsonl'}])}"
    with pytest.raises(ValueError, match="script='traces' needs tasks='longvt-sft:FILE'"):
        Config.of(script="traces", tasks=wrong)


def test_weights_that_sum_to_nothing_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, before anything is made."""
    for weight, told in ((0, "sum to 0"), (-1, "got -1"), (float("nan"), "got nan")):
        parts = [{"tasks": "procedural:brief_event?count=3", "weight": weight}]
        monkeypatch.setattr("sys.argv", ["train_sft", "--tasks", f"mixture:{json.dumps(parts)}"])
        with pytest.raises(SystemExit) as ended:
            command_line("", Config, train_sft.train, tmp_path / "out")
        error = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and "error: mixture: " in error and told in error
    assert not (tmp_path / "out").exists()


# --- rows about images ---------------------------------------------------------------------------


def image_row(url: str, *said: str, system: str = "You are helpful.", question: str = "What is it?") -> str:
    asked = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": asked})
    for number, text in enumerate(said):
        messages += [{"role": "user", "content": "And then?"}] if number else []
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
    return json.dumps({"messages": messages})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One grey image of 112x56 pixels, one with a transparent half, and one that is none."""
    (tmp_path / "images" / "set").mkdir(parents=True)
    Image.new("L", (112, 56), 128).save(tmp_path / "images" / "set" / "grey.png")
    half = Image.new("RGBA", (112, 56), (0, 0, 0, 0))
    half.paste((255, 0, 0, 255), (0, 0, 56, 56))
    half.save(tmp_path / "images" / "half.png")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "images"


def test_a_row_about_an_image_is_a_conversation_as_it_stands(
    tmp_path: Path, pictures: Path, checkpoints: dict[str, Path]
) -> None:
    """Ids are those of the messages, laid out by hand; the image takes eight merged patches."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(image_row("/mnt/elsewhere/set/grey.png", "Grey.", "Nothing <tool_call>."))
    model = load(checkpoints["qwen2_5_vl"])
    model.store = store = ImageFiles(model.store)
    env = make_chat_env(ChatConfig.of(recipe=RECIPE, tasks=TASKS), model, TASKS)
    pool = AboutImages(env, read_longvt_images(rows), str(pictures), 10**6)
    (record,) = pool.at(0)
    assert isinstance(record, Record)
    text = model.tokenizer.decode
    # LongVT's grammar has nothing between an end and the next beginning.
    assert text(list(record.head)) == "<|im_start|>system\nYou are helpful.<|im_end|>"
    first, second = record.turns
    assert text(list(first.observation)) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is it?<|im_end|>"
        "<|im_start|>assistant\n"
    )
    assert text(list(second.observation)) == "<|im_start|>user\nAnd then?<|im_end|><|im_start|>assistant\n"
    assert [text(list(turn.output)) for turn in record.turns] == [
        "Grey.<|im_end|>",
        "Nothing <tool_call>.<|im_end|>",
    ]
    (visual,) = first.visuals
    assert visual.video == str(pictures / "set" / "grey.png") and visual.size == (112, 56)
    ids, visuals = record.context(1)
    assert model.length(ids, visuals) == len(ids) + 8 - 1
    assert model.end_id == first.output[-1] and learned(record).all()
    assert (record.kind, record.abort_reason, record.tokenizer) == ("demonstration", "", env._tokenizer)
    # It is scored like any other, and its pixels are the file's: grey.
    assert Scorer(model)([record]).log_probs.shape == (record.sampled_tokens,)
    frames = store.frames(visual.video, (0.0,), size=(56, 28), region=None)
    assert frames.pixels.shape == (1, 28, 56, 3) and (frames.pixels == 128).all()


def test_transparent_is_white_and_large_images_are_made_smaller(
    tmp_path: Path, pictures: Path, checkpoints: dict[str, Path]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(image_row("file:///mnt/half.png", "Half."))
    model = load(checkpoints["qwen3_vl"])
    model.store = store = ImageFiles(model.store)
    config = ChatConfig.of(recipe=RECIPE, tasks=TASKS)
    env = make_chat_env(config, model, TASKS)
    (record,) = AboutImages(env, read_longvt_images(rows), str(pictures), 3136).at(0)
    assert isinstance(record, Record)
    (visual,) = record.turns[0].visuals
    assert visual.size[0] * visual.size[1] <= 3136 and visual.size[0] > visual.size[1]
    pixels = store.frames(visual.video, (0.0, 0.0), size=(112, 56), region=None).pixels
    assert pixels.shape == (2, 56, 112, 3)
    assert pixels[:, 28, 10].tolist() == [[255, 0, 0]] * 2
    assert pixels[:, 28, 100].tolist() == [[255, 255, 255]] * 2


def test_an_image_behind_a_link_is_shown_whatever_the_file_is_called(
    tmp_path: Path, pictures: Path, checkpoints: dict[str, Path]
) -> None:
    """As in caches of downloads, whose files have hashes for names."""
    (pictures / "half.png").rename(pictures / "d2f1")
    (pictures / "half.PNG").symlink_to(pictures / "d2f1")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(image_row("half.PNG", "Half."))
    model = load(checkpoints["qwen2_5_vl"])
    model.store = store = ImageFiles(model.store)
    env = make_chat_env(ChatConfig.of(recipe=RECIPE, tasks=TASKS), model, TASKS)
    (record,) = AboutImages(env, read_longvt_images(rows), str(pictures), 10**6).at(0)
    assert isinstance(record, Record)
    (visual,) = record.turns[0].visuals
    pixels = store.frames(visual.video, (0.0,), size=(112, 56), region=None).pixels
    assert pixels[0, 28, 10].tolist() == [255, 0, 0]


def test_images_that_cannot_be_shown_are_passed_over_and_counted(
    tmp_path: Path, pictures: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    """Missing, broken, outside of the folder, too long for the context: the next one takes the place."""
    (tmp_path / "secret.png").write_bytes((pictures / "half.png").read_bytes())
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    rows = tmp_path / "rows.jsonl"
    talks = [image_row(name, "So.") for name in ("gone.png", "broken.jpg", "link.png", "half.png")]
    rows.write_text("\n".join([*talks, image_row("half.png", "word " * 900)]))
    source = write_rows(tmp_path / "sft.jsonl", (call(5, 9), ANSWER))
    options: dict[str, Any] = {"recipe": RECIPE, "tasks": source, "script": "traces", "max_context": 800}
    held_out = {"eval_tasks": f"{TASKS}&split=val"}
    (videos / "images").mkdir(exist_ok=True)
    parts = json.dumps([{"tasks": str(rows), "video_root": str(pictures)}])
    config = Config.of(
        **options, **held_out, video_root=str(videos), images=f"mixture:{parts}", images_share=0.5
    )
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    lessons = make_lessons(config, actor, progress=False)
    found = [some[0].task_id for some in lessons.at(range(40))]
    assert set(found) == {"rows-4", "sft-1"} and 10 < found.count("sft-1") < 30
    assert lessons.counts["kept"] == 40
    assert lessons.counts["image not shown"] >= 3 and lessons.counts["cut"] >= 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]},
            "local",
        ),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "../a.png"}}]}, "local"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.tiff"}}]},
            r"must be an image that ends in \.png, .*, got 'a\.tiff'",
        ),
        ({"role": "user", "content": [{"type": "image", "image": "/mnt/photo"}]}, "ends in .*'/mnt/photo'"),
        ({"role": "user", "content": [{"type": "audio"}]}, "a message of the user cannot show 'audio'"),
        ({"role": "tool", "content": "x"}, "field 'role' must be system, user or assistant, got 'tool'"),
        ({"role": "user", "content": "x"}, "must end with the assistant"),
        ({"role": "assistant", "content": " "}, "the assistant says nothing"),
        ({"role": "assistant", "content": "x"}, "must let user and assistant take turns"),
    ],
)
def test_broken_rows_about_images_are_refused_by_row(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    messages = [*json.loads(image_row("a.png", "So."))["messages"], row]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([image_row("a.png", "So."), json.dumps({"messages": messages})]))
    with pytest.raises(TaskFileError, match=told) as error:
        read_longvt_images(path)
    assert "line 2" in str(error.value)


def test_training_learns_images_beside_videos(
    tmp_path: Path, pictures: Path, videos: Path, checkpoints: dict[str, Path]
) -> None:
    """Stopped after two of four steps and resumed: the weights of one go, to the bit."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(image_row("half.png", f"Half {number}.") for number in range(4)))
    source = write_rows(tmp_path / "sft.jsonl", (call(5, 9), ANSWER), (call(1, 3), ANSWER))
    mixed = json.dumps([{"tasks": str(rows), "video_root": str(pictures)}])
    config = Config.of(
        **{"recipe": RECIPE, "tasks": source, "script": "traces", "eval_tasks": f"{TASKS}&split=val"},
        **{"images": f"mixture:{mixed}", "images_share": 0.5, "iterations": 4, "groups": 2},
        **{"video_root": str(videos), "eval_episodes": 1, "max_new_tokens": 4, "pack_tokens": 400},
    )
    states = []
    for name, stops in (("whole", ()), ("parts", (2,))):
        for iterations in (*stops, 4):
            actor = make_actor(load(checkpoints["qwen2_5_vl"]))
            # The rate follows from how long a run is: the first part of it must know.
            with stopped_after(iterations):
                train_sft.train(config, actor, tmp_path / name)
        states.append([weight.clone() for weight in actor.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


@contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """End a run of four steps by Ctrl-C after so many."""
    if steps == 4:
        yield
        return
    real, done = train_sft.optimizer_step, [0]

    def step(*arguments: Any) -> Any:
        done[0] += 1
        if done[0] == steps:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    train_sft.optimizer_step = step  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        train_sft.optimizer_step = real  # type: ignore[assignment]
