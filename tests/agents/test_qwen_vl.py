"""The Qwen-VL actor: what it samples is what training scores, and it sees exactly what was shown."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil

from agents.policies.qwen_vl import FrameMismatch, QwenVLActor, frame_refs, patchify, tokens_per_frame
from agents.policies.tiny_qwen import build_tiny_qwen
from videogym.video import FrameBatch

TOLERANCE = 1e-5
WHOLE = [0.0, 0.0, 1.0, 1.0]


class Noise:
    """A frame store without videos: every time has its own noise, chosen times are grey."""

    def __init__(self, blank: Sequence[float] = ()) -> None:
        self.blank, self.asked = set(blank), 0

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """Frames of noise or grey."""
        assert size is not None
        self.asked += len(times_s)
        shape = (size[1], size[0], 3)
        pixels = [
            np.full(shape, 128, np.uint8)
            if time_s in self.blank
            else np.random.default_rng(int(1000 * time_s)).integers(0, 256, shape, dtype=np.uint8)
            for time_s in times_s
        ]
        return FrameBatch(np.stack(pixels), np.array(times_s), np.zeros(len(times_s), bool))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """More threads only wait for each other here, and sampling starts from one seed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint."""
    corpus = [
        "<think>look at the frames</think><tool_call>{}</tool_call>",
        "what colour was it? 12.5 s",
    ] * 5
    return build_tiny_qwen(tmp_path_factory.mktemp("tiny"), corpus, vocab_size=300)


@pytest.fixture
def actor(checkpoint: Path) -> Iterator[QwenVLActor]:
    """An actor that is off the defaults where it can be."""
    yield QwenVLActor.from_pretrained(str(checkpoint), Noise(), max_new_tokens=9, temperature=0.8)


def show(actor: QwenVLActor, times_s: Sequence[float], size: tuple[int, int], text: str) -> list[int]:
    """Ids of some frames and a text."""
    start, pad, end, _ = actor.vision_ids
    ids = [i for _ in times_s for i in (start, *[pad] * tokens_per_frame(size, 28), end)]
    return ids + actor.tokenizer.encode(text)


def conversation(
    actor: QwenVLActor, times_s: Sequence[float], size: tuple[int, int], text: str
) -> TensorDict:
    """A row that shows some frames and asks something; nothing is sampled yet."""
    ids = torch.tensor(show(actor, times_s, size, text))
    return TensorDict(
        {
            "tokens": {"prompt": ids},
            "masks": {"prompt_sampled": torch.zeros_like(ids).bool()},
            "log_probs": {"prompt": torch.zeros(len(ids))},
            "frames": {
                "video": NonTensorData("v"),
                "times_s": torch.tensor(times_s, dtype=torch.float64),
                "regions": torch.tensor([WHOLE] * len(times_s), dtype=torch.float64),
                "sizes": torch.tensor([size] * len(times_s)),
            },
            "waiting": torch.tensor([False]),
        }
    )


def answered(actor: QwenVLActor, row: TensorDictBase, times_s: Sequence[float], text: str) -> TensorDict:
    """The row one turn later: its output, then more frames and text."""
    size = row["frames", "sizes"][0].tolist()
    added = torch.tensor(show(actor, times_s, tuple(size), text))
    nothing = torch.zeros(len(added))
    extra = {
        "times_s": torch.tensor(times_s, dtype=torch.float64),
        "regions": torch.tensor([WHOLE] * len(times_s), dtype=torch.float64).reshape(-1, 4),
        "sizes": torch.tensor([size] * len(times_s), dtype=torch.int64).reshape(-1, 2),
    }
    return TensorDict(
        {
            "tokens": {"prompt": torch.cat([row["tokens", "full"], added])},
            "masks": {"prompt_sampled": torch.cat([row["masks", "all_assistant_mask"], nothing.bool()])},
            "log_probs": {"prompt": torch.cat([row["log_probs", "full"], nothing])},
            "frames": {
                "video": NonTensorData("v"),
                **{key: torch.cat([row["frames", key], value]) for key, value in extra.items()},
            },
            "waiting": torch.tensor([False]),
        }
    )


def play(actor: QwenVLActor) -> TensorDictBase:
    """Three turns of three conversations of different lengths and frame sizes, one without new frames."""
    rows = [
        conversation(actor, [0.0, 1.0, 2.0], (56, 28), "what colour was it?"),
        conversation(actor, [0.0, 1.0], (56, 56), "look"),
        conversation(actor, [3.0], (28, 28), "what colour was it? look at the frames of 12.5 s"),
    ]
    batch = actor(lazy_stack(rows))
    for times_s, text in (((4.0, 0.0), "more"), ((), "answer now")):
        replies = [((), "no")] + [(times_s, text)] * 2
        rows = [answered(actor, row, *reply) for row, reply in zip(batch.unbind(0), replies, strict=True)]
        batch = actor(lazy_stack(rows))
    return batch


def scored(actor: QwenVLActor, batch: TensorDictBase) -> Tensor:
    """Log-probabilities of the training pass, zero where nothing was sampled."""
    full = batch.get(("tokens", "full"), as_padded_tensor=True, padding_side="left", padding_value=-100)
    with torch.no_grad():
        return actor.get_dist(batch).log_prob(full)


def stored(batch: TensorDictBase) -> Tensor:
    """Log-probabilities as they were sampled."""
    return batch.get(("log_probs", "full"), as_padded_tensor=True, padding_side="left", padding_value=0.0)


def test_training_scores_what_was_sampled_over_several_turns(actor: QwenVLActor) -> None:
    """Images, ragged lengths, padding, three turns: both passes see the same distribution."""
    batch = play(actor)
    lengths = [len(ids) for ids in batch.get(("tokens", "full"), as_list=True)]
    assert len(set(lengths)) == 3, "the rows should need padding"
    sampled = actor.get_dist(batch).mask
    assert sampled.sum() >= 9
    assert (stored(batch)[sampled] < 0).all()
    torch.testing.assert_close(scored(actor, batch), stored(batch), atol=TOLERANCE, rtol=0.0)


def test_a_row_scores_the_same_alone_as_padded_in_a_batch(actor: QwenVLActor) -> None:
    """Padding and company leave no trace."""
    batch = play(actor)
    together = scored(actor, batch)
    for place, row in enumerate(batch.unbind(0)):
        alone = scored(actor, lazy_stack([row]))[0]
        torch.testing.assert_close(together[place, -len(alone) :], alone, atol=TOLERANCE, rtol=0.0)


def test_scores_are_those_of_the_plain_model_on_the_official_inputs(actor: QwenVLActor) -> None:
    """Frame by frame through Qwen's processor and straight into the model: the same log-probabilities."""
    batch = actor(lazy_stack([conversation(actor, [0.0, 1.0, 2.0], (84, 56), "look")]))
    ids = batch[0]["tokens", "full"]
    frames = list(Noise().frames("v", [0.0, 1.0, 2.0], size=(84, 56), region=None).pixels)
    official = Qwen2VLImageProcessorPil(do_resize=False)(images=frames, return_tensors="pt")
    types = (ids == actor.model.config.image_token_id).int()
    with torch.no_grad():
        logits = actor.model(input_ids=ids[None], mm_token_type_ids=types[None], **official).logits[0]
    logits[:, actor.vision_ids] = -torch.inf
    expected = (logits / 0.8).log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    sampled = batch[0]["masks", "all_assistant_mask"]
    assert sampled.sum() > 0
    torch.testing.assert_close(stored(batch)[0][sampled], expected[sampled[1:]], atol=TOLERANCE, rtol=0.0)


def test_a_saved_and_loaded_actor_scores_the_same(actor: QwenVLActor, tmp_path: Path) -> None:
    """A checkpoint holds all that matters."""
    batch = play(actor)
    actor.model.save_pretrained(tmp_path)
    actor.tokenizer.save_pretrained(tmp_path)
    loaded = QwenVLActor.from_pretrained(str(tmp_path), Noise(), temperature=0.8)
    torch.testing.assert_close(scored(loaded, batch), stored(batch), atol=TOLERANCE, rtol=0.0)


def test_only_frames_that_were_shown_matter(actor: QwenVLActor) -> None:
    """A blank in place of a shown frame shifts its row; in place of any other frame nothing moves."""
    batch = play(actor)
    before = scored(actor, batch)
    actor.store = Noise(blank=[7.0])
    assert torch.equal(scored(actor, batch), before), "a frame that was never shown changed a score"
    actor.store = Noise(blank=[3.0])
    after = scored(actor, batch)
    assert torch.equal(after[:2], before[:2]), "a frame of another row changed a score"
    assert (after[2] - before[2]).abs().max() > 1e-4, "a shown frame left the scores as they were"


def test_the_order_of_two_frames_matters(actor: QwenVLActor) -> None:
    """Pixels go to the placeholders of their own frame."""
    row = actor(lazy_stack([conversation(actor, [0.0, 1.0], (56, 56), "look")]))
    before = scored(actor, row)
    row[0]["frames", "times_s"] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert (scored(actor, row) - before).abs().max() > 1e-4


def test_equal_frames_are_resolved_once(actor: QwenVLActor) -> None:
    """Four rows that show the same two frames fetch two."""
    rows = [conversation(actor, [0.0, 1.0], (56, 28), "look") for _ in range(4)]
    actor(lazy_stack(rows))
    assert actor.store.asked == 2  # type: ignore[attr-defined]


def test_vision_tokens_are_never_sampled(actor: QwenVLActor) -> None:
    """Even where the model wants nothing else; training knows the same ban."""
    favoured = torch.zeros(actor.model.config.text_config.vocab_size)
    favoured[actor.vision_ids] = 50.0
    head = actor.model.lm_head
    hook = head.register_forward_hook(lambda _module, _inputs, logits: logits + favoured)
    batch = play(actor)
    for row in batch.unbind(0):
        outputs = row["tokens", "full"][row["masks", "all_assistant_mask"]]
        assert not torch.isin(outputs, torch.tensor(actor.vision_ids)).any()
    torch.testing.assert_close(scored(actor, batch), stored(batch), atol=TOLERANCE, rtol=0.0)
    hook.remove()


def test_a_waiting_row_is_left_as_it_is(actor: QwenVLActor) -> None:
    """Nothing is sampled for an episode that has ended."""
    rows = [conversation(actor, [0.0], (28, 28), text) for text in ("look", "look at the frames")]
    rows[1]["waiting"] = torch.tensor([True])
    batch = actor(lazy_stack(rows))
    assert len(batch[0]["tokens", "full"]) > len(rows[0]["tokens", "prompt"])
    assert torch.equal(batch[1]["tokens", "full"], rows[1]["tokens", "prompt"])
    assert not batch[1]["masks", "all_assistant_mask"].any()


def test_an_output_ends_with_its_end_token_or_at_the_limit(actor: QwenVLActor) -> None:
    """What generation pads after an end is no part of an output."""
    rows = [conversation(actor, [0.0], (28, 28), "look") for _ in range(64)]
    favoured = torch.zeros(actor.model.config.text_config.vocab_size)
    favoured[actor.end_id] = 4.0
    hook = actor.model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits + favoured)
    outputs = [
        row["tokens", "full"][row["masks", "all_assistant_mask"]]
        for row in actor(lazy_stack(rows)).unbind(0)
    ]
    hook.remove()
    assert {len(ids) for ids in outputs} >= {1, 2, 9}
    for ids in outputs:
        assert (ids[:-1] != actor.end_id).all()
        assert len(ids) == 9 or ids[-1] == actor.end_id


def test_the_audit_names_what_does_not_fit(actor: QwenVLActor) -> None:
    """Ids, references and masks that contradict each other are refused, with the numbers."""

    def spoil(**changes: Tensor) -> TensorDictBase:
        row = conversation(actor, [0.0, 1.0], (56, 28), "look")
        for key, value in changes.items():
            row[tuple(key.split("__"))] = value
        return lazy_stack([row])

    ids = conversation(actor, [0.0, 1.0], (56, 28), "look")["tokens", "prompt"]
    with pytest.raises(
        FrameMismatch, match=r"row 0: ids hold 2 frames of 4 placeholders.* ask for 1 frames of 2"
    ):
        actor(
            spoil(
                frames__times_s=torch.zeros(1).double(),
                frames__regions=torch.tensor([WHOLE]).double(),
                frames__sizes=torch.tensor([[56, 28]]),
            )
        )
    with pytest.raises(FrameMismatch, match=r"of 4 placeholders.* of 8"):
        actor(spoil(frames__sizes=torch.tensor([[56, 56], [56, 56]])))
    split = torch.cat([ids[:2], ids[-1:], ids[2:]])
    with pytest.raises(FrameMismatch, match="other tokens stand between"):
        actor(spoil(tokens__prompt=split, masks__prompt_sampled=torch.zeros(len(split)).bool()))
    with pytest.raises(FrameMismatch, match="mask of sampled tokens"):
        actor(spoil(masks__prompt_sampled=torch.ones(len(ids)).bool()))
    with pytest.raises(ValueError, match="multiples of 28, got 30x28"):
        actor(spoil(frames__sizes=torch.tensor([[30, 28], [56, 28]])))


@pytest.mark.parametrize("height,width", [(56, 56), (28, 84), (168, 280)])
def test_patches_equal_those_of_qwens_image_processor(height: int, width: int) -> None:
    """On frames that already have their size, the official processor is the reference."""
    frame = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    official = Qwen2VLImageProcessorPil(do_resize=False)(images=[frame], return_tensors="np")
    ours = patchify(frame, patch=14, merge=2, temporal=2)
    np.testing.assert_allclose(ours, official["pixel_values"], atol=1e-6, rtol=0.0)
    assert official["image_grid_thw"].tolist() == [[1, height // 14, width // 14]]
    assert tokens_per_frame((width, height), 28) == len(ours) // 4


def test_references_keep_time_region_and_size(actor: QwenVLActor) -> None:
    """What the store is asked for is what the row says."""
    row = conversation(actor, [0.0, 1.5], (56, 28), "look")
    row["frames", "regions"] = torch.tensor([WHOLE, [0.5, 0.0, 1.0, 0.25]], dtype=torch.float64)
    assert [tuple(ref) for ref in frame_refs(row)] == [
        ("v", 0.0, (0.0, 0.0, 1.0, 1.0), (56, 28)),
        ("v", 1.5, (0.5, 0.0, 1.0, 0.25), (56, 28)),
    ]
