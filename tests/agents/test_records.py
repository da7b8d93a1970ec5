"""Records: what is written is read again, and every output stands behind the context it was sampled in."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_chat import load, record

from agents.models.tiny_qwen import train_tokenizer
from agents.models.visuals import WHOLE_FRAME, Visual
from agents.vlm.records import (
    Record,
    RecordError,
    TurnRecord,
    fingerprint,
    from_json,
    passages,
    read_records,
    to_json,
    write_records,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
IDS = st.lists(st.integers(0, 200_000), max_size=6).map(tuple)
PLACE = st.floats(0, 1)
VISUALS = st.builds(
    Visual,
    video=st.text(),
    times_s=st.lists(NUMBERS, min_size=1, max_size=4).map(tuple),
    region=st.just(WHOLE_FRAME) | st.tuples(PLACE, PLACE, PLACE, PLACE),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)


@st.composite
def turns(draw: st.DrawFn) -> TurnRecord:
    """Any turn."""
    output = draw(IDS)
    return TurnRecord(
        observation=draw(IDS),
        visuals=tuple(draw(st.lists(VISUALS, max_size=3))),
        output=output,
        log_probs=tuple(draw(NUMBERS) for _ in output),
        versions=tuple(draw(st.integers(0, 9)) for _ in output),
        text=draw(st.text()),
        trainable=draw(st.booleans()),
        reward=draw(NUMBERS),
        terms=draw(st.dictionaries(st.text(), st.none() | NUMBERS, max_size=3)),
        looked=draw(st.booleans()),
        error=draw(st.text()),
    )


RECORDS = st.builds(
    Record,
    recipe=st.text(),
    tokenizer=st.text(),
    task_id=st.text(),
    group=st.text(),
    sample_index=st.integers(0, 99),
    kind=st.sampled_from(["rollout", "demonstration"]),
    head=IDS,
    window=st.none() | st.integers(1, 9),
    turns=st.lists(turns(), max_size=2).map(tuple),
    ending=st.text(),
    abort_reason=st.text(),
    success=st.none() | st.booleans(),
)


def turn(
    observation: list[int], output: list[int], reward: float = 0.0, **terms: float | None
) -> TurnRecord:
    """A turn without frames."""
    return TurnRecord(tuple(observation), (), tuple(output), reward=reward, terms=terms)


# --- what was said, behind what ----------------------------------------------------------------


@settings(max_examples=15)
@given(record=RECORDS)
def test_what_is_written_is_read_again(record: Record) -> None:
    """Every field, any text and any number, in one line."""
    line = to_json(record)
    assert "\n" not in line
    assert from_json(line) == record
    assert all(hash(visual) for turn in from_json(line).turns for visual in turn.visuals)


@settings(max_examples=50)
@given(
    observations=st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(0, 2)), max_size=5
    ),
    outputs=st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=5, max_size=5),
    head=st.lists(st.integers(0, 2), max_size=2),
    window=st.none() | st.integers(1, 3),
)
def test_every_output_stands_once_behind_its_context(
    observations: list[tuple[list[int], int]],
    outputs: list[list[int]],
    head: list[int],
    window: int | None,
) -> None:
    """Passages hold all outputs once, in order, each behind exactly the ids and visuals of its context.

    Ids are few and repeat, so that contexts often look like the beginning of one another.
    """
    some = tuple(
        TurnRecord(
            (*ids, *[7] * count),
            tuple(Visual("v", (float(10 * number + k),), WHOLE_FRAME, (28, 28)) for k in range(count)),
            tuple(output),
        )
        for number, ((ids, count), output) in enumerate(zip(observations, outputs, strict=False))
    )
    one = record(*some, head=tuple(head), window=window)
    found = []
    for part in passages(one):
        first, last = part.outputs[0], part.outputs[-1]
        assert len(part.ids) == last[1] + last[2], "nothing stands behind the last output"
        assert len(part.visuals) == part.ids.count(7)
        for number, place, length in part.outputs:
            assert part.ids[place : place + length] == some[number].output
            ids, visuals = one.context(number)
            assert part.ids[:place] == ids
            assert part.visuals[: ids.count(7)] == visuals
            found.append(number)
        assert first[1] > 0
    assert found == [number for number, turn in enumerate(some) if turn.output]


def test_a_context_that_only_looks_like_a_beginning_is_none() -> None:
    """Equal ids but another frame under the placeholder: the earlier output was not behind that one."""
    frames = [Visual("v", (float(k),), WHOLE_FRAME, (28, 28)) for k in range(3)]
    one = record(
        TurnRecord((0, 7), (frames[0],), (1,)),
        TurnRecord((0, 7), (frames[1],)),
        TurnRecord((1, 7), (frames[2],), (2,)),
        window=1,
    )
    assert one.context(2)[0][:3] == (0, 7, 1)
    assert [part.visuals for part in passages(one)] == [(frames[0],), tuple(frames[1:])]


def test_a_context_is_what_the_window_leaves() -> None:
    """By hand: head 1, three turns; a window of one turn drops the first before the third output."""
    frames = [Visual("v", (float(k),), WHOLE_FRAME, (28, 28)) for k in range(3)]
    one = record(
        TurnRecord((2, 7), (frames[0],), (3,)),
        TurnRecord((4, 7), (frames[1],), (5,)),
        TurnRecord((6, 7), (frames[2],)),
        head=(1,),
    )
    assert one.context(2) == ((1, 2, 7, 3, 4, 7, 5, 6, 7), tuple(frames))
    windowed = replace(one, window=1)
    assert windowed.context(2) == ((1, 4, 7, 5, 6, 7), tuple(frames[1:]))
    assert windowed.context(1) == one.context(1) == ((1, 2, 7, 3, 4, 7), tuple(frames[:2]))
    whole = one.answered([8, 9], [-1.0, -2.0], [4, 4])
    (part,) = passages(whole)
    assert part.ids == (1, 2, 7, 3, 4, 7, 5, 6, 7, 8, 9)
    assert part.outputs == ((0, 3, 1), (1, 6, 1), (2, 9, 2))
    parts = passages(replace(whole, window=1))
    assert [part.ids for part in parts] == [(1, 2, 7, 3, 4, 7, 5), (1, 4, 7, 5, 6, 7, 8, 9)]
    assert [part.outputs for part in parts] == [((0, 3, 1), (1, 6, 1)), ((2, 6, 2),)]
    assert whole.sampled_tokens == 4 and len(one.played) == 2
    assert (whole.turns[-1].log_probs, whole.turns[-1].versions) == ((-1.0, -2.0), (4, 4))


def test_totals_are_sums_over_turns_where_there_is_something() -> None:
    """A term absent in one turn counts nothing there; absent in all it is None; unknown it is an error."""
    one = record(
        turn([1], [2], 0.5, time=None, format=0.5, answer=None),
        turn([3], [4], 1.25, time=0.25, format=1.0, answer=None),
        turn([5], []),
    )
    assert one.total_reward == 1.75
    assert (one.total("time"), one.total("format"), one.total("answer")) == (0.25, 1.5, None)
    with pytest.raises(KeyError, match="speed"):
        one.total("speed")
    assert not one.done
    assert replace(one, ending="answered").done and replace(one, abort_reason="context").done


def test_tokenizers_are_told_apart(checkpoints: dict[str, Path]) -> None:
    """The same tokens in the same places have one fingerprint, others another."""
    first, second = (load(checkpoints[family]).tokenizer for family in checkpoints)
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(train_tokenizer(["something else"], 300))


# --- on disk -----------------------------------------------------------------------------------


def some(number: int) -> list[Record]:
    """Records that differ."""
    return [record(turn([1], [2]), sample_index=k) for k in range(number)]


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    """Writing that fails half-way leaves the earlier file; writing that succeeds leaves nothing else."""
    path = tmp_path / "new" / "000001.jsonl"
    write_records(path, some(2))

    def failing() -> object:
        yield from some(1)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_records(path, failing())  # type: ignore[arg-type]
    assert list(read_records(path)) == some(2)
    write_records(path, some(3))
    assert list(read_records(path)) == some(3)
    assert [one.name for one in path.parent.iterdir()] == ["000001.jsonl"]


def test_a_folder_is_read_by_name_and_must_hold_something(tmp_path: Path) -> None:
    """File after file; what is no file of records is left alone."""
    with pytest.raises(RecordError, match=r"holds no \*\.jsonl file"):
        list(read_records(tmp_path))
    write_records(tmp_path / "000010.jsonl", some(3)[2:])
    write_records(tmp_path / "000002.jsonl", some(2))
    (tmp_path / "notes.txt").write_text("not records")
    assert list(read_records(tmp_path)) == some(3)


def test_records_of_another_recipe_or_tokenizer_are_refused(tmp_path: Path) -> None:
    """The message names the line, and both identities."""
    path = tmp_path / "records.jsonl"
    write_records(path, [*some(1), replace(some(1)[0], recipe="six@1", tokenizer="xyz")])
    with pytest.raises(RecordError, match=r"records\.jsonl, line 2: recipe six@1, expected six@0"):
        list(read_records(path, recipe="six@0"))
    with pytest.raises(RecordError, match=r"line 2: tokenizer xyz, expected abc"):
        list(read_records(path, tokenizer="abc"))
    assert len(list(read_records(path))) == 2


def spoiled(**changes: object) -> str:
    """The line of a record with fields replaced, or dropped where they are None."""
    plain = {**json.loads(to_json(some(1)[0])), **changes}
    dropped = {key for key, value in changes.items() if value is None}
    return json.dumps({key: value for key, value in plain.items() if key not in dropped})


BARE = {"visuals": [], "observation": [1], "output": [2], "log_probs": [0.0], "versions": [0]}


@pytest.mark.parametrize(
    "line, complaint",
    [
        (to_json(some(1)[0])[:-9], "not JSON: "),
        ("", "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ("[]", "not a record: the line is no object but []"),
        ("7", "not a record: the line is no object but 7"),
        (
            "{}",
            "fields 'version', 'recipe', 'tokenizer', 'task_id', 'group', 'number', 'kind', 'head', "
            "'window', 'turns' are missing",
        ),
        (spoiled(version=99), "version 99, this code reads 1"),
        (spoiled(turns=None), "field 'turns' is missing"),
        (spoiled(recipe=None), "field 'recipe' is missing"),
        (spoiled(recipe=None, head=None), "fields 'recipe', 'head' are missing"),
        (spoiled(colour="red"), "'colour'"),
        (spoiled(head=7), "TypeError"),
        (
            spoiled(turns=[BARE, {"visuals": [], "output": []}]),
            "fields 'turns[1].observation', 'turns[1].log_probs', 'turns[1].versions' are missing",
        ),
        (
            spoiled(turns=[{**BARE, "visuals": [{"video": "v", "size": [1, 1]}]}]),
            "fields 'turns[0].visuals[0].times_s', 'turns[0].visuals[0].region' are missing",
        ),
        (spoiled(turns=[7]), "turns[0] is no object but 7"),
        (spoiled(turns=[{**BARE, "reward": math.nan}]), "a reward must be a finite number, reward is nan"),
        (spoiled(turns=[{**BARE, "terms": {"x": -math.inf}}]), "a finite number, x is -inf"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    """By file and number, with what is wrong with it."""
    path = tmp_path / "records.jsonl"
    path.write_text(f"{to_json(some(1)[0])}\n{line}\n{to_json(some(1)[0])}\n")
    with pytest.raises(RecordError, match=r"records\.jsonl, line 2: ") as refusal:
        list(read_records(path))
    assert complaint in str(refusal.value)


def test_files_keep_their_names_of_fields() -> None:
    """Files of before are read; a field by its name of today is refused, not dropped."""
    one = replace(some(1)[0], sample_index=3, abort_reason="context")
    plain = json.loads(to_json(one))
    assert list(plain)[:10] == [
        *("version", "recipe", "tokenizer", "task_id", "group", "number", "kind", "head", "window", "turns")
    ]
    assert (plain["number"], plain["cut"]) == (3, "context")
    assert list(plain["turns"][0])[6:9] == ["learn", "reward", "terms"]
    assert from_json(json.dumps(plain)) == one
    with pytest.raises(RecordError, match="sample_index"):
        from_json(json.dumps({**plain, "sample_index": 1}))


def test_records_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    """What is there stays; half a file does not."""
    path = tmp_path / "records" / "000000.jsonl"

    def failing() -> Iterator[Record]:
        raise OSError(28, "No space left on device")
        yield

    with pytest.raises(OSError, match=r"000000\.jsonl"):
        write_records(path, failing())
    assert list(path.parent.iterdir()) == []
