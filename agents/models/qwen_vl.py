"""Qwen2.5-VL and Qwen3-VL with nothing implicit: positions, placeholders and caches are passed by hand.

`QwenVL` turns collapsed ids and visuals into tensors, audits them against each other, encodes frames and
runs the language model over new tokens behind what is cached. It keeps no state between calls but the
features of a frozen vision tower. Episodes, sampling and losses are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, pairwise
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.generic import is_flash_attention_requested

from ..training.ranks import all_gather_object, is_first
from ..training.sharding import Shardable
from ..training.staging import whole_folder
from . import frame_attention, qwen2_5_vl, qwen3_vl  # noqa: F401  # families that are registered
from .checkpoints import full_weights, save_processor
from .family import WrongCheckpoint, family_of
from .padding import runs
from .visuals import ChatForm, FrameReader, PatchLayout, Visual, resolve

VISION_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
LOGITS_AT_ONCE = 2**24  # elements of a slice of logits; 64 MB in float32
PATCHES_AT_ONCE = 2**17  # that the vision tower reads in a call: 512 frames of 224x224


class FrameMismatch(ValueError):
    """Token ids and visuals of one conversation contradict each other."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """One conversation, or a part of it, as the language model reads it."""

    ids: Tensor  # (L,) int64, a placeholder per merged patch
    positions: Tensor  # (3, L) int64: time, height and width of M-RoPE
    places: Tensor  # of every collapsed id: where it, or the first of its placeholders, stands in ids
    after: int  # position of the next token


class QwenVL(Shardable):
    """A Qwen-VL model with its tokenizer and the store of its frames.

    Args:
        model: of a registered family, see `agents.models.family`; kept in eval mode.
        tokenizer: its tokenizer.
        store: resolves visuals.
        kept_features: visuals whose features are kept while the vision tower is frozen.

    Raises:
        WrongCheckpoint: the model is of another family, or the tokenizer lacks Qwen-VL's special tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        store: FrameReader,
        kept_features: int = 4096,
    ) -> None:
        super().__init__()
        self._family = family_of(model.config.model_type)
        self.family = self._family.name
        self.model, self.tokenizer, self.store = model.eval(), tokenizer, store
        if not is_flash_attention_requested(model.config.vision_config):
            model.model.visual.config._attn_implementation = frame_attention.NAME
        self.layout = patch_layout(model.config)
        self.end_id, self.pad_id = token_ids(tokenizer, "<|im_end|>", "<|endoftext|>")
        self.vision_ids = token_ids(tokenizer, *VISION_TOKENS)
        self._start, self._image, self._stop, self._video = self.vision_ids
        self._kept: dict[Visual, Tensor] = {}
        self._kept_features, self._kept_of = kept_features, -1
        self.shards = {}
        self.encoded_visuals = 0  # counts, for those who want to see that nothing is done twice
        self.forwarded_tokens = 0

    @classmethod
    def from_pretrained(
        cls, name: str, store: FrameReader, dtype: torch.dtype = torch.float32, **kwargs: Any
    ) -> QwenVL:
        """The model of a checkpoint, a folder or a name.

        In float32 sampled and recomputed log-probabilities agree to 1e-5; in bfloat16 to some hundredths.

        Raises:
            WrongCheckpoint: it is of another family, its weights are damaged, or its tokenizer lacks
                Qwen-VL's special tokens.
            OSError: there is none, or none with weights in safetensors. No pickle is ever loaded.
        """
        # Else a checkpoint of an unknown type would ask at the terminal whether its code may run.
        plain = {"trust_remote_code": False}
        family = family_of(AutoConfig.from_pretrained(name, **plain).model_type)
        try:
            model = family.model_class.from_pretrained(name, dtype=dtype, use_safetensors=True)
        except SafetensorError as error:
            raise WrongCheckpoint(f"{name}: its weights are damaged: {error}") from error
        return cls(model, AutoTokenizer.from_pretrained(name, **plain), store, **kwargs)

    def chat_form(self, video: bool = False) -> ChatForm:
        """How conversations are laid out for this family: one image per frame, or its form of a video."""
        return ChatForm(self.layout.factor, self.layout.temporal, self._family.video if video else "images")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.model.device)

    @property
    def vision_frozen(self) -> bool:
        """Whether no weight of the vision tower is trained."""
        return not any(parameter.requires_grad for parameter in self.model.model.visual.parameters())

    def changes(self, part: str = "") -> int:
        """Counts changes in place of weights, of those alone whose names begin so."""
        # What is gathered of shards is another tensor, which nobody changes.
        weights = self.shards or dict(self.named_parameters())
        return sum(weight._version for name, weight in weights.items() if name.startswith(part))

    # --- over ranks, see `agents.training.sharding` --------------------------------------------

    def layers(self) -> list[nn.Module]:
        """Decoder layers, and vision blocks where they are trained.

        A frozen vision tower is small, and who has kept a frame's features does not run it.
        """
        inner = self.model.model
        return [*inner.language_model.layers, *(() if self.vision_frozen else inner.visual.blocks)]

    def replicated(self) -> list[nn.Parameter]:
        """A frozen vision tower."""
        return list(self.model.model.visual.parameters()) if self.vision_frozen else []

    def entrances(self) -> tuple[str, ...]:
        """See `Shardable`."""
        return "hidden", "log_probs", "features"

    def rehearse(self) -> None:
        """Read one token."""
        place = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        self.hidden(place, place.expand(3, 1, 1), torch.ones_like(place, dtype=torch.bool))

    def checkpoint_layers(self) -> None:
        """Keep only the inputs of every layer for the backward pass, which then runs it again.

        transformers' own gradient checkpointing takes the cache away, and with it the shared prefixes.
        """
        inner = self.model.model
        for layer in (*inner.language_model.layers, *inner.visual.blocks):
            layer.forward = partial(_run_again, layer.forward)

    # --- ids and positions -------------------------------------------------------------------

    def expand(self, ids: Sequence[int], visuals: Sequence[Visual], start: int = 0) -> Expanded:
        """Ids with a placeholder per merged patch, and their positions.

        Args:
            ids: collapsed.
            visuals: in the order of the placeholders.
            start: position of the first id.

        Raises:
            FrameMismatch: ids and visuals contradict each other.
        """
        placeholders = self._audit(ids, visuals)
        tokens: list[int] = []
        pieces: list[np.ndarray[Any, Any]] = []
        lengths, place = np.ones(len(ids), np.int64), 0
        for index, visual in zip([*placeholders, len(ids)], [*visuals, None], strict=True):
            text = ids[place:index]
            tokens += text
            pieces.append(np.broadcast_to(np.arange(start, start + len(text)), (3, len(text))))
            start, place = start + len(text), index + 1
            if visual is not None:
                lengths[index] = self.layout.tokens(visual)
                tokens += [ids[index]] * int(lengths[index])
                pieces.append(start + self._grid_positions(visual))
                _, height, width = self.layout.grid(visual)
                start += max(height, width) // self.layout.merge
        positions = np.concatenate(pieces, 1) if pieces else np.zeros((3, 0), np.int64)
        return Expanded(
            torch.tensor(tokens, dtype=torch.int64),
            torch.from_numpy(positions),
            torch.from_numpy(lengths.cumsum() - lengths),
            start,
        )

    def _grid_positions(self, visual: Visual) -> np.ndarray[Any, Any]:
        """(3, N) positions of a visual's merged patches, from 0.

        Source: ``get_vision_position_ids`` of transformers; a video of Qwen2.5-VL advances in time with
        its seconds, an image or a video of Qwen3-VL (one visual per step in time there) does not.
        """
        steps, height, width = self.layout.grid(visual)
        merge, step = self.layout.merge, 1.0
        if self._family.seconds_in_positions and len(visual.times_s) > 1:
            step = self.model.config.vision_config.tokens_per_second * seconds_per_step(visual, self.layout)
        return _grid(steps, height // merge, width // merge, step)

    def _audit(self, ids: Sequence[int], visuals: Sequence[Visual]) -> list[int]:
        """Places of the placeholders; every one between its delimiters, of its kind, with its visual."""
        array = np.asarray(ids)
        (places,) = np.isin(array, self.vision_ids).nonzero()
        found = array[places].tolist()
        kinds = [self._image if len(visual.times_s) == 1 else self._video for visual in visuals]
        expected = [token for kind in kinds for token in (self._start, kind, self._stop)]
        if found != expected:
            raise FrameMismatch(
                f"the ids hold {found.count(self._image)} image and {found.count(self._video)} video "
                f"placeholders, {found.count(self._start)} starts and {found.count(self._stop)} ends, in "
                f"an order that does not fit {kinds.count(self._image)} images and "
                f"{kinds.count(self._video)} videos"
            )
        if any(b - a != 1 for a, b in pairwise(places) if array[a] != self._stop):
            raise FrameMismatch("other tokens stand between a placeholder and its delimiters")
        if self._family.video == "stamped_video" and any(
            len(v.times_s) > self.layout.temporal for v in visuals
        ):
            raise FrameMismatch(f"a video of {self.family} is one visual per {self.layout.temporal} frames")
        return [int(place) for place in places[1::3]]

    def length(self, ids: Sequence[int], visuals: Sequence[Visual]) -> int:
        """Tokens of collapsed ids when they are expanded."""
        return len(ids) + sum(self.layout.tokens(visual) - 1 for visual in visuals)

    # --- vision ------------------------------------------------------------------------------

    def encode(self, visuals: Sequence[Visual]) -> dict[Visual, Tensor]:
        """Features of every distinct visual, in tensors of (N, (1 + D) * H).

        The first H columns are inputs of the language model, the others are added after its first D layers
        (Qwen3-VL). Features are kept while no gradient is asked for and the vision tower stays as it is.

        Raises:
            videogym.video.VideoError: frames could not be shown.
        """
        asked = list(dict.fromkeys(visuals))
        if torch.is_grad_enabled() and not self.vision_frozen:
            return self._encode(asked)
        if (weights := self.changes("model.model.visual.")) != self._kept_of:
            self._kept.clear()
            self._kept_of = weights
        self._kept |= self._encode([visual for visual in asked if visual not in self._kept])
        known = {visual: self._kept[visual] for visual in asked}
        for visual in list(self._kept)[: max(0, len(self._kept) - self._kept_features)]:
            del self._kept[visual]
        return known

    def _encode(self, visuals: Sequence[Visual]) -> dict[Visual, Tensor]:
        if not visuals:
            return {}
        self.encoded_visuals += len(visuals)
        # To the tower a frame is a step in time, and steps do not see each other: frames of one size go in
        # as one long video, which spares it work that it does once per item.
        ordered = sorted(visuals, key=lambda visual: self.layout.grid(visual)[1:])
        parts = runs([math.prod(self.layout.grid(visual)) for visual in ordered], PATCHES_AT_ONCE)
        idle = 0  # calls that other ranks have beyond these: where weights are divided, all make as many
        if torch.is_grad_enabled() and not self.vision_frozen:
            idle = max(all_gather_object(len(parts))) - len(parts)
        made: dict[Visual, Tensor] = {}
        for some in parts:
            made |= self._encode_at_once(ordered[some])
        for _ in range(idle):  # nothing of it is used, but its graph
            ((first, again),) = self._encode_at_once(ordered[:1]).items()
            made[first] = torch.cat([made[first], again[:0]])
        return made

    def _encode_at_once(self, ordered: Sequence[Visual]) -> dict[Visual, Tensor]:
        grids = [
            [sum(self.layout.grid(visual)[0] for visual in same), *size]
            for size, same in groupby(ordered, key=lambda visual: self.layout.grid(visual)[1:])
        ]
        patches = np.concatenate([self.layout.patches(f) for f in resolve(self.store, ordered)])
        columns = self.features(
            torch.from_numpy(patches).to(self.device), torch.tensor(grids, device=self.device)
        )
        sizes = [self.layout.tokens(visual) for visual in ordered]
        return dict(zip(ordered, columns.split(sizes), strict=True))

    def features(self, patches: Tensor, grids: Tensor) -> Tensor:
        """(N, (1 + D) * H) of all merged patches, see `encode`.

        Args:
            patches: (P, 3 * temporal * patch * patch) float32, see `PatchLayout.patches`.
            grids: (V, 3) int64, patches in time, height and width of each item.
        """
        out = self.model.model.get_image_features(patches, grids, return_dict=True)
        stacked = getattr(out, "deepstack_features", None) or []
        layers = [torch.cat(list(layer)) for layer in (out.pooler_output, *stacked)]
        return torch.cat(layers, -1)

    # --- language ----------------------------------------------------------------------------

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        features: Sequence[Tensor] = (),
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Last hidden states of new tokens.

        Args:
            ids: (B, L) int64, expanded.
            positions: (3, B, L); where conversations are packed (4, 1, L), place in its conversation first.
            mask: (B, P + L) bool, true on tokens, of the P cached ones first; None: conversations are
                packed, none of which attends to another.
            features: of the visuals in ``ids``, row by row, in order.
            cache: of the P tokens before, to which the new ones are added; None: there are none.

        Returns:
            (B, L, H).
        """
        language = self.model.model.language_model
        embedded = language.embed_tokens(ids)
        extra: dict[str, Any] = {}
        if features:
            width = embedded.shape[-1]
            columns = torch.cat(list(features)).to(embedded.dtype).split(width, -1)
            seen = (ids == self._image) | (ids == self._video)
            seen = seen if mask is None else seen & mask[:, -ids.shape[1] :]
            embedded = embedded.masked_scatter(seen[..., None], columns[0])
            if len(columns) > 1:
                extra = {"visual_pos_masks": seen, "deepstack_visual_embeds": list(columns[1:])}
        self.forwarded_tokens += ids.numel() if mask is None else int(mask[:, -ids.shape[1] :].sum())
        out = language(
            inputs_embeds=embedded,
            attention_mask=None if mask is None else mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            **extra,
        )
        return cast(Tensor, out.last_hidden_state)

    def logits(self, hidden: Tensor, temperature: float) -> Tensor:
        """(..., V) float32 logits of what follows, over the temperature, with vision ids ruled out."""
        logits = self.model.lm_head(hidden).float() / temperature
        banned = torch.tensor(self.vision_ids, device=logits.device)
        return cast(Tensor, logits.index_fill_(-1, banned, -1e9))  # finite, so that entropies stay finite

    def log_probs(self, hidden: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities of ids and entropies of their distributions.

        Logits exist for a slice of the tokens at a time, in the backward pass too.

        Args:
            hidden: (T, H), of the tokens before.
            ids: (T,) int64.
            temperature: above 0.

        Returns:
            (T,) float32 each.
        """
        size = max(1, LOGITS_AT_ONCE // self.model.config.text_config.vocab_size)
        if len(ids) <= size:
            return self._log_probs(hidden, ids, temperature)
        parts = [
            checkpoint(self._log_probs, h, i, temperature, use_reentrant=False)
            for h, i in zip(hidden.split(size), ids.split(size), strict=True)
        ]
        log_probs, entropies = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(entropies)

    def _log_probs(self, hidden: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        log_p = self.logits(hidden, temperature).log_softmax(-1)
        chosen = log_p.gather(-1, ids[:, None])[:, 0].clone()  # FSDP2 warns of views
        return chosen, -(log_p.exp() * log_p).sum(-1)

    def save(self, folder: str, files: Mapping[str, str] | None = None) -> None:
        """Write an ordinary checkpoint with tokenizer, processor and texts by name; adapters are merged.

        Of several ranks the first writes, and all must ask for it.

        Raises:
            OSError: it cannot be written, as on a full disk; an earlier one in the folder is as it was.
        """
        weights = full_weights(self.model)
        if not is_first():
            return
        with whole_folder(folder) as unfinished:
            self.model.save_pretrained(unfinished, state_dict=weights)
            self.tokenizer.save_pretrained(unfinished)
            save_processor(unfinished, self.layout)
            for name, text in (files or {}).items():
                (unfinished / name).write_text(text, encoding="utf-8")


def _run_again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A layer's forward that keeps no more than its inputs while gradients are wanted."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Nothing in these layers is random: attention has no dropout in eval mode.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def seconds_per_step(visual: Visual, layout: PatchLayout) -> float:
    """Seconds from one step in time of a video item to the next, as its processor counts them."""
    times = visual.times_s
    return layout.temporal * (times[-1] - times[0]) / (len(times) - 1)


def token_ids(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> tuple[int, ...]:
    """Ids of special tokens.

    Raises:
        WrongCheckpoint: the tokenizer lacks one; the message names it.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise WrongCheckpoint(
            f"the tokenizer lacks {', '.join(missing)}: it is not that of a Qwen-VL checkpoint"
        )
    return tuple(vocabulary[token] for token in tokens)


def patch_layout(config: Any) -> PatchLayout:
    """How the model of a transformers configuration cuts frames.

    Raises:
        WrongCheckpoint: it is of another family.
    """
    vision, family = config.vision_config, family_of(config.model_type)
    sizes = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    return PatchLayout(*sizes, family.mean, family.std)


@lru_cache(maxsize=1024)
def _grid(steps: int, height: int, width: int, step: float) -> np.ndarray[Any, Any]:
    """(3, N) time, row and column of merged patches; read-only. Hundreds of frames have one size."""
    times = (np.arange(steps) * np.float32(step)).astype(np.int64)
    axes = np.meshgrid(times, np.arange(height), np.arange(width), indexing="ij")
    positions = np.stack([axis.reshape(-1) for axis in axes])
    positions.setflags(write=False)
    return positions
