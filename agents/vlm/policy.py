"""The model that is trained, as configured, and the policies made of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..engines.base import Engine, Sampling
from ..engines.shared_servers import SharedServers
from ..engines.transformers_engine import KEPT_CONVERSATIONS, TransformersEngine
from ..engines.vllm_common import MIN_TEMPERATURE
from ..engines.vllm_http import HTTPEngine
from ..models.qwen_vl import QwenVL
from ..models.visuals import FrameReader
from ..training.archive import UnreadableCheckpoint, load_archive, read_metadata
from ..training.provenance import options_of_run, read_provenance
from ..training.ranks import launched
from ..training.run import FOLDER
from ..training.sharding import fully_shard_model
from .actor import ChatActor
from .config import ChatConfig
from .records import Record
from .responder import asks_itself
from .scoring import Scored, Scorer


def require_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: torch cannot use it; the message says why.
    """
    if launched() and torch.cuda.is_available():
        return  # each rank takes its own, and leaves the others' alone
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises one or the other
        why = " ".join(str(error).split())
        raise ValueError(f"device {device!r} cannot be used: {why}") from error


def make_model(config: ChatConfig, store: FrameReader) -> QwenVL:
    """The model of the configured checkpoint, `apply_adapters`; under torchrun not yet `shard_model`.

    Where no step is made every rank has the whole model on its device.
    """
    dtype = torch.float32 if _computes_lower(config) else getattr(torch, config.model.dtype)
    model = QwenVL.from_pretrained(config.model.checkpoint, store, dtype)
    # Shards go to the device, not the whole.
    shards = launched() and config.trains
    return apply_adapters(config, model if shards else model.to(config.model.device))


def checkpoint_of(name: str) -> Path:
    """The model or else the archive of a run's folder; all else is itself."""
    path = Path(name)
    inner = [path / part for part in ("model", "checkpoint") if (path / part).exists()]
    return inner[0] if inner and not (path / "config.json").exists() else path


def load_trained(config: ChatConfig, store: FrameReader) -> QwenVL:
    """The model of a checkpoint of ours or of others.

    Args:
        config: whose checkpoint is a folder or name of a model, the folder of a run, or the archive of one.
        store: resolves frames.

    Raises:
        UnreadableCheckpoint: an archive is damaged, or does not say which model it was trained from, or
            that is gone.
        ValueError, OSError: as `QwenVL.from_pretrained`.
    """
    path = checkpoint_of(config.model.checkpoint)
    if not path.is_file():
        return make_model(config.with_options(checkpoint=str(path)) if path.exists() else config, store)
    trained = read_provenance(path)
    if trained is None:
        raise UnreadableCheckpoint(f"{path} does not say which model it was trained from")
    options = options_of_run(trained)
    own = {name: options[name] for name in ("lora_rank", "freeze_vision")}
    first = first_model(path, options["checkpoint"])
    try:
        model = make_model(config.with_options(**own, checkpoint=first), store)
    except OSError as error:  # transformers says it in several lines
        raise _gone(path, first, f"cannot be loaded ({' '.join(str(error).split())})") from error
    load_archive(path, {"policy": model})
    return model


def first_model(archive: Path, stored: str) -> str:
    """Where the model that an archive was trained from lies, also where they were moved together.

    Args:
        archive: its weights are those of that model's architecture.
        stored: the checkpoint that its run was given: a name, or a path from where the run was started.

    Raises:
        UnreadableCheckpoint: there is no such folder.
    """
    told = str(read_metadata(archive).get("config", {}).get("checkpoint", ""))
    below = told.removeprefix(FOLDER) if told.startswith(FOLDER) else stored
    # Joined to these, an absolute path stays what it is.
    places = [*(folder / below for folder in archive.absolute().parents), Path(stored)]
    if found := next((place for place in places if (place / "config.json").is_file()), None):
        return str(found)
    if not Path(stored).is_absolute() and stored.count("/") <= 1 and not Path(stored).exists():
        return stored  # a name that a hub may know
    raise _gone(archive, stored, "is neither there nor beside it")


def _gone(archive: Path, first: str, why: str) -> UnreadableCheckpoint:
    advice = "put it there, or name a model that was saved whole, such as the folder 'model' of a run"
    return UnreadableCheckpoint(f"{archive} was trained from the model {first}, which {why}: {advice}")


def _computes_lower(config: ChatConfig) -> bool:
    """Whether weights are kept in float32 and gathered in bfloat16."""
    return config.trains and launched() and config.model.dtype == "bfloat16" and not config.model.lora_rank


def shard_model(config: ChatConfig, model: QwenVL) -> QwenVL:
    """The model, in place; under torchrun each rank has its shards from now on.

    Optimizers are made afterwards, and copies before.
    """
    fully_shard_model(model, config.model.device, torch.bfloat16 if _computes_lower(config) else None)
    return model


def apply_adapters(config: ChatConfig, model: QwenVL) -> QwenVL:
    """A model with adapters, frozen parts and checkpointed layers as configured; changed in place."""
    if config.model.freeze_vision:
        model.model.model.visual.requires_grad_(False)
    if config.model.lora_rank:
        adapters = LoraConfig(
            r=config.model.lora_rank,
            lora_alpha=2 * config.model.lora_rank,
            target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj",
        )
        model.requires_grad_(False)
        inject_adapter_in_model(adapters, model.model)
        for weight in trainable_parameters(model):
            weight.data = weight.data.float()
    if config.memory.gradient_checkpointing:
        model.checkpoint_layers()
    return model


def make_actor(config: ChatConfig, model: QwenVL, server: str = "") -> ChatActor:
    """A policy whose outputs are sampled with the model that is trained, or by a server.

    Args:
        config: of the run.
        model: that is trained.
        server: URL of a vLLM, see `agents.engines.vllm_server`, to which weights are pushed, or several
            with commas between, which ranks share; "": none.

    Raises:
        EngineError: a server is out of reach, of an untested version, or of another checkpoint.
        ValueError: a URL is not one of HTTP, or a server cannot sample as configured, or under torchrun the
            recipe asks the policy's own weights, which no rank has whole while servers sample.
    """
    told = config.sampling
    if server and (told.video_form or told.temperature < MIN_TEMPERATURE):
        raise ValueError(
            f"a server samples at temperatures of at least {MIN_TEMPERATURE} behind frames as images, got "
            f"temperature {told.temperature} and video_form {told.video_form}"
        )
    if server and launched() and asks_itself(config.rules):
        raise ValueError(
            f"under torchrun no rank has the weights that {config.rules.name} asks while servers sample: "
            "leave the servers out, or train in one process"
        )
    sampling = Sampling(
        told.temperature,
        told.max_new_tokens,
        model.end_id,
        model.vision_ids,
        told.max_context,
    )
    # Threads play episodes one after another: what is kept of those that have ended is bounded too.
    most = min(config.memory.max_concurrent_rollouts or KEPT_CONVERSATIONS, KEPT_CONVERSATIONS)
    engine: Engine = TransformersEngine(model, most)
    urls = [url.strip() for url in server.split(",") if url.strip()]
    if server and not urls:
        raise ValueError(f"server must be a URL, or several with commas between, got {server!r}")
    untested = told.allow_untested_vllm
    if urls and (launched() or len(urls) > 1):
        engine = SharedServers(urls, model.store, model.layout, allow_untested=untested)
    elif urls:
        engine = HTTPEngine(urls[0], model.store, model.layout, allow_untested=untested)
    return ChatActor(model, engine, sampling, config.memory.share_prefixes)


def reference_policy(config: ChatConfig, actor: ChatActor) -> Scorer:
    """A policy before it is trained, which says how far training has led away from it.

    Adapters are left out for as long as it scores; where all weights are trained, it is a copy.
    """
    temperature, share = config.sampling.temperature, config.memory.share_prefixes
    if config.model.lora_rank:
        return _WithoutAdapters(actor.model, temperature, share)
    first = copy.deepcopy(actor.model).requires_grad_(False)
    return Scorer(shard_model(config, first), temperature, share)


class _WithoutAdapters(Scorer):
    """Scores as a model did before its adapters were trained."""

    def in_parts(self, records: Sequence[Record], micro_batch_size: int) -> Iterator[Scored]:
        """See `Scorer.in_parts`."""
        adapted = [layer for layer in self.model.modules() if isinstance(layer, BaseTunerLayer)]
        for layer in adapted:
            layer.enable_adapters(False)
        try:
            yield from super().in_parts(records, micro_batch_size)
        finally:
            for layer in adapted:
                layer.enable_adapters(True)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The weights that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
