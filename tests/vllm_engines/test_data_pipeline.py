"""The data pipeline with a real vLLM behind it: what is sent is what the model gets, and errors are told.

The model is a tiny one whose weights are set by hand so that it always says the same: one text first, and
another in a conversation in which it has spoken. The two texts are tokens of its tokenizer.
"""

# ruff: noqa: D103

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import END, build
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from agents.engines.vllm_server import serve
from videogym.cli import main
from videogym.data import WorkFolder, kept_tasks, kept_traces
from videogym.testing.coded_clips import write_clip

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
SPAN = (6.0, 9.0)
# Whatever a step asks for, it finds its field in this object.
FIRST = json.dumps(
    {
        "caption": "A bar code, and something red for three seconds.",
        "questions": [
            {"question": "Which colour is it?", "answer": "red", "start_s": SPAN[0], "end_s": SPAN[1]}
        ],
        "answer": "unknown",
        "score": 0.95,
        "why": "It is seen.",
        "thought": "It must be near the beginning.",
        "tool": "crop_video",
        "arguments": {"video_path": "a.mp4", "start_time": SPAN[0], "end_time": SPAN[1]},
    }
)
THEN = json.dumps({"thought": "It is red.", "tool": "answer", "arguments": {"text": "red"}})
# The last token before a reply tells whether the model has spoken: a line's end, or a space.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant"
    "{% if messages | selectattr('role', 'equalto', 'assistant') | list %} {% else %}{{ '\n' }}{% endif %}"
    "{% endif %}"
)
SIZE = (160, 96)  # of frames, pixels: 5 x 3 tokens of 32 x 32 pixels


def certain(folder: Path) -> Path:
    """A checkpoint that says `FIRST`, and `THEN` where it has spoken.

    Nothing but the last token reaches the logits: attention and feed-forward layers add nothing.
    """
    model = build(folder, "qwen3_vl")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in (FIRST, THEN)])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    end_of_line, space = (tokenizer(text).input_ids[-1] for text in ("\n", " "))
    first, then = (tokenizer(text).input_ids[0] for text in (FIRST, THEN))
    model.resize_token_embeddings(len(tokenizer))
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        head.zero_()
        for place, (token, reply) in enumerate(
            ((end_of_line, first), (space, then), (first, END), (then, END))
        ):
            embedding[token] = torch.eye(embedding.shape[1])[place]
            head[reply, place] = 1.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = certain(tmp_path_factory.mktemp("certain"))
    with serve(
        folder,
        max_model_len=8192,
        max_images=64,
        max_frame_pixels=224 * 224,
        log_path=folder / "server.log",
        device="cpu",
        dtype="float32",
        deadline_s=300.0,
        arguments=("--served-model-name", "certain"),
    ) as server:
        yield f"{server.url}/v1"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with the scenes of a video of 30 seconds."""
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", 240, rate=8)
    cut = ("--cuts", "none", "--max-scene-s", "15")
    assert main(["data", "scenes", str(tmp_path / "videos"), "--work", str(tmp_path / "work"), *cut]) == 0
    return tmp_path / "work"


def run(step: str, work: Path, url: str, *more: str, model: str = "certain") -> int:
    return main(["data", step, "--work", str(work), "--endpoint", url, "--model", model, *more])


def replies(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "replies.jsonl").read_text().splitlines()]


def length(request: Mapping[str, Any]) -> int:
    """Tokens of a request, every byte and every piece of a frame counted one by one."""
    tokens = len("\nassistant") + 1  # and where it begins
    for message in request["messages"]:
        tokens += len(f"{message['role']}\n\n") + 2
        for part in message["content"]:
            tokens += len(part["text"].encode()) if part["type"] == "text" else 2 + 5 * 3
    return tokens


def test_all_steps_reach_a_trace(work: Path, url: str, tmp_path: Path) -> None:
    """Two scenes and captions, a question that no text and no skim answers, an episode of two turns."""
    captions = ("--frames", "6")
    assert [run(step, work, url, *more) for step, more in (("caption", captions), ("questions", ()))] == [
        0,
        0,
    ]
    assert [run(step, work, url) for step in ("filter", "traces")] == [0, 0]
    with WorkFolder(work) as folder:
        (task,), (trace,) = kept_tasks(folder), kept_traces(folder)
    (evidence,) = task.evidence or ()
    assert (task.answer, evidence.start_s, evidence.end_s) == ("red", *SPAN)
    assert trace.answer == "red" and trace.looks[-1] == evidence and len(trace.turns) == 2
    rows = replies(work)
    asked = ["captions", "captions", "questions", "filter: blind", "filter: skim", "filter: verify"]
    assert [row["step"] for row in rows] == [*asked, "traces", "traces"]
    assert {row["reply"]["text"] for row in rows[:-1]} == {FIRST} and rows[-1]["reply"]["text"] == THEN
    for row in rows:
        if row["step"] in ("captions", "questions", "filter: blind", "filter: verify"):
            assert row["reply"]["tokens_in"] == length(row["request"]), row["step"]
        assert row["reply"]["tokens_out"] == 2  # the text, and the end of a turn
    # Every frame counts: of a scene of 15 s six, of evidence of 3 s six at two a second.
    frames = [
        sum(part["type"] != "text" for part in row["request"]["messages"][0]["content"]) for row in rows
    ]
    assert frames[:2] == [6, 6] and frames[5] == 6 and frames[2] == frames[3] == 0
    before = len(rows)
    assert [run("caption", work, url, *captions), run("traces", work, url)] == [0, 0]
    assert len(replies(work)) == before  # nothing is asked again
    out = str(tmp_path / "traces.jsonl")
    assert main(["data", "export", "--work", str(work), "--format", "traces", "--out", out]) == 0


def test_a_reply_that_vllm_cut_is_dropped_as_cut(work: Path, url: str) -> None:
    """One token is the whole text, and still not its end."""
    assert run("caption", work, url, "--max-tokens", "1") == 0
    rows = [json.loads(line) for line in (work / "captions.jsonl").read_text().splitlines()]
    assert [row["code"] for row in rows] == ["cut", "cut"]


def test_what_vllm_refuses_is_told(work: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that it does not serve ends the step; a request that is too long is left for another run."""
    assert run("caption", work, url, model="nobody") == 2
    assert "nobody" in capsys.readouterr().err
    assert run("caption", work, url, "--max-tokens", "100000") == 1
    said = capsys.readouterr()
    assert "refused" in said.err + said.out
    assert run("caption", work, url) == 0
