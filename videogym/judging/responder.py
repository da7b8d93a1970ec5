"""A responder behind the judge's client: a vision-language model describes the frames of a look."""

from __future__ import annotations

import base64
import io
from dataclasses import InitVar, dataclass
from typing import Any

from numpy.typing import NDArray

from videogym.judging.endpoint import ChatEndpoint, NoReply
from videogym.responding import TRUNCATED, MultimodalPrompt, NoDescription

_GRACE_S = 5.0  # after the endpoint's own deadline
_QUALITY = 90  # of JPEG


@dataclass(frozen=True)
class EndpointResponder:
    """Asks a model behind an OpenAI-compatible endpoint what a look shows, at temperature 0.

    Frames go as JPEG, each after its time. Fields are part of a recipe's identity, the endpoint is not.

    Args:
        model: name by which the endpoint knows the model.
        max_tokens: of a reply; one that is longer ends with a mark that it was cut. ParaVT's have 512.
        seed: sent with every request.
        endpoint: who is asked; its deadline holds.

    Raises:
        ValueError: there is no endpoint.
    """

    model: str
    max_tokens: int = 512
    seed: int = 0
    endpoint: InitVar[ChatEndpoint | None] = None

    def __post_init__(self, endpoint: ChatEndpoint | None) -> None:
        if endpoint is None:
            raise ValueError("a responder needs an endpoint: ChatEndpoint(url)")
        # No field, so no part of the identity; under this name `dataclasses.replace` hands it on.
        vars(self).update(endpoint=endpoint)

    @property
    def deadline_s(self) -> float:
        """Seconds until nobody waits for a reply."""
        return float(vars(self)["endpoint"].deadline_s) + _GRACE_S

    def __call__(self, prompt: MultimodalPrompt) -> str:
        """What the model says of the frames.

        Raises:
            NoDescription: the endpoint gave no reply.
            EndpointError: it cannot be used.
        """
        try:
            reply = vars(self)["endpoint"].ask(self.request(prompt))
        except NoReply as failure:
            raise NoDescription(str(failure)) from failure
        return str(reply.text) if reply.complete else f"{reply.text}{TRUNCATED}"

    def request(self, prompt: MultimodalPrompt) -> dict[str, Any]:
        """The body of the request."""
        content: list[dict[str, Any]] = []
        for time_s, pixels in zip(prompt.times_s, prompt.pixels, strict=True):
            content.append({"type": "text", "text": f"[{time_s:.2f} s]"})
            content.append({"type": "image_url", "image_url": {"url": _data_url(pixels)}})
        content.append({"type": "text", "text": prompt.request})
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.0,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
        }


def _data_url(pixels: NDArray[Any]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
