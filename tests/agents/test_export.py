"""Records in the chat formats of other trainers: roles, places of images, and what is to be learned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from small_chat import ANSWER, Noise, crop, load, make_env, said

from agents.models.qwen_vl import token_ids
from agents.tools import export as command
from agents.tools.export import Format, export
from agents.vlm.env import ChatEnv
from agents.vlm.records import Record


@pytest.fixture
def told(checkpoints: dict[str, Path]) -> tuple[ChatEnv, Record]:
    """An episode of a look that is not to be learned, and an answer that is."""
    env = make_env(load(checkpoints["qwen2_5_vl"]))
    env.env.reset(seed=1)
    record = env.open("g")
    record = replace(record, turns=(replace(record.turns[0], trainable=False),))
    record = env.advance(said(env, record, crop(10, 14)))
    return env, env.advance(said(env, record, ANSWER))


def rows(told: tuple[ChatEnv, Record], out: Path, form: Format) -> list[dict[str, Any]]:
    """What is exported."""
    env, record = told
    assert export([record, replace(record, abort_reason="context")], env.tokenizer, Noise(), out, form) == 1
    return [json.loads(line) for line in (out / "data.jsonl").read_text().splitlines()]


def without_mistakes(told: tuple[ChatEnv, Record]) -> tuple[ChatEnv, Record]:
    """All outputs are to be learned."""
    env, record = told
    return env, replace(record, turns=tuple(replace(turn, trainable=True) for turn in record.turns))


@pytest.mark.parametrize("form", get_args(Format))
def test_messages_follow_each_other_with_images_in_their_places(
    told: tuple[ChatEnv, Record], tmp_path: Path, form: Format
) -> None:
    """Six frames of the skim, four of the look, as many paths; episodes that were cut stay out."""
    (row,) = rows(without_mistakes(told), tmp_path, form)
    roles = [message["role"] for message in row["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    contents = [message["content"] for message in row["messages"]]
    if form == "trl":
        places = [sum(part["type"] == "image" for part in content) for content in contents]
        texts = ["".join(part.get("text", "") for part in content) for content in contents]
    else:
        places = [content.count("<image>") for content in contents]
        texts = [content.replace("<image>", "") for content in contents]
    assert places == [0, 6, 0, 4, 0]
    assert texts[2] == crop(10, 14) and texts[4] == ANSWER
    assert told[1].task_id.startswith("brief_event") and "colour is the shape" in texts[1]
    assert texts[3].startswith("<tool_response>") and texts[3].endswith("</tool_response>")
    assert len(row["images"]) == 10


def test_frames_are_written_once_at_the_size_that_was_seen(
    told: tuple[ChatEnv, Record], tmp_path: Path
) -> None:
    """A frame that is shown again has the file it had; its pixels are those of the store."""
    (row,) = rows(told, tmp_path, "ms_swift")
    visuals = [visual for turn in told[1].turns for visual in turn.visuals]
    assert len(set(row["images"])) == len(set(visuals)) == len(list((tmp_path / "frames").iterdir()))
    for path, visual in zip(row["images"], visuals, strict=True):
        (frame,) = Noise().frames(visual.video, visual.times_s, size=visual.size, region=None).pixels
        assert np.array_equal(np.asarray(Image.open(tmp_path / path)), frame)


def test_a_demonstrated_mistake_is_marked(told: tuple[ChatEnv, Record], tmp_path: Path) -> None:
    """In the words of TRL and of ms-swift."""
    (tmp_path / "trl").mkdir()
    (trl,) = rows(told, tmp_path / "trl", "trl")
    assert [message["train"] for message in trl["messages"]] == [False, False, False, False, True]
    (tmp_path / "swift").mkdir()
    (swift,) = rows(told, tmp_path / "swift", "ms_swift")
    assert [message.get("loss") for message in swift["messages"]] == [None, None, False, None, True]


def test_llama_factory_is_told_the_names_of_the_columns(
    told: tuple[ChatEnv, Record], tmp_path: Path
) -> None:
    """By a stanza beside the data. It cannot be told of a mistake, which is refused."""
    with pytest.raises(ValueError, match="LLaMA-Factory cannot be told"):
        rows(told, tmp_path, "llama_factory")
    rows(without_mistakes(told), tmp_path, "llama_factory")
    stanza = json.loads((tmp_path / "dataset_info.json").read_text())["videogym"]
    assert stanza["columns"] == {"messages": "messages", "images": "images"}
    assert stanza["tags"]["assistant_tag"] == "assistant"


def test_a_text_that_spells_an_image_is_refused(told: tuple[ChatEnv, Record], tmp_path: Path) -> None:
    """A trainer would look for a picture there."""
    env, record = told
    ids = [*env.chat.output_ids("<think>an <image></think>"), env.chat.end_id]
    spelled = replace(
        record.turns[-1], output=tuple(ids), log_probs=(0.0,) * len(ids), versions=(0,) * len(ids)
    )
    record = replace(record, turns=(*record.turns[:-1], spelled))
    with pytest.raises(ValueError, match="holds '<image>'"):
        rows((env, record), tmp_path, "ms_swift")


def test_videos_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """These formats have no place for the frames of a video."""
    env = make_env(load(checkpoints["qwen2_5_vl"]), video=True)
    env.env.reset(seed=1)
    record = env.advance(said(env, env.open("g"), ANSWER))
    with pytest.raises(ValueError, match="export records with images"):
        rows((env, record), tmp_path, "trl")


def test_an_output_that_says_nothing_is_an_empty_message(
    told: tuple[ChatEnv, Record], tmp_path: Path
) -> None:
    """Roles still take turns, as trainers ask."""
    env, record = without_mistakes(told)
    first, *others = record.turns
    silent = replace(record, turns=(replace(first, output=(env.chat.end_id,)), *others))
    (row,) = rows((env, silent), tmp_path, "llama_factory")
    roles = [message["role"] for message in row["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert row["messages"][2]["content"] == ""


def test_an_output_that_begins_a_message_is_refused(told: tuple[ChatEnv, Record], tmp_path: Path) -> None:
    """As text it would be structure to whoever reads it."""
    env, record = without_mistakes(told)
    first, *others = record.turns
    (begin,) = token_ids(env.tokenizer, "<|im_start|>")
    forged = replace(record, turns=(replace(first, output=(*first.output[:3], begin)), *others))
    with pytest.raises(ValueError, match=r"g/0: an output holds <\|im_start\|>"):
        rows((env, forged), tmp_path, "trl")


@pytest.mark.usefixtures("hub_offline")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["broken.jsonl"], "broken.jsonl: line 1: "),
        (["nowhere.jsonl", "--checkpoint", "no/such/folder"], "no/such/folder"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_line(
    options: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that is not there or is something else, and a checkpoint that is none."""
    monkeypatch.chdir(tmp_path)
    Path("broken.jsonl").write_text("{}\n")
    monkeypatch.setattr("sys.argv", ["export", *options, "--format", "trl", "--out", "out"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]  # below a bar of progress
    assert told in line
