"""A policy that describes its own crops, or answers again: asked with the very weights that are trained.

Source: ParaVT's sub-agents, which see a crop and its times, and not the question; their tokens are not
trained, as in its release. Differs: they write the likeliest text, where the release samples at 0.7, so
that an episode follows from the policy's outputs.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from typing import Any

from videogym import Recipe
from videogym.responding import TRUNCATED, MultimodalPrompt, ResponderError

from ..engines.base import Context, Sampling
from ..engines.transformers_engine import TransformersEngine
from ..models.qwen_vl import QwenVL, token_ids
from ..models.visuals import WHOLE_FRAME, Visual


@dataclass(frozen=True)
class SameWeights:
    """Answers with the policy's model, which `make_chat_env` gives to it.

    ``Config(recipe=replace(PARAVT, responder=SameWeights()))`` trains and plays with it; it has no name on
    the command line. The model is no part of the identity, and is not pickled.

    Args:
        max_new_tokens: of a text; a longer one ends with a mark that it was cut.
        deadline_s: seconds for one text, after which the turn is a fault.
        model: describes; None: whoever asks is told to bind one.
    """

    max_new_tokens: int = 512
    deadline_s: float = 600.0
    model: InitVar[QwenVL | None] = None

    def __post_init__(self, model: QwenVL | None) -> None:
        # No fields, so no part of the identity; under this name `dataclasses.replace` hands the model on.
        vars(self).update(model=model, _engine=None if model is None else TransformersEngine(model))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "model": None, "_engine": None}

    def __call__(self, prompt: MultimodalPrompt) -> str:
        """The likeliest text after the frames.

        Raises:
            ResponderError: no model was given.
        """
        model, engine = vars(self)["model"], vars(self)["_engine"]
        if model is None:
            raise ResponderError("no model was given; ChatEnv made by make_chat_env has the policy's")
        engine.update_weights(model.model, engine.version)  # as they are now
        (output,) = engine.generate([context_of_prompt(model, prompt)], self._sampling(model))
        engine.reset_cache()
        whole = output.ids[-1] == model.end_id
        text = model.tokenizer.decode(output.ids[:-1] if whole else output.ids, skip_special_tokens=False)
        return str(text) if whole else f"{text}{TRUNCATED}"

    def _sampling(self, model: QwenVL) -> Sampling:
        return Sampling(
            temperature=1.0,
            max_new_tokens=self.max_new_tokens,
            end_id=model.end_id,
            banned=model.vision_ids,
            max_context=2**31,
            greedy=True,
        )


def context_of_prompt(model: QwenVL, prompt: MultimodalPrompt) -> Context:
    """One message of the user: the frames as images without stamps, then what is asked for."""
    tokenizer, factor = model.tokenizer, model.layout.factor
    begin, end, start, stop, pad = token_ids(
        tokenizer, "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
    )

    def words(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def whole(side: int) -> int:
        return max(factor, round(side / factor) * factor)

    visuals = tuple(
        Visual(
            prompt.video, (time_s,), region or WHOLE_FRAME, (whole(image.shape[1]), whole(image.shape[0]))
        )
        for time_s, region, image in zip(prompt.times_s, prompt.regions, prompt.pixels, strict=True)
    )
    ids = [begin, *words("user\n"), *[start, pad, stop] * len(visuals), *words(prompt.request), end]
    ids += [*words("\n"), begin, *words("assistant\n")]
    return Context("sub-agent", tuple(ids), visuals)


def asks_itself(recipe: Recipe) -> bool:
    """Whether the policy's own weights describe looks or answer again."""
    verifier = recipe.verifier
    asked = (recipe.responder, verifier.responder if verifier else None)
    return any(isinstance(responder, SameWeights) for responder in asked)


def with_model(recipe: Recipe, model: QwenVL) -> Recipe:
    """The recipe, this model asked wherever it says that the policy's own weights are."""
    if isinstance(recipe.responder, SameWeights):
        recipe = replace(recipe, responder=replace(recipe.responder, model=model))
    verifier = recipe.verifier
    if verifier is not None and isinstance(verifier.responder, SameWeights):
        bound = replace(verifier.responder, model=model)
        recipe = replace(recipe, verifier=replace(verifier, responder=bound))
    return recipe
