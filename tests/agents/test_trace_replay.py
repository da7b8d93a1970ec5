"""Published conversations become examples: said again word for word, answered by frames of this recipe."""

# ruff: noqa: D103

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_chat import ODD, RECIPE, load, make_actor

from agents import train_sft
from agents.train_sft import Config, load_examples
from agents.vlm.command import command_line
from agents.vlm.config import ChatConfig
from agents.vlm.replay import replay, with_path
from agents.vlm.rollouts import make_chat_env
from videogym import Recipe
from videogym.datasets import read_longvt_traces
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
    with pytest.raises(ValueError, match=r"none of 2 conversations .*: kept 0, refused: order 2$"):
        load_examples(config, make_actor(load(checkpoints["qwen2_5_vl"])), progress=False)
    with pytest.raises(ValueError, match=r"script='traces' needs tasks='longvt-sft:FILE', got 'x.jsonl'"):
        Config.of(script="traces", tasks="x.jsonl")


def test_the_command_trains_on_them_below_a_folder_of_videos(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From rows and videos to a checkpoint; held-out rows ask about the other video."""
    train = write_rows(tmp_path / "train.jsonl", (call(5, 9), ANSWER), (call(9, 5), ANSWER))
    held_out = write_rows(tmp_path / "val.jsonl", (ANSWER,), video="/mnt/set/b.mp4")
    options = f"--tasks {train} --eval-tasks {held_out} --video-root {videos} --script traces"
    small = "--recipe LONGVT_TINY --iterations 1 --groups 1 --eval-episodes 1 --max-new-tokens 4"
    monkeypatch.setattr("sys.argv", ["train_sft", *options.split(), *small.split()])
    command_line("", Config, train_sft.train, tmp_path / "out")
    assert (tmp_path / "out" / "model" / "config.json").exists()
    assert "2 conversations: kept 1, refused: order 1\n" in capsys.readouterr().err
