"""A server that speaks as much of vLLM's HTTP as an engine asks for, and answers every context alike.

``python stub_vllm.py FOLDER ANSWERS IMAGE_ID``, answers as JSON: ids, or several lists of ids that take
turns. Its port is in ``FOLDER/port`` when it listens; a question adds a line to ``FOLDER/asked``, and its
answer one to ``FOLDER/answered``. It keeps its answers back while ``FOLDER/go`` is not there; with
``--dies-after`` it kills itself where it is asked for more. Weights that it has read are ``FOLDER/read``,
which it does not say while ``FOLDER/push-waits`` is there, and then ``FOLDER/LABEL.safetensors``.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import math
import os
import shutil
import signal
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATCH = 28  # pixels of one token's side


class Stub:
    """What it was started with, and the name of the weights that it was given last."""

    def __init__(self, told: argparse.Namespace) -> None:
        self.folder, self.image_id, self.left = told.folder, told.image_id, told.dies_after
        several = told.answers if isinstance(told.answers[0], list) else [told.answers]
        self.answers, self.log_prob, self.root = itertools.cycle(several), told.log_prob, told.root
        self.version, self.lock, self.seconds = "default", threading.Lock(), told.seconds

    def say(self, path: str, body: Any) -> dict[str, Any]:
        """The answer to a request."""
        if path == "/inference/v1/generate":
            return self.generate(body)
        if path == "/v1/models":
            return {"data": [{"id": "served", "root": self.root}]}
        if path == "/update_weights":
            shutil.copy(body["update_info"]["path"], self.folder / "read")
            while (self.folder / "push-waits").exists():
                time.sleep(0.01)
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
            (self.folder / "read").rename(self.folder / f"{self.version}.safetensors")
        return {"version": "0.32.0", "is_paused": False}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """A probe's one token, or the answer."""
        asked, probe = body["token_ids"], len(body["token_ids"]) == 1
        ids = asked if probe else self.await_turn()
        log_prob = 0.0 if probe else self.log_prob
        content = [{"token_id": token, "logprob": log_prob} for token in ids]
        shown, ranges = self.expanded(asked, body["content_parts"] or [])
        versions = [{"version": self.version, "start": 0, "end": len(ids)}]
        choice = {"token_ids": ids, "logprobs": {"content": content}, "weight_versions": versions}
        return {
            "prompt_token_ids": shown,
            "mm_placeholders": {"image": ranges},
            "choices": [{**choice, "finish_reason": "stop"}],
        }

    def await_turn(self) -> list[int]:
        """An answer, when it may be given; or the end."""
        with (self.folder / "asked").open("a") as file:
            file.write("1\n")
        with self.lock:
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            time.sleep(self.seconds)
            while not (self.folder / "go").exists():
                time.sleep(0.01)
            with (self.folder / "answered").open("a") as file:
                file.write("1\n")
            return next(self.answers)

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
    http.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked is no more
    (stub.folder / "port.part").write_text(str(http.server_port))
    (stub.folder / "port.part").rename(stub.folder / "port")
    http.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("answers", type=json.loads)
    parser.add_argument("image_id", type=int)
    parser.add_argument("--dies-after", type=int, default=math.inf)
    parser.add_argument("--log-prob", type=float, default=0.0, help="of every token")
    parser.add_argument("--seconds", type=float, default=0.0, help="that an answer takes")
    parser.add_argument("--root", default="", help="the checkpoint that it says it has")
    serve(Stub(parser.parse_args()))
