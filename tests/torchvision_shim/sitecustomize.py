"""Lets torchvision be imported beside a torch without CUDA; for `make test-vllm` and `make test-lmms-eval`.

PyPI's torchvision is built for CUDA: without its operators its import fails. Image processors of vLLM and
transformers use only its transforms, which are Python, so the operators' schemas are enough. They are
declared when torchvision is first imported, since this module runs in every process.
"""

import importlib.abc
import sys
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Declare the schemas, and leave the finding to others."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                self.library.define(schema)
            KEPT.append(self)  # a collected library takes its operators with it


KEPT: list[_BeforeTorchvision] = []
sys.meta_path.insert(0, _BeforeTorchvision())
