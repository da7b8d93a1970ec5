"""Runs inside vLLM's workers: puts new weights into the model that is in use.

vLLM's own transfer backends move weights between GPUs; the backend ``file`` reads them from a safetensors
file, which also reaches workers without a GPU and needs no process group with the trainer. The folder of
this module is put on the path of a server, which needs nothing else of this package: ``vllm serve
--worker-extension-cls videogym_file_transfer.Transfer --weight-transfer-config '{"backend": "file"}'``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from torch import Tensor
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform


def load(model: Any, model_config: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Replace all weights of a model that vLLM has prepared for its device.

    A failure leaves a model that can be loaded again, with weights that are not to be used.

    Args:
        model: of vLLM, a module that loads checkpoints.
        model_config: of vLLM.
        weights: of the whole model, under the names of a checkpoint.

    Raises:
        ValueError: some parameters got no weights; vLLM itself would keep their old ones with a warning.
    """
    # Names are taken first: while layers wait for weights, their parameters are not all listed.
    missing = {name for name, _ in model.named_parameters()}
    initialize_layerwise_reload(model)
    try:
        missing -= model.load_weights(weights)
    finally:
        finalize_layerwise_reload(model, model_config)
    if current_platform.is_cpu():
        for module in model.modules():
            # A head tied to the embedding computes with a packed copy, which the reload leaves as it was.
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
    if missing:
        raise ValueError(f"no new weights came for {sorted(missing)}")


class Transfer:
    """What a worker can do in addition; importing this also registers the backend ``file``."""

    def videogym_load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load weights of this very process; for engines without processes of their own."""
        worker: Any = self
        with set_current_vllm_config(worker.vllm_config):
            load(worker.model_runner.get_model(), worker.model_config, weights)


@dataclass
class FileInitInfo(WeightTransferInitInfo):
    """Nothing has to be agreed on beforehand."""


@dataclass
class FileUpdateInfo(WeightTransferUpdateInfo):
    """Where the weights are."""

    path: str  # of a safetensors file that every worker can read; names as transformers saves them


class FileWeightTransferEngine(WeightTransferEngine[FileInitInfo, FileUpdateInfo]):
    """Loads all weights from one file."""

    init_info_cls = FileInitInfo
    update_info_cls = FileUpdateInfo

    def init_transfer_engine(self, init_info: FileInitInfo) -> None:
        """Nothing to do."""

    def start_weight_update(self) -> None:
        """Nothing to do."""

    def receive_weights(self, update_info: FileUpdateInfo) -> None:
        """Load a file.

        Raises:
            ValueError: the file has not the weights of this model.
        """
        with safe_open(update_info.path, framework="pt") as file:
            weights = ((name, file.get_tensor(name)) for name in file.keys())  # no mapping
            load(self.model, self.model_config, weights)

    def finish_weight_update(self) -> None:
        """Nothing to do."""

    def shutdown(self) -> None:
        """Nothing to release."""


try:
    WeightTransferEngineFactory.register_engine("file", FileWeightTransferEngine)
except ValueError:  # this module is imported under two names: by its package, and by a worker
    pass
