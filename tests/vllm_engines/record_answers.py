"""Writes `recorded_answers.json`: what a real server answers, for tests that have none.

Run as `make test-vllm` runs: ``python tests/vllm_engines/record_answers.py``.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from conversations import SAMPLING
from tiny import LAYOUTS, Noise, build, shown, visual

from agents.engines.base import Context, EngineError
from agents.engines.vllm_http import HTTPEngine
from agents.engines.vllm_server import serve

FAMILY = "qwen2_5_vl"
RECORDED = Path(__file__).with_name("recorded_answers.json")
VISUALS = (visual(1.0, (56, 28)), visual(2.0, (28, 84)), visual(1.0, (56, 28)))


class Recorder(HTTPEngine):
    """Keeps every exchange."""

    exchanges: list[dict[str, Any]]

    def _once(
        self, method: str, path: str, payload: bytes | None, timeout_s: float | None = None
    ) -> tuple[int, bytes]:
        status, text = super()._once(method, path, payload, timeout_s)
        request = json.loads(payload) if payload else None
        if request and request.get("content_parts"):
            request["content_parts"] = len(request["content_parts"])
        answer = json.loads(text) if text else None
        self.exchanges.append(
            {"method": method, "path": path, "request": request, "status": status, "answer": answer}
        )
        return status, text


def main() -> None:
    """Record a batch, a push, an output after it, and a refusal."""
    Recorder.exchanges = []
    with tempfile.TemporaryDirectory() as folder:
        model = build(Path(folder) / "checkpoint", FAMILY)
        with serve(
            Path(folder) / "checkpoint",
            max_model_len=512,
            max_images=3,
            max_frame_pixels=28 * 28 * 16,
            log_path=Path(folder) / "log",
            device="cpu",
            dtype="float32",
        ) as server:
            engine = Recorder(server, Noise(), LAYOUTS[FAMILY], transfer_folder=Path(folder) / "weights")
            images = Context("images", tuple(shown("look", VISUALS)), VISUALS)
            text = Context("text", tuple(shown("no images", ())), ())
            engine.generate([images, text], SAMPLING)
            engine.update_weights(model, 7)
            engine.generate([images], SAMPLING)
            many = Context("many", tuple(shown("many", VISUALS * 2)), VISUALS * 2)
            try:
                engine.generate([many], SAMPLING)
            except EngineError:
                pass
            engine.close()
    RECORDED.write_text(json.dumps(Recorder.exchanges, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
