"""Qwen2.5-VL as a TorchRL policy over token ids: samples outputs, and scores them again in training.

The policy reads the conversation as token ids and frames as references, and writes ids and log-probs
beside them; nothing is ever tokenised twice. One frame is one image. Pixels are resolved here, through
a frame store, at the size the reference asks for. Episodes, grammars and rewards are not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchrl.modules import LLMMaskedCategorical
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers import Qwen2_5_VLForConditionalGeneration as QwenModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from videogym.video import FrameBatch

WHOLE_FRAME = (0.0, 0.0, 1.0, 1.0)
PIXEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)  # CLIP's, as in every Qwen2.5-VL
PIXEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


class FrameMismatch(ValueError):
    """Token ids and frame references of one conversation contradict each other."""


class FrameRef(NamedTuple):
    """One frame of a conversation."""

    video: str
    time_s: float
    region: tuple[float, float, float, float]  # x0, y0, x1, y1 in [0, 1]
    size: tuple[int, int]  # (width, height) in pixels, multiples of patch x merge


class FrameReader(Protocol):
    """What resolves references; `videogym.FrameStore` does."""

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """The frames on display at the given seconds, at the given size."""
        ...


class QwenVLActor(TensorDictModuleBase):
    """A Qwen2.5-VL that acts in `agents.chat.ChatEnv` and is trained by TorchRL's LLM losses.

    `forward` samples one output for every row that is not waiting; `get_dist` scores whole
    conversations. Both see the same logits: vision ids can never be sampled, and the temperature
    divides in both.

    Args:
        model: the language model with its vision tower; kept in eval mode, as GRPO needs it.
        tokenizer: its tokenizer.
        store: resolves frame references.
        max_new_tokens: bound of one output.
        temperature: of sampling, above 0.
    """

    def __init__(
        self,
        model: QwenModel,
        tokenizer: PreTrainedTokenizerBase,
        store: FrameReader,
        *,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_keys = [
            ("tokens", "prompt"),
            ("masks", "prompt_sampled"),
            ("log_probs", "prompt"),
            ("frames", "video"),
            ("frames", "times_s"),
            ("frames", "regions"),
            ("frames", "sizes"),
            "waiting",
        ]
        self.out_keys = [
            ("tokens", "full"),
            ("masks", "all_assistant_mask"),
            ("masks", "all_attention_mask"),
            ("log_probs", "full"),
        ]
        self.model = model.eval()
        self.tokenizer, self.store, self.temperature = tokenizer, store, temperature
        self.pad_id, self.end_id = _ids(tokenizer, "<|endoftext|>", "<|im_end|>")
        self.vision_ids = _ids(
            tokenizer, "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
        )
        # A checkpoint's own generation settings (penalties, top-k) would make the stored log-probs wrong.
        self.model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new_tokens,
            suppress_tokens=self.vision_ids,
            eos_token_id=self.end_id,
            pad_token_id=self.pad_id,
        )

    @classmethod
    def from_pretrained(cls, name: str, store: FrameReader, **kwargs: Any) -> QwenVLActor:
        """The actor of a checkpoint, a folder or a name; ``kwargs`` as for the class.

        The weights are loaded in float32: sampled and recomputed log-probabilities then agree to 1e-5.
        """
        model = QwenModel.from_pretrained(name, dtype=torch.float32)
        return cls(model, AutoTokenizer.from_pretrained(name), store, **kwargs)

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Sample one output per row and write the conversation with it.

        Raises:
            FrameMismatch: the ids and the frames of a row contradict each other.
        """
        rows = list(tensordict.unbind(0))
        active = [row for row in rows if not row["waiting"].any()]
        outputs = iter(self._sample(active) if active else [])
        for row in rows:
            nothing = row["tokens", "prompt"].new_empty(0), row["log_probs", "prompt"].new_empty(0)
            append_output(row, *(nothing if row["waiting"].any() else next(outputs)))
        return tensordict

    def _sample(self, rows: Sequence[TensorDictBase]) -> list[tuple[Tensor, Tensor]]:
        inputs = self._inputs(rows, "prompt", "prompt_sampled")
        out = self.model.generate(**inputs, return_dict_in_generate=True, output_logits=True)
        new = out.sequences[:, inputs["input_ids"].shape[1] :]
        log_probs = (
            self._scaled(torch.stack(out.logits, 1)).log_softmax(-1).gather(-1, new[..., None])[..., 0]
        )
        # Rows that ended early are padded: keep what comes up to and including the first end token.
        ended = (new == self.end_id).long()
        lengths = ((ended.cumsum(1) - ended) == 0).sum(1).tolist()
        return [(ids[:n], lps[:n]) for ids, lps, n in zip(new, log_probs, lengths, strict=True)]

    # --- scoring -----------------------------------------------------------------------------

    def get_dist(self, tensordict: TensorDictBase, **_: Any) -> LLMMaskedCategorical:
        """Distributions over every token of ``("tokens", "full")``, given those before it.

        Returns:
            Logits (B, L, V) and mask (B, L), left-padded; the mask is true on sampled tokens only.
            All L logits are made, which a large vocabulary and a long conversation cannot afford.

        Raises:
            FrameMismatch: the ids and the frames of a row contradict each other.
        """
        rows = list(tensordict.unbind(0))
        logits = self.model(**self._inputs(rows, "full", "all_assistant_mask"), use_cache=False).logits
        # The logits at a position predict the next token.
        logits = torch.cat([torch.zeros_like(logits[:, :1]), self._scaled(logits[:, :-1])], 1)
        return LLMMaskedCategorical(
            logits, _left_padded([row["masks", "all_assistant_mask"] for row in rows])
        )

    def _scaled(self, logits: Tensor) -> Tensor:
        banned = torch.zeros(logits.shape[-1], dtype=torch.bool)
        banned[self.vision_ids] = True
        # Finite, so that the entropy of the distribution stays finite.
        return logits.float().masked_fill(banned, -1e9) / self.temperature

    # --- inputs of the model -----------------------------------------------------------------

    def _inputs(self, rows: Sequence[TensorDictBase], ids_key: str, sampled_key: str) -> dict[str, Any]:
        """Left-padded ids, masks and encoded frames of conversations, audited."""
        refs = [frame_refs(row) for row in rows]
        ids = [row["tokens", ids_key] for row in rows]
        for index, (row, row_refs) in enumerate(zip(rows, refs, strict=True)):
            self._audit(index, ids[index], row["masks", sampled_key], row_refs)
        features, grids = self._encode([ref for row_refs in refs for ref in row_refs])
        padded = _left_padded(ids, self.pad_id)
        # Stale positions of an earlier batch would be used silently.
        self.model.model.rope_deltas = None
        return {
            "input_ids": padded,
            "attention_mask": _left_padded([torch.ones_like(row_ids) for row_ids in ids]),
            # Without the types, images silently get one-dimensional positions.
            "mm_token_type_ids": (padded == self.vision_ids[1]).int(),
            "image_grid_thw": grids,
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)},  # type: ignore[arg-type]  # one tensor an image
        }

    def _audit(self, row: int, ids: Tensor, sampled: Tensor, refs: Sequence[FrameRef]) -> None:
        start, pad, end, _ = self.vision_ids
        blocks = [[start, *[pad] * self._tokens_of(ref.size), end] for ref in refs]
        expected = [token for block in blocks for token in block]
        places = torch.isin(ids, torch.tensor(self.vision_ids)).nonzero()[:, 0].tolist()
        found = ids[places].tolist()
        if found != expected:
            raise FrameMismatch(
                f"row {row}: ids hold {found.count(start)} frames of {found.count(pad)} placeholders, "
                f"the references ask for {len(refs)} frames of {expected.count(pad)}"
            )
        if any(b - a != 1 and i != end for a, b, i in zip(places, places[1:], found, strict=False)):
            raise FrameMismatch(f"row {row}: other tokens stand between the placeholders of a frame")
        if len(sampled) != len(ids) or sampled[places].any():
            raise FrameMismatch(f"row {row}: the mask of sampled tokens does not fit ids and placeholders")

    def _tokens_of(self, size: tuple[int, int]) -> int:
        vision = self.model.config.vision_config
        return tokens_per_frame(size, vision.patch_size * vision.spatial_merge_size)

    def _encode(self, refs: Sequence[FrameRef]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Vision features and grids of all frames in order; equal frames are encoded once."""
        if not refs:
            raise FrameMismatch("a batch without any frame has no multimodal positions")
        vision = self.model.config.vision_config
        places = {ref: place for place, ref in enumerate(dict.fromkeys(refs))}
        patches = [
            patchify(pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
            for pixels in resolve(self.store, list(places))
        ]
        grids = torch.tensor(
            [[1, ref.size[1] // vision.patch_size, ref.size[0] // vision.patch_size] for ref in places]
        )
        encoded = self.model.model.get_image_features(
            torch.from_numpy(np.concatenate(patches)), grids, return_dict=True
        ).pooler_output
        order = [places[ref] for ref in refs]
        return tuple(encoded[place] for place in order), grids[order]


def append_output(row: TensorDictBase, ids: Tensor, log_probs: Tensor) -> None:
    """Write the conversation with one more output into a row, as training will read it.

    Args:
        row: one row of a `ChatEnv` batch, changed in place.
        ids: (R,) int64 ids of the output, its end token included; empty for a row that waits.
        log_probs: (R,) float32 log-probabilities with which they were sampled.
    """
    full = torch.cat([row["tokens", "prompt"], ids])
    row["tokens", "full"] = full
    row["masks", "all_assistant_mask"] = torch.cat(
        [row["masks", "prompt_sampled"], torch.ones_like(ids).bool()]
    )
    row["masks", "all_attention_mask"] = torch.ones_like(full).bool()
    row["log_probs", "full"] = torch.cat([row["log_probs", "prompt"], log_probs])


def frame_refs(row: TensorDictBase) -> list[FrameRef]:
    """The frame references of one row, in the order in which its ids show them."""
    frames = row["frames"]
    return [
        FrameRef(frames["video"], time_s, tuple(region), tuple(size))
        for time_s, region, size in zip(
            frames["times_s"].tolist(), frames["regions"].tolist(), frames["sizes"].tolist(), strict=True
        )
    ]


def resolve(store: FrameReader, refs: Sequence[FrameRef]) -> list[NDArray[np.uint8]]:
    """Pixels (H, W, 3) of references, in order; one request per video, region and size."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, (video, _, region, size) in enumerate(refs):
        groups.setdefault((video, region, size), []).append(place)
    pixels: dict[int, NDArray[np.uint8]] = {}
    for (video, region, size), places in groups.items():
        batch = store.frames(
            video,
            [refs[place].time_s for place in places],
            size=size,
            region=None if region == WHOLE_FRAME else region,
        )
        pixels.update(zip(places, batch.pixels, strict=True))
    return [pixels[place] for place in range(len(refs))]


def tokens_per_frame(size: tuple[int, int], factor: int) -> int:
    """Placeholders of a frame of ``(width, height)`` pixels.

    Raises:
        ValueError: a side is not a positive multiple of ``factor``, patch size times merge size.
    """
    width, height = size
    if min(size) < factor or width % factor or height % factor:
        raise ValueError(f"frame sides must be positive multiples of {factor}, got {width}x{height}")
    return (width // factor) * (height // factor)


def patchify(pixels: NDArray[np.uint8], patch: int, merge: int, temporal: int) -> NDArray[np.float32]:
    """What Qwen's image processor makes of a frame that already has its size.

    Args:
        pixels: (H, W, 3) uint8, sides multiples of ``patch * merge``.
        patch: pixels of a patch's side.
        merge: patches of a merged token's side; merged patches follow each other.
        temporal: frames of a patch; the frame is repeated.

    Returns:
        (H/patch * W/patch, 3 * temporal * patch * patch) float32.

    Source: ``Qwen2VLImageProcessor`` of transformers, without its resizing.
    """
    height, width, channels = pixels.shape
    scaled = (pixels.astype(np.float32) / 255.0 - PIXEL_MEAN) / PIXEL_STD
    cells = scaled.reshape(
        height // (patch * merge), merge, patch, width // (patch * merge), merge, patch, channels
    ).transpose(0, 3, 1, 4, 6, 2, 5)
    repeated = np.repeat(cells[:, :, :, :, :, None], temporal, axis=5)
    return repeated.reshape(-1, channels * temporal * patch * patch)


def _left_padded(rows: Sequence[Tensor], value: float = 0) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side="left")


def _ids(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> list[int]:
    ids = cast(list[int], tokenizer.convert_tokens_to_ids(list(tokens)))
    if None in ids:
        raise ValueError(f"the tokenizer lacks one of {tokens}: it is not a Qwen-VL tokenizer")
    return ids
