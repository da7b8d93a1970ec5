"""Tests with a real lmms-eval: their own environment, see `make test-lmms-eval`.

lmms-eval and its tasks read the environment when they are imported: it is set here, before that.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = Path(tempfile.mkdtemp(prefix="videogym-lmms-"))
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)
sys.path.insert(0, str(HERE))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where lmms-eval is not installed, or fail where it is required."""
    if item.get_closest_marker("lmms_eval") is None or importlib.util.find_spec("lmms_eval") is not None:
        return
    if os.environ.get("VIDEOGYM_REQUIRE_LMMS_EVAL") == "1":
        pytest.fail("VIDEOGYM_REQUIRE_LMMS_EVAL=1, but lmms-eval is not installed")
    pytest.skip("needs lmms-eval: make test-lmms-eval")


class Judge(BaseHTTPRequestHandler):
    """A chat endpoint that finds a prediction right which holds the true answer."""

    def do_POST(self) -> None:
        """Answer 1 or 0, as lmms-eval's prompt for judges asks."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][0]["content"][0]["text"]
        _, _, rest = asked.partition("Ground Truth Answer:\n```\n")
        truth, _, rest = rest.partition("\n```")
        prediction = rest.partition("Model Prediction:\n```\n")[2].partition("\n```")[0]
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": str(int(truth.lower() in prediction.lower()))},
        }
        told = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


_judge = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
threading.Thread(target=_judge.serve_forever, daemon=True).start()
os.environ |= {
    "HF_HOME": str(ROOT / "home"),
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "VIDEOGYM_CACHE": str(ROOT / "cache"),
    "USE_LLM_JUDGE": "True",
    "JUDGE_BASE_URL": f"http://127.0.0.1:{_judge.server_port}/v1",
    "JUDGE_API_KEY": "none",
    "OPENAI_API_KEY": "none",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1]), str(HERE.parent / "torchvision_shim")]),
}


@pytest.fixture(scope="session")
def benchmarks() -> Iterator[object]:
    """All small benchmarks; lmms-eval runs in their folder."""
    from small_benchmarks import build

    made = build(ROOT)
    before = Path.cwd()
    os.chdir(made.hub)
    yield made
    os.chdir(before)
