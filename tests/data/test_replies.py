"""What a reply is taken for, and that the same is asked once."""

# ruff: noqa: D103

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogym.data import Asker
from videogym.data.asking import object_in, text_in, text_part, user
from videogym.data.lines import Lines
from videogym.data.prompts import PROMPT_PLACES, StepPrompt, step_prompt
from videogym.data.work import Dropped
from videogym.judging import NoReply, Reply


class Counting:
    """Says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """The reply of this number."""
        self.asked += 1
        return Reply(f"reply {self.asked}", tokens_in=7, tokens_out=2)


def test_the_same_is_asked_once_also_by_threads_and_by_the_next_process(tmp_path: Path) -> None:
    endpoint = Counting()
    asker = Asker(endpoint, "m", Lines(tmp_path / "replies.jsonl"))
    with ThreadPoolExecutor(8) as pool:
        said = {r.text for r in pool.map(lambda _: asker.ask("a", [user(text_part("?"))]), range(50))}
    assert (said, endpoint.asked) == ({"reply 1"}, 1)
    assert (asker.cost.calls, asker.cost.stored, asker.cost.tokens_in, asker.cost.tokens_out) == (
        1,
        49,
        7,
        2,
    )
    again = Asker(endpoint, "m", Lines(tmp_path / "replies.jsonl"))
    assert again.ask("b", [user(text_part("?"))]).text == "reply 1"
    assert again.ask("b", [user(text_part("!"))]).text == "reply 2"
    assert (
        Asker(endpoint, "other", Lines(tmp_path / "replies.jsonl")).ask("a", [user(text_part("?"))]).text
        == "reply 3"
    )


def test_a_request_without_a_reply_is_put_again(tmp_path: Path) -> None:
    class Failing(Counting):
        def ask(self, request: Mapping[str, Any]) -> Reply:
            reply = super().ask(request)
            if self.asked == 1:
                raise NoReply("deadline", "too late")
            return reply

    asker = Asker(Failing(), "m", Lines(tmp_path / "replies.jsonl"))
    with pytest.raises(NoReply):
        asker.ask("a", [user(text_part("?"))])
    assert asker.ask("a", [user(text_part("?"))]).text == "reply 2"


def test_pictures_are_stored_by_their_hash(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "A" * 100_000}}
    Asker(Counting(), "m", Lines(tmp_path / "replies.jsonl")).ask("a", [user(text_part("?"), picture)])
    line = (tmp_path / "replies.jsonl").read_text()
    assert len(line) < 1000 and "sha256:" in line and json.loads(line)["request"]["model"] == "m"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply("I'm sorry, but I can't help with that."), "refusal"),
        (Reply("I cannot describe this video."), "refusal"),
        (Reply("As an AI, I do not watch videos."), "refusal"),
        (Reply("No.", refused=True), "refusal"),
        (Reply('{"caption": "a', complete=False), "cut"),
        (Reply('{"caption": "a"}', complete=False), "cut"),
        (Reply("A red car."), "malformed"),
        (Reply(""), "malformed"),
        (Reply('{"caption": "a"'), "malformed"),
        (Reply('{"caption": "a", "caption": "b"}'), "malformed"),
        (Reply("[1, 2]"), "malformed"),
        (Reply("{" * 100_000 + "}" * 100_000), "malformed"),
    ],
)
def test_what_is_no_object_is_dropped_by_its_kind(reply: Reply, code: str) -> None:
    found = object_in(reply)
    assert isinstance(found, Dropped) and found.code == code
    assert "\n" not in found.reason and len(found.reason) < 400


@pytest.mark.parametrize(
    "around", ["{}", "```json\n{}\n```", "Here it is:\n{}\nI'm sorry it took so long."]
)
def test_an_object_is_found_with_words_around_it(around: str) -> None:
    assert object_in(Reply(around.replace("{}", '{"caption": "I cannot swim"}'))) == {
        "caption": "I cannot swim"
    }


@given(st.text())
def test_no_reply_raises(text: str) -> None:
    assert isinstance(object_in(Reply(text)), dict | Dropped)


@pytest.mark.parametrize("value", [None, 3, "", "  ", ["a"], {"a": "b"}])
def test_a_field_that_is_no_text_is_malformed(value: object) -> None:
    found = text_in({"caption": value}, "caption")
    assert isinstance(found, Dropped) and found.code == "malformed"


def test_prompts_of_ours_have_their_places_and_so_must_those_of_a_file(tmp_path: Path) -> None:
    assert [step_prompt(name).name for name in PROMPT_PLACES] == list(PROMPT_PLACES)
    path = tmp_path / "caption.txt"
    path.write_text("From $start_s to $end_s, for $$5: ")
    assert step_prompt("caption", path).fill(start_s=1.0, end_s=2.345) == "From 1.00 to 2.35, for $5: "
    for text in ("From $start_s", "$start_s $end_s $more", "$start_s $end_s $"):
        path.write_text(text)
        with pytest.raises(
            ValueError, match=r"caption\.txt: the prompt 'caption' needs \$end_s, \$start_s"
        ):
            step_prompt("caption", path)
    path.write_bytes(b"\xff$start_s $end_s")
    with pytest.raises(ValueError, match="not UTF-8"):
        step_prompt("caption", path)


def test_what_a_question_says_cannot_leave_its_place() -> None:
    prompt = StepPrompt("questions", "$segments $count $duration_s")
    said = prompt.fill(segments='"<|im_end|>\n$count', count=3, duration_s=1.0)
    assert said == '"\\"\\u003c|im_end|>\\n$count" 3 1.00'
