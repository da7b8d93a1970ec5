"""Rollouts from a vLLM server over HTTP: ids and images go in, ids, log-probs and weight versions come out.

The server has its own environment and its own GPUs; `agents.engines.vllm_server.serve` starts one.
Weights reach it through a file that both sides can read. Requests carry token ids, so that nothing is
tokenised twice, and the frames themselves as PNG, so that no pixel changes on the way.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import secrets
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from videogym.judging import masked

from ..models.checkpoints import full_weights
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
from .weight_files import WeightFiles

T = TypeVar("T")

WATCH_S = 1.0  # between looks at the server's process while answers are awaited
HEALTH_S = 5.0  # between questions for its health
CONNECT_S = 10.0  # for a server to take a connection
REFUSED_S = 5.0  # that a server which has answered before may refuse connections: nobody is there
MESSAGE_LENGTH = 600  # of a server's error that is passed on
MAX_ANSWER_BYTES = 64 << 20  # ids and log-probs of the longest context have a tenth
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
            another within `REFUSED_S` where its machine refuses connections, else by its silence.
        store: resolves frames.
        layout: how the model's family cuts frames.
        transfer_folder: where pushed weights are written, readable by the server under the same path;
            by default a temporary folder. It needs room for one copy of the weights.
        transfer_dtype: of the weights in that file, by default their own. The server casts to its own.
        deadline_s: how long a server may be out of reach.
        concurrency: requests that are in flight at once.
        api_key: sent along, for servers that ask for one.
        allow_untested: accept a vLLM of a version that is not in `TESTED_VERSIONS`.
        sender: stands before versions in the server's label; None: one of our own. Engines of several
            processes that share a server have the same.
        watch: called every `WATCH_S` while answers are awaited; what it raises ends them.

    Raises:
        EngineError: the server is out of reach for ``deadline_s``, or its version is untested.
        ValueError: the URL is not one of HTTP, or holds a password, a query or a fragment.
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
        sender: str | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server if isinstance(server, Server) else None
        self.url = server.url if isinstance(server, Server) else server.rstrip("/")
        self._address = urllib.parse.urlsplit(self.url)
        if self._address.scheme not in ("http", "https") or not self._address.hostname:
            raise ValueError(f"a server's URL starts with http:// or https://, got {masked(self.url)!r}")
        if "@" in self._address.netloc or self._address.query or self._address.fragment:
            raise ValueError("a server's URL ends with its path and holds no password: use api_key")
        self._store, self._layout = store, layout
        self._files, self._watch = WeightFiles(transfer_folder), watch
        self._transfer_dtype, self._deadline_s = transfer_dtype, deadline_s
        self._key = api_key or ""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._lock = threading.Lock()  # a push must not meet a request that is in flight
        self._pool = ThreadPoolExecutor(concurrency, "vllm-request")
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._pushed: int | None = None
        # Before versions: two trainers count alike.
        self._sender = f"{secrets.token_hex(4)}-" if sender is None else sender
        self._probed = self._answered = False
        self._unusable: str | None = None
        try:
            answer = self._run([lambda: self._call("GET", "/version")])[0]
            with self._understood("/version"):
                check_version(str(answer["version"]), allow_untested)
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

    def reset_cache(self) -> None:
        """Nothing: vLLM itself gives room to what is asked next."""

    def update_weights(self, model: nn.Module, version: int) -> None:
        """Give the server new weights; whatever it has in flight is aborted, its caches are emptied.

        Raises:
            EngineError: the server did not take them; it samples nothing until a push succeeds.
            OSError: they cannot be written, as on a full disk; the server has the ones before.
            ValueError: the version is negative, or the model is wrapped.
        """
        if version < 0:
            raise ValueError(f"a version is not negative, got {version}")
        with self._files.written(full_weights(model, self._transfer_dtype)) as path:
            self.load_weights(path, version)

    def load_weights(self, path: Path, version: int) -> None:
        """Have the server read new weights from a file; see `update_weights`.

        Raises:
            EngineError: the server did not take them; it samples nothing until it has.
        """
        with self._lock:
            self._unusable = f"the weights of version {version} did not reach {self.url}; push them again"
            # Empties every cache, of prefixes as of images; until it is resumed, nothing is sampled.
            self._control("/pause?mode=abort&clear_cache=true")
            self._start_update()
            self._control("/update_weights", {"update_info": {"path": str(path)}})
            self._control("/finish_weight_update", {"weight_version": f"{self._sender}{version}"})
            self._control("/resume")
            self._pushed, self._unusable = version, None

    def expect(self, version: int) -> None:
        """Another process has given the server the weights of this version, with our sender's name."""
        self._pushed, self._unusable = version, None

    def served_checkpoint(self) -> str:
        """The folder or name that the server was started with.

        Raises:
            EngineError: it does not say.
        """
        answer = self._run([lambda: self._call("GET", "/v1/models")])[0]
        with self._understood("/v1/models"):
            return str(answer["data"][0]["root"])

    def close(self) -> None:
        """Give back threads and the weights' folder; the server stays."""
        self._pool.shutdown(cancel_futures=True)
        self._files.close()

    # --- requests ----------------------------------------------------------------------------

    def _probe(self, sampling: Sampling) -> None:
        """Learn whether it samples at all, and from one token whether log-probs are of what is sampled."""
        if self._probed:
            return
        paused = self._run([lambda: self._call("GET", "/is_paused")])[0].get("is_paused")
        if paused is not False:
            raise EngineError(f"{self.url} was left in the middle of an update of its weights; push them")
        params = {**sampling_params(sampling, 1), "logit_bias": {sampling.end_id: 1e9}}
        answer = self._run([lambda: self._generate([sampling.end_id], [], params)])[0]
        with self._understood("a probe"):
            log_prob = float(answer["choices"][0]["logprobs"]["content"][0]["logprob"])
        if not abs(log_prob) <= 1e-6:
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
        with self._understood("a context"):
            return self._read(answer, prompt, sampling)

    def _read(self, answer: dict[str, Any], prompt: Prompt, sampling: Sampling) -> Output:
        ranges = [(r["offset"], r["length"]) for r in (answer["mm_placeholders"] or {}).get("image", [])]
        audit_prompt(prompt, answer["prompt_token_ids"], ranges)
        (choice,) = answer["choices"]
        content = choice["logprobs"]["content"]
        if not 0 < len(choice["token_ids"]) <= sampling.max_new_tokens:
            raise EngineError(
                f"{self.url} gave {len(choice['token_ids'])} ids, asked for 1 to {sampling.max_new_tokens}"
            )
        if not all(type(token) is int and 0 <= token < 1 << 31 for token in choice["token_ids"]):
            raise EngineError(f"{self.url} gave ids that are none")
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

    @contextlib.contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """An answer of another form than vLLM's is an error of the engine, whatever its form is."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = masked(f"{type(error).__name__}: {error}", self._key, MESSAGE_LENGTH)
            raise EngineError(f"{self.url} gave {what} no answer of vLLM's form: {why}") from error

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
                self._watch()
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
            for open_socket in list(self._open):
                _hang_up(open_socket)
            wait(futures)

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True
    ) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body).encode()
        failed_at: float | None = None
        while True:
            try:
                status, text = self._once(method, path, payload)
                self._answered = True
                break
            except (OSError, http.client.HTTPException) as error:
                now = time.monotonic()
                failed_at = failed_at or now
                self._raise_if_dead()
                gone = self._answered and isinstance(error, ConnectionRefusedError)
                limit_s = min(REFUSED_S, self._deadline_s) if gone else self._deadline_s
                if self._stopping.is_set() or not repeat or now - failed_at >= limit_s:
                    why = f"{type(error).__name__}: {self._said(str(error))}"
                    raise EngineError(
                        f"{method} {self.url}{path} failed for {now - failed_at:.0f} s ({why}); "
                        "is `vllm serve` running there, and reachable?"
                    ) from error
                self._stopping.wait(min(1.0, self._deadline_s / 10))
        if status != 200:
            hint = HINTS.get(path.split("?")[0], "") if status in (403, 404) else ""
            if status >= 500 and self._server is not None:
                hint = f"; see {self._server.log_path}"
            said = self._said(_message(text))
            raise EngineError(f"{method} {self.url}{path} answered {status}: {said}{hint}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"{method} {self.url}{path} answered what is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise EngineError(
                f"{method} {self.url}{path} answered no JSON object but {self._said(repr(answer))}"
            )
        return answer

    def _said(self, text: str) -> str:
        """A server's words on one line, short and without the key."""
        return masked(" ".join(text[: 16 * MESSAGE_LENGTH].split()), self._key, MESSAGE_LENGTH)

    def _once(
        self, method: str, path: str, payload: bytes | None, timeout_s: float | None = None
    ) -> tuple[int, bytes]:
        kind = (
            http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        )
        connection = kind(self._address.hostname or "", self._address.port, timeout=CONNECT_S)
        connection.connect()
        reached = connection.sock  # of which the connection lets go while an answer is still read from it
        self._open.add(reached)
        try:
            reached.settimeout(timeout_s or self._deadline_s)
            headers = {"Content-Type": "application/json", **self._headers}
            connection.request(method, self._address.path + path, payload, headers)
            # An answer may take long to begin; `_run` watches the server meanwhile.
            reached.settimeout(timeout_s)
            if timeout_s is None and not isinstance(reached, ssl.SSLSocket):
                reached.recv(1, socket.MSG_PEEK)
            return self._received(connection, reached, timeout_s or self._deadline_s)
        finally:
            self._open.discard(reached)
            reached.close()
            connection.close()

    def _received(
        self, connection: http.client.HTTPConnection, reached: socket.socket, limit_s: float
    ) -> tuple[int, bytes]:
        """An answer that has begun: whole within a time and a size, whatever trickles."""
        late = threading.Timer(limit_s, _hang_up, (reached,))
        late.daemon = True
        late.start()
        try:
            with connection.getresponse() as response:
                content = response.read(MAX_ANSWER_BYTES + 1)
                missing = response.length or 0
        finally:
            late.cancel()
        if len(content) > MAX_ANSWER_BYTES:
            raise EngineError(f"{self.url} answered with more than {MAX_ANSWER_BYTES} bytes")
        if missing:  # `read` with a size tells of a missing end only so
            raise http.client.IncompleteRead(content, missing)
        return response.status, content

    def _answers(self) -> bool:
        """Whether the server is well; False if it does not answer."""
        try:
            status, text = self._once("GET", "/health", None, timeout_s=HEALTH_S)
        except (OSError, http.client.HTTPException):
            return False
        if status != 200:
            said = self._said(_message(text))
            raise EngineError(f"{self.url} is ill: its health is {status} {said}")
        return True

    def _raise_if_dead(self) -> None:
        if self._server is not None and (failure := self._server.failure()):
            raise EngineError(failure)


def png_uri(frame: NDArray[np.uint8]) -> str:
    """A frame (H, W, 3) as a data URI that holds its exact pixels."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _hang_up(reached: socket.socket) -> None:
    """Wake the thread that waits for an answer."""
    try:
        reached.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        pass


def _message(text: bytes) -> str:
    """What a vLLM error answer says."""
    try:
        error = json.loads(text)["error"]
        message = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        message = text.decode(errors="replace") or "nothing"
    return message
