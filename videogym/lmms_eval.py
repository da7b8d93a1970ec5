"""The entry point by which lmms-eval finds videogym's model, ``--model videogym``.

lmms-eval imports this at every start, whatever model it runs, so it loads no torch. The model itself lies
beside the training code, which is `videogym.agents` in a wheel and `agents` in a checkout.
"""

from __future__ import annotations

import importlib.util
from typing import Any

MODEL = "benchmarks.lmms_model.VideoGym"  # below the package of the training code


def manifest() -> Any:
    """What lmms-eval registers: a chat model by the name ``videogym``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    package = "videogym.agents" if importlib.util.find_spec("videogym.agents") else "agents"
    return ModelManifest("videogym", chat_class_path=f"{package}.{MODEL}")
