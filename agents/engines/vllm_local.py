"""Rollouts from a vLLM engine in this very process: for tests, and for one GPU that also trains.

The weights are handed over in memory. Everything else is as with `agents.engines.vllm_http`: what vLLM
ran and gave back is compared with what was asked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import vllm
from PIL import Image
from torch import nn

from ..models.checkpoints import named_weights
from ..models.visuals import FrameReader, PatchLayout
from .base import Context, EngineError, Output, Sampling
from .vllm_common import (
    audit_output,
    audit_prompt,
    check_version,
    engine_options,
    prepare,
    sampling_params,
    span_versions,
)


class LocalEngine:
    """Samples from a vLLM engine of its own.

    Args:
        checkpoint: a folder or a name, with its tokenizer and its processor's configuration.
        store: resolves frames.
        layout: how the model's family cuts frames.
        max_model_len: tokens of the longest context with its output, placeholders counted singly.
        max_images: images of one context.
        max_frame_pixels: width times height of the largest frame. vLLM reserves memory for it.
        dtype: of the weights and the activations. In float32 log-probs equal those of training to
            1e-5, in bfloat16 to about 0.05.
        seed: of sampling.
        options: further arguments of ``vllm.LLM``, for instance ``gpu_memory_utilization``. One worker
            only: weights are handed over within the process.
        allow_untested: accept a vLLM of a version that is not in `TESTED_VERSIONS`.

    Raises:
        EngineError: the version of vLLM is untested.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        store: FrameReader,
        layout: PatchLayout,
        *,
        max_model_len: int,
        max_images: int,
        max_frame_pixels: int,
        dtype: str = "bfloat16",
        seed: int = 0,
        options: dict[str, Any] | None = None,
        allow_untested: bool = False,
    ) -> None:
        check_version(vllm.__version__, allow_untested)
        self._store, self._layout = store, layout
        self._pushed: int | None = None
        self._unusable: str | None = None
        required = engine_options(
            max_model_len=max_model_len,
            max_images=max_images,
            max_frame_pixels=max_frame_pixels,
            dtype=dtype,
            seed=seed,
        )
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # vLLM would start processes of its own
        if not torch.cuda.is_available():
            # Compiling takes longer than it saves; the cache of a CPU is counted in GiB.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            required["enforce_eager"] = True
        self._llm = vllm.LLM(
            str(checkpoint),
            worker_extension_cls=f"{__package__}.vllm_plugin.videogym_file_transfer.Transfer",
            **required,
            **(options or {}),
        )

    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order.

        Raises:
            EngineError: the engine failed, refused a context, or gave what cannot be an output.
            ValueError: a context cannot be served, see `agents.engines.vllm_common.prepare`.
        """
        if self._unusable:
            raise EngineError(self._unusable)
        if not contexts:
            return []
        prompts = prepare(contexts, sampling, self._store, self._layout)
        inputs: list[Any] = [
            {
                "prompt_token_ids": list(prompt.ids),
                "multi_modal_data": {"image": [Image.fromarray(frame) for frame in prompt.frames]},
            }
            if prompt.frames
            else {"prompt_token_ids": list(prompt.ids)}
            for prompt in prompts
        ]
        params = [vllm.SamplingParams(**sampling_params(sampling, prompt.max_tokens)) for prompt in prompts]
        try:
            answers = self._llm.generate(inputs, params, use_tqdm=False)
        except Exception as error:  # vLLM documents no types; refused requests and faults alike end here
            raise EngineError(f"vLLM refused or failed: {type(error).__name__}: {error}") from error
        outputs = []
        for prompt, answer in zip(prompts, answers, strict=True):
            audit_prompt(prompt, answer.prompt_token_ids, self._runs(answer.prompt_token_ids))
            (choice,) = answer.outputs
            ids = list(choice.token_ids)
            log_probs = [known[token].logprob for known, token in zip(choice.logprobs, ids, strict=True)]
            spans = [vars(span) for span in choice.weight_versions or ()]
            versions = span_versions(spans, len(ids), self._pushed)
            outputs.append(audit_output(sampling, ids, log_probs, versions, choice.finish_reason))
        return outputs

    def reset_cache(self) -> None:
        """Nothing: vLLM itself gives room to what is asked next."""

    def update_weights(self, model: nn.Module, version: int) -> None:
        """Load new weights, and empty all caches.

        Raises:
            EngineError: they could not be loaded; nothing is sampled until a push succeeds.
            ValueError: the version is negative, or the model is wrapped.
        """
        if version < 0:
            raise ValueError(f"a version is not negative, got {version}")
        weights = list(named_weights(model))
        self._unusable = f"the weights of version {version} could not be loaded; push them again"
        try:
            self._llm.collective_rpc("videogym_load", args=(weights,))
        except Exception as error:  # vLLM documents no types
            raise EngineError(f"{self._unusable} ({type(error).__name__}: {error})") from error
        # Keys and values of prefixes, prepared images, and encoded ones: each remembers the old weights
        # or refers to what does.
        if not self._llm.reset_prefix_cache():
            raise EngineError("vLLM did not empty its prefix cache: requests are in flight")
        self._llm.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()
        self._llm.update_weight_version(str(version))
        self._pushed, self._unusable = version, None

    def _runs(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """(offset, length) of every run of placeholders; images never touch."""
        placeholder = self._llm.model_config.hf_config.image_token_id
        result, place = [], 0
        for token, group in groupby(ids):
            length = len(list(group))
            if token == placeholder:
                result.append((place, length))
            place += length
        return result

    def close(self) -> None:
        """Give back the engine's memory."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
