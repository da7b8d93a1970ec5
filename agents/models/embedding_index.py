"""A search index over the frames of any video, by a CLIP-like model of transformers.

Frames are embedded once for each video and model and kept on disk; a query is embedded when it is asked. A
moment's score is the cosine of the two. No task, answer or evidence comes near it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from videogym.search import Hits, SearchError, WrongIndex
from videogym.video.cache import cache_root, publish_file
from videogym.video.types import Video

from .family import WrongCheckpoint

_FORMAT = 1  # of the files; goes up when what they hold changes
_BATCH = 32  # frames embedded at a time
_KEPT = 8  # videos whose embeddings stay in memory


@dataclass(frozen=True)
class EmbeddingIndex:
    """Finds frames by the cosine of their embedding with the text's.

    A recipe holds one: ``replace(FIND, search=EmbeddingIndex("google/siglip-base-patch16-224"))``. Name and
    rate are part of its identity; where it runs and where embeddings are kept are not.

    Embeddings are named by the video's fingerprint and by a digest of the model's weights: of another video
    or another model none is ever used.

    Args:
        model: a checkpoint, a folder or a name, whose model embeds images and texts: CLIP, SigLIP, SigLIP 2
            and others that transformers has with ``get_image_features`` and ``get_text_features``.
        fps: frames a second that can be found.
        device: of torch; None: a GPU if there is one.
        cache_dir: where embeddings are kept, in the folder ``embeddings``; None: ``$VIDEOGYM_CACHE`` or
            ``~/.cache/videogym``.

    Raises:
        ValueError: the rate is no finite number above 0.
    """

    model: str
    fps: float = 1.0
    device: InitVar[str | None] = None
    cache_dir: InitVar[str | None] = None

    def __post_init__(self, device: str | None, cache_dir: str | None) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be a finite number above 0, got {self.fps!r}")
        # No fields, so no part of the identity; under these names `dataclasses.replace` hands them on.
        vars(self).update(device=device, cache_dir=cache_dir)

    def check(self, video: Video) -> None:
        """See `FrameIndex.check`; any video will do, if the model can be loaded.

        Raises:
            WrongCheckpoint: the model does not embed images and texts, or its weights are damaged.
            OSError: there is no such checkpoint.
        """
        self._encoder()

    def search(self, video: Video, query: str) -> Hits:
        """See `FrameIndex.search`: the frames on display at every tick of ``fps``.

        Raises:
            WrongIndex: the file of embeddings is of another video or model.
            SearchError: the file is damaged, or the model's embedding is not finite.
            VideoError: frames cannot be decoded.
        """
        encoder = self._encoder()
        times_s, frames = self._embedded(video, encoder)
        return Hits(times_s, (frames @ encoder.text(query)).astype(np.float64))

    def _encoder(self) -> _Encoder:
        device = vars(self)["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        return _encoder(self.model, device)

    def _embedded(self, video: Video, encoder: _Encoder) -> _Embedded:
        """Times and embeddings of a video's frames: from memory, from the file, or made now."""
        facts = {
            "format": _FORMAT,
            "fingerprint": video.meta.fingerprint,
            "model": encoder.digest,
            "fps": self.fps,
        }
        folder = Path(vars(self)["cache_dir"] or cache_root()) / "embeddings"
        path = folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.npz"
        # In one step each: sessions of a server search at the same time.
        if (kept := _MEMORY.pop(path, None)) is not None:
            _MEMORY[path] = kept
            return kept
        if path.exists():
            found = _read(path, facts)
        else:
            found = encoder.frames(video, self.fps)
            publish_file(
                path, lambda file: np.savez(file, facts=json.dumps(facts), times=found[0], frames=found[1])
            )
        _MEMORY[path] = found
        if len(_MEMORY) > _KEPT:
            _MEMORY.popitem(last=False)
        return found


_Embedded = tuple[NDArray[np.float64], NDArray[np.float32]]  # (N,) seconds, (N, D) of length 1
_MEMORY: OrderedDict[Path, _Embedded] = OrderedDict()


def _read(path: Path, facts: dict[str, Any]) -> _Embedded:
    """Embeddings of a file, which must be of this video, model and rate."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            told = json.loads(str(stored["facts"]))
            times_s, frames = stored["times"], stored["frames"]
    except (ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise SearchError(f"{path} is damaged, remove it to have it made anew: {error}") from error
    for name, value in facts.items():
        if told.get(name) != value:
            raise WrongIndex(f"{path} holds embeddings of {name} {told.get(name)!r}, this is {value!r}")
    return times_s, frames


class _Encoder:
    """A model with its tokenizer and image processor."""

    def __init__(self, name: str, device: str) -> None:
        # Else a checkpoint of an unknown type would ask at the terminal whether its code may run.
        plain: dict[str, Any] = {"trust_remote_code": False}
        try:
            model = AutoModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32, **plain)
        except SafetensorError as error:
            raise WrongCheckpoint(f"{name}: its weights are damaged: {error}") from error
        for part in ("get_image_features", "get_text_features"):
            if not hasattr(model, part):
                raise WrongCheckpoint(
                    f"{name} is a {type(model).__name__}, which has no {part}; an index needs a model that "
                    "embeds images and texts, such as CLIP or SigLIP"
                )
        self._model, self._device = model.eval().to(device), device
        # Apart, not by AutoProcessor, which needs torchvision for some of these models.
        self._tokenizer = AutoTokenizer.from_pretrained(name, **plain)
        self._images = AutoImageProcessor.from_pretrained(name, backend="pil", **plain)
        config = model.config
        if not hasattr(config.vision_config, "image_size"):
            raise WrongCheckpoint(
                f"{name} is a {type(model).__name__} without a fixed image size; take a checkpoint of "
                "CLIP, SigLIP or SigLIP 2 that has one"
            )
        self._side = int(config.vision_config.image_size)
        self._length = int(config.text_config.max_position_embeddings)
        # SigLIP is trained on texts that fill its context, padding and all, and must read no mask.
        full = config.model_type.startswith("siglip")
        self._padding: str | bool = "max_length" if full else True
        self._reads = ("input_ids",) if full else ("input_ids", "attention_mask")
        self.digest = _digest(model, str(self._images.to_json_string()))

    def frames(self, video: Video, fps: float) -> _Embedded:
        """Times and embeddings of the frames at every tick."""
        ticks = np.arange(math.ceil(video.meta.duration_s * fps)) / fps
        places = np.unique(np.maximum(np.searchsorted(video.pts_s, ticks, side="right") - 1, 0))
        times_s = np.array(video.pts_s[places])
        return times_s, np.concatenate(list(self._batches(video, times_s)))

    def _batches(self, video: Video, times_s: NDArray[np.float64]) -> Iterator[NDArray[np.float32]]:
        # Decoded as small as the processor has them, so that an hour is not held at full size.
        short = min(video.meta.width, video.meta.height)
        shrunk = min(1.0, self._side / short)
        size = max(1, round(video.meta.width * shrunk)), max(1, round(video.meta.height * shrunk))
        for first in range(0, len(times_s), _BATCH):
            pixels = video.frames_at(times_s[first : first + _BATCH].tolist(), size=size).pixels
            inputs = self._images(list(pixels), return_tensors="pt").to(self._device)
            with torch.inference_mode():
                yield _unit(self._model.get_image_features(**inputs))

    def text(self, query: str) -> NDArray[np.float32]:
        """(D,) the embedding of a text; what does not fit the model's context is cut off."""
        inputs = self._tokenizer(
            [query], padding=self._padding, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            features = self._model.get_text_features(**{name: inputs[name] for name in self._reads})
        return cast(NDArray[np.float32], _unit(features)[0])


@lru_cache(maxsize=2)
def _encoder(name: str, device: str) -> _Encoder:
    return _Encoder(name, device)


def _unit(features: Any) -> NDArray[np.float32]:
    """(N, D) features, each of length 1."""
    values: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(values.float(), dim=-1).cpu().numpy()


def _digest(model: torch.nn.Module, processing: str) -> str:
    """Names a model by its weights, and by how it is shown pictures."""
    digest = hashlib.sha256(processing.encode())
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
