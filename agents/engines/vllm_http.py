"""Rollouts from a vLLM server over HTTP: ids and images go in, ids, log-probs and weight versions come out.

The server has its own environment and its own GPUs; `agents.engines.vllm_server.serve` starts one.
Weights reach it through a file that both sides can read. Requests carry token ids, so that nothing is
tokenised twice, and the frames themselves as PNG, so that no pixel changes on the way.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import secrets
import shutil
import socket
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ..models.checkpoints import named_weights
from ..models.visuals import FrameReader, PatchLayout, Visual
from .base import Context, EngineError, Output, Sampling
from .vllm_common import (
    Prompt,
    audit_output,
    audit_prompt,
    check_version,
    prepare,
    sampling_params,
    span_versions,
)
from .vllm_server import Server

T = TypeVar("T")

WATCH_S = 1.0  # between looks at the server's process while answers are awaited
HEALTH_S = 5.0  # between questions for its health
CONNECT_S = 10.0  # for a server to take a connection
MESSAGE_LENGTH = 600  # of a server's error that is passed on
WEIGHTS_FILE = "weights.safetensors"
DEVELOPMENT = "; start it with VLLM_SERVER_DEV_MODE=1 in its environment"
HINTS = {
    "/inference/v1/generate": "; start it with --enable-scale-out",
    "/is_paused": DEVELOPMENT,
    "/pause": DEVELOPMENT,
}


class HTTPEngine:
    """Samples from a vLLM server.

    One engine drives a server; another that pushes weights to it makes the next outputs an error.

    Args:
        server: what `serve` gave, or the URL of a server that something else started with the same
            arguments. The end of a server that `serve` started is noticed within a second, that of
            another by its silence.
        store: resolves frames.
        layout: how the model's family cuts frames.
        transfer_folder: where pushed weights are written, readable by the server under the same path;
            by default a temporary folder. It needs room for one copy of the weights.
        transfer_dtype: of the weights in that file, by default their own. The server casts to its own.
        deadline_s: how long a server may be out of reach.
        concurrency: requests that are in flight at once.
        api_key: sent along, for servers that ask for one.
        allow_untested: accept a vLLM of a version that is not in `TESTED_VERSIONS`.

    Raises:
        EngineError: the server is out of reach for ``deadline_s``, or its version is untested.
        ValueError: the URL is not one of HTTP.
    """

    def __init__(
        self,
        server: Server | str,
        store: FrameReader,
        layout: PatchLayout,
        *,
        transfer_folder: str | Path | None = None,
        transfer_dtype: torch.dtype | None = None,
        deadline_s: float = 60.0,
        concurrency: int = 64,
        api_key: str | None = None,
        allow_untested: bool = False,
    ) -> None:
        self._server = server if isinstance(server, Server) else None
        self.url = server.url if isinstance(server, Server) else server.rstrip("/")
        self._address = urllib.parse.urlsplit(self.url)
        if self._address.scheme not in ("http", "https") or not self._address.hostname:
            raise ValueError(f"a server's URL starts with http:// or https://, got {self.url!r}")
        self._store, self._layout = store, layout
        self._own_folder = transfer_folder is None
        self._folder = Path(transfer_folder).absolute() if transfer_folder else None
        self._transfer_dtype, self._deadline_s = transfer_dtype, deadline_s
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._lock = threading.Lock()  # a push must not meet a request that is in flight
        self._pool = ThreadPoolExecutor(concurrency, "vllm-request")
        self._open: set[http.client.HTTPConnection] = set()
        self._stopping = threading.Event()
        self._pushed: int | None = None
        self._sender = f"{secrets.token_hex(4)}-"  # before versions: two trainers count alike
        self._probed = False
        self._unusable: str | None = None
        try:
            version = self._run([lambda: self._call("GET", "/version")])[0]["version"]
            check_version(version, allow_untested)
        except EngineError:
            self.close()
            raise

    def generate(self, contexts: Sequence[Context], sampling: Sampling) -> list[Output]:
        """One output per context, in order; the requests are in flight together.

        Raises:
            EngineError: the server failed, refused a request, or gave what cannot be an output.
            ValueError: a context cannot be served, see `agents.engines.vllm_common.prepare`.
        """
        if self._unusable:
            raise EngineError(self._unusable)
        if not contexts:
            return []
        prompts = prepare(contexts, sampling, self._store, self._layout)
        uris: dict[Visual, str] = {}
        with self._lock:
            self._probe(sampling)
            tasks = [lambda prompt=prompt: self._output(prompt, sampling, uris) for prompt in prompts]
            return self._run(tasks)

    def forget(self) -> None:
        """Nothing: vLLM itself gives room to what is asked next."""

    def push(self, model: nn.Module, version: int) -> None:
        """Give the server new weights; whatever it has in flight is aborted, its caches are emptied.

        Raises:
            EngineError: the server did not take them; it samples nothing until a push succeeds.
            ValueError: the version is negative, or the model is wrapped.
        """
        if version < 0:
            raise ValueError(f"a version is not negative, got {version}")
        with self._lock:
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="videogym-weights-"))
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / WEIGHTS_FILE
            try:
                weights = named_weights(model, self._transfer_dtype)
                save_file({name: tensor.cpu().contiguous() for name, tensor in weights}, path)
                self._unusable = (
                    f"the weights of version {version} did not reach {self.url}; push them again"
                )
                # Empties every cache, of prefixes as of images; until it is resumed, nothing is sampled.
                self._control("/pause?mode=abort&clear_cache=true")
                self._start_update()
                self._control("/update_weights", {"update_info": {"path": str(path)}})
                self._control("/finish_weight_update", {"weight_version": f"{self._sender}{version}"})
                self._control("/resume")
            finally:
                path.unlink(missing_ok=True)
            self._pushed, self._unusable = version, None

    def close(self) -> None:
        """Give back threads and the weights' folder; the server stays."""
        self._pool.shutdown(cancel_futures=True)
        if self._own_folder and self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    # --- requests ----------------------------------------------------------------------------

    def _probe(self, sampling: Sampling) -> None:
        """Learn whether it samples at all, and from one token whether log-probs are of what is sampled."""
        if self._probed:
            return
        if self._run([lambda: self._call("GET", "/is_paused")])[0]["is_paused"]:
            raise EngineError(f"{self.url} was left in the middle of an update of its weights; push them")
        params = {**sampling_params(sampling, 1), "logit_bias": {sampling.end_id: 1e9}}
        answer = self._run([lambda: self._generate([sampling.end_id], [], params)])[0]
        log_prob = answer["choices"][0]["logprobs"]["content"][0]["logprob"]
        if abs(log_prob) > 1e-6:
            raise EngineError(
                f"{self.url} reports log-probs before temperature and bans: a token that had to come has "
                f"{log_prob}; start it with --logprobs-mode processed_logprobs"
            )
        self._probed = True

    def _output(self, prompt: Prompt, sampling: Sampling, uris: dict[Visual, str]) -> Output:
        for visual, frame in zip(prompt.visuals, prompt.frames, strict=True):
            if visual not in uris:  # by another context of the batch
                uris[visual] = png_uri(frame)
        params = sampling_params(sampling, prompt.max_tokens)
        answer = self._generate(prompt.ids, [uris[visual] for visual in prompt.visuals], params)
        ranges = [(r["offset"], r["length"]) for r in (answer["mm_placeholders"] or {}).get("image", [])]
        audit_prompt(prompt, answer["prompt_token_ids"], ranges)
        (choice,) = answer["choices"]
        content = choice["logprobs"]["content"]
        if [token["token_id"] for token in content] != choice["token_ids"]:
            raise EngineError(f"{self.url} gave log-probs of other ids than it sampled")
        spans, number = choice["weight_versions"], len(choice["token_ids"])
        versions = span_versions(spans, number, self._pushed, self._sender)
        log_probs = [token["logprob"] for token in content]
        return audit_output(sampling, choice["token_ids"], log_probs, versions, choice["finish_reason"])

    def _generate(self, ids: Sequence[int], uris: Sequence[str], params: dict[str, Any]) -> dict[str, Any]:
        body = {
            "token_ids": list(ids),
            "content_parts": [{"type": "image_url", "url": uri} for uri in uris] or None,
            "sampling_params": params,
            "return_token_ids": True,
        }
        return self._call("POST", "/inference/v1/generate", body)

    def _start_update(self) -> None:
        """Begin to give weights, though a trainer may have been stopped while it did so."""
        try:
            self._control("/start_weight_update")
        except EngineError as error:
            if "already active" not in str(error):
                raise
            self._control("/finish_weight_update", {"weight_version": "unfinished"})
            self._control("/start_weight_update")

    def _control(self, path: str, body: dict[str, Any] | None = None) -> None:
        # Repeated only while nothing has been changed: the others are not the same when said twice.
        repeat = path.startswith("/pause")
        self._run([lambda: self._call("POST", path, body, repeat=repeat)])

    # --- transport ---------------------------------------------------------------------------

    def _run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Results of tasks in order, run together while the server is watched; one failure ends all."""
        self._stopping.clear()
        futures = [self._pool.submit(task) for task in tasks]
        asked = time.monotonic()
        silent_since: float | None = None
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, WATCH_S, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                self._raise_if_dead()
                if pending and time.monotonic() - asked > HEALTH_S:
                    silent_since = None if self._answers() else silent_since or asked
                    asked = time.monotonic()
                    if silent_since is not None and asked - silent_since > self._deadline_s:
                        raise EngineError(f"{self.url} has not answered for {asked - silent_since:.0f} s")
            return [future.result() for future in futures]
        finally:
            self._stopping.set()
            for future in futures:
                future.cancel()
            for connection in list(self._open):
                _hang_up(connection)
            wait(futures)

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True
    ) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body).encode()
        failed_at: float | None = None
        while True:
            try:
                status, text = self._once(method, path, payload)
                break
            except (OSError, http.client.HTTPException) as error:
                now = time.monotonic()
                failed_at = failed_at or now
                self._raise_if_dead()
                if self._stopping.is_set() or not repeat or now - failed_at >= self._deadline_s:
                    raise EngineError(
                        f"{method} {self.url}{path} failed for {now - failed_at:.0f} s "
                        f"({type(error).__name__}: {error}); is `vllm serve` running there, and reachable?"
                    ) from error
                self._stopping.wait(min(1.0, self._deadline_s / 10))
        if status != 200:
            hint = HINTS.get(path.split("?")[0], "") if status in (403, 404) else ""
            if status >= 500 and self._server is not None:
                hint = f"; see {self._server.log_path}"
            raise EngineError(f"{method} {self.url}{path} answered {status}: {_message(text)}{hint}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _once(
        self, method: str, path: str, payload: bytes | None, timeout_s: float | None = None
    ) -> tuple[int, bytes]:
        kind = (
            http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(self._address.hostname or "", self._address.port, timeout=CONNECT_S)
        self._open.add(connection)
        try:
            connection.connect()
            # An answer may take long; `_run` watches the server meanwhile.
            connection.sock.settimeout(timeout_s)
            headers = {"Content-Type": "application/json", **self._headers}
            connection.request(method, self._address.path + path, payload, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            self._open.discard(connection)
            connection.close()

    def _answers(self) -> bool:
        """Whether the server is well; False if it does not answer."""
        try:
            status, text = self._once("GET", "/health", None, timeout_s=HEALTH_S)
        except (OSError, http.client.HTTPException):
            return False
        if status != 200:
            raise EngineError(f"{self.url} is ill: its health is {status} {_message(text)}")
        return True

    def _raise_if_dead(self) -> None:
        if self._server is not None and (failure := self._server.failure()):
            raise EngineError(failure)


def png_uri(frame: NDArray[np.uint8]) -> str:
    """A frame (H, W, 3) as a data URI that holds its exact pixels."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _hang_up(connection: http.client.HTTPConnection) -> None:
    """Wake the thread that waits for this connection."""
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        pass


def _message(text: bytes) -> str:
    """What a vLLM error answer says."""
    try:
        error = json.loads(text)["error"]
        message = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        message = text.decode(errors="replace") or "nothing"
    return message[:MESSAGE_LENGTH]
