"""A server that speaks as much of vLLM's HTTP as an engine asks for, and answers every context alike.

``python stub_vllm.py FOLDER ANSWER_IDS IMAGE_ID [--dies-after N]``, ids as JSON. Its port is in
``FOLDER/port`` when it listens, and every answer adds a line to ``FOLDER/answered``. It keeps its answers
back until ``FOLDER/go`` is there; with ``--dies-after`` it kills itself where it is asked for more than N.
"""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATCH = 28  # pixels of one token's side


class Stub:
    """What it was started with, and the name of the weights that it was given last."""

    def __init__(self, folder: Path, answer: list[int], image_id: int, most: float) -> None:
        self.folder, self.answer, self.image_id, self.left = folder, answer, image_id, most
        self.version, self.lock = "default", threading.Lock()

    def say(self, path: str, body: Any) -> dict[str, Any]:
        """The answer to a request."""
        if path == "/inference/v1/generate":
            return self.generate(body)
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
        return {"version": "0.32.0", "is_paused": False}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """A probe's one token, or the answer."""
        asked, probe = body["token_ids"], len(body["token_ids"]) == 1
        if not probe:
            self.await_turn()
        ids = asked if probe else self.answer
        content = [{"token_id": token, "logprob": 0.0} for token in ids]
        shown, ranges = self.expanded(asked, body["content_parts"] or [])
        versions = [{"version": self.version, "start": 0, "end": len(ids)}]
        choice = {"token_ids": ids, "logprobs": {"content": content}, "weight_versions": versions}
        return {
            "prompt_token_ids": shown,
            "mm_placeholders": {"image": ranges},
            "choices": [{**choice, "finish_reason": "stop"}],
        }

    def await_turn(self) -> None:
        """Die, or wait until it may answer."""
        with self.lock:
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            while not (self.folder / "go").exists():
                time.sleep(0.01)
            with (self.folder / "answered").open("a") as file:
                file.write("1\n")

    def expanded(self, asked: list[int], parts: list[Any]) -> tuple[list[int], list[dict[str, int]]]:
        """Ids with as many placeholders of every image as it has tokens, and where these are."""
        ids: list[int] = []
        ranges, images = [], iter(parts)
        for token in asked:
            count = 1
            if token == self.image_id:
                head = base64.b64decode(next(images)["url"].split(",", 1)[1][:64])
                width, height = struct.unpack(">II", head[16:24])
                count = width // PATCH * (height // PATCH)
                ranges.append({"offset": len(ids), "length": count})
            ids += [token] * count
        return ids, ranges


def serve(stub: Stub) -> None:
    """Serve until the process ends."""

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            text = json.dumps(stub.say(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    http.daemon_threads = True
    (stub.folder / "port.part").write_text(str(http.server_port))
    (stub.folder / "port.part").rename(stub.folder / "port")
    http.serve_forever()


if __name__ == "__main__":
    folder, answer, image_id, *more = sys.argv[1:]
    serve(Stub(Path(folder), json.loads(answer), int(image_id), float(more[1]) if more else math.inf))
