"""Starts `vllm serve` as a rollout engine needs it, and ends it with all of its processes.

The server may live in an environment of its own: it is given by its executable, and takes from this
package one module for weight updates. Nothing of `vllm` is imported here.

Run ``python -m agents.engines.vllm_server runs/sft/model --port 8000 --max-model-len 4096 --max-images 128
--max-frame-pixels 3136``, and a training loop with ``--server http://127.0.0.1:8000 --max-context 4096`` in
another shell. What stands behind ``--`` goes to ``vllm serve``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from videogym.mistakes import STATUS, in_a_line

from ..training.bounds import Count, Port, Seed, number
from .base import EngineError
from .vllm_common import engine_options

PLUGIN = Path(__file__).with_name("vllm_plugin")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
LOG_LINES = 15  # of a dead server, shown in its error
SUPERVISED_END_S = 30.0  # more than the supervisor's own patience


@dataclass(frozen=True)
class Server:
    """A server that this process has started."""

    url: str
    process: subprocess.Popen[bytes]  # supervises the server; ends with it
    log_path: Path

    def failure(self) -> str | None:
        """Why the server is no more, with the end of its log; None while its process lives."""
        if self.process.poll() is None:
            return None
        return f"the vLLM server at {self.url} has died; the end of {self.log_path}:\n{self.log_end()}"

    def log_end(self, lines: int = LOG_LINES) -> str:
        """The last lines of the server's output."""
        return "\n".join(self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@contextmanager
def serve(
    checkpoint: str | Path,
    *,
    max_model_len: int,
    max_images: int,
    max_frame_pixels: int,
    log_path: str | Path,
    port: int = 0,
    vllm: str | Path | None = None,
    device: Literal["cuda", "cpu"] | None = None,
    dtype: str = "bfloat16",
    seed: int = 0,
    deadline_s: float = 900.0,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A vLLM server on a port of this machine, ready for `HTTPEngine`.

    Its control routes are open to whoever reaches the port, which listens on loopback only. The server
    ends with the block, and within seconds of the end of this process, however that came.

    Args:
        checkpoint: a folder or a name, with its tokenizer and its processor's configuration.
        max_model_len: tokens of the longest context with its output, placeholders counted singly.
        max_images: images of one context.
        max_frame_pixels: width times height of the largest frame. vLLM reserves memory for it.
        log_path: where the server's output goes, appended.
        port: 0: one that is free.
        vllm: the executable; by default the one beside this Python's, or the one on the path.
        device: by default a GPU if torch sees one. On a CPU compilation is off: it takes longer than
            it saves.
        dtype: of the weights and the activations. In float32 log-probs equal those of training to
            1e-5, in bfloat16 to about 0.05.
        seed: of sampling.
        deadline_s: time to load and to answer.
        arguments: further ones of ``vllm serve``, for instance ``--tensor-parallel-size 2``.
        environment: further variables.

    Raises:
        EngineError: the server ended, or did not answer in time; with the end of its log.
        OSError: the port cannot be used.
        FileNotFoundError: there is no executable, or the checkpoint is a folder without the configuration
            of a processor.
    """
    folder = Path(checkpoint)
    if folder.is_dir() and not any((folder / name).exists() for name in PROCESSOR_FILES):
        raise FileNotFoundError(
            f"{folder} has none of {', '.join(PROCESSOR_FILES)}, which vLLM needs: copy it from the "
            "checkpoint it was trained from, or write it with agents.models.checkpoints.save_processor"
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has ended leaves it so
        try:
            free.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise OSError(f"port {port} cannot be used: {error}") from error
        port = free.getsockname()[1]
    options = engine_options(
        max_model_len=max_model_len,
        max_images=max_images,
        max_frame_pixels=max_frame_pixels,
        dtype=dtype,
        seed=seed,
    )
    command = [str(_executable(vllm)), "serve", str(checkpoint), "--host", "127.0.0.1", "--port", str(port)]
    for name, value in options.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        command += [f"--{name.replace('_', '-')}", text]
    # The first serves ids in and ids out, the others take weights.
    command += ["--enable-scale-out", "--weight-transfer-config", json.dumps({"backend": "file"})]
    command += ["--worker-extension-cls", "videogym_file_transfer.Transfer"]
    command += ["--enforce-eager"] if device == "cpu" else []
    process, log_path = None, Path(log_path).absolute()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    supervisor = [sys.executable, str(PLUGIN / "supervise.py"), str(os.getpid())]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*supervisor, *command, *arguments],
            env=_environment(device, environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", process, log_path)
        _await_health(server, deadline_s)
        yield server
    finally:
        _end(process)


def _executable(vllm: str | Path | None) -> Path:
    beside = Path(sys.executable).with_name("vllm")
    found = shutil.which(vllm or (beside if beside.exists() else "vllm"))
    if found is None:
        raise FileNotFoundError(f"no executable {vllm or 'vllm'}: install vLLM, or say where it is")
    # Not resolved: an environment is known by the place of its executables.
    return Path(found).absolute()


def _environment(device: str, further: Mapping[str, str]) -> dict[str, str]:
    path = [str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "VLLM_SERVER_DEV_MODE": "1"}
    result |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if device == "cpu":
        result = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", **result}
    return {**result, **further}


def _await_health(server: Server, deadline_s: float) -> None:
    start, opener = time.monotonic(), urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with tqdm(desc="vLLM starts", bar_format="{desc}: {elapsed}{postfix}", disable=None) as progress:
        while True:
            if failure := server.failure():
                raise EngineError(failure)
            try:
                with opener.open(f"{server.url}/health", timeout=10):
                    return
            except OSError:  # refused while it loads, 503 while it starts
                pass
            if time.monotonic() - start > deadline_s:
                raise EngineError(
                    f"the vLLM server at {server.url} did not answer within {deadline_s:.0f} s; the end of "
                    f"{server.log_path}:\n{server.log_end()}"
                )
            progress.set_postfix_str(server.log_end(1)[-100:])
            time.sleep(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have the supervisor end the server, and end the group if it does not."""
    process.terminate()
    try:
        process.wait(SUPERVISED_END_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # the supervisor has ended it
        pass
    process.wait()


def command_parser() -> argparse.ArgumentParser:
    """What the command reads before a ``--``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder or name of a Qwen2.5-VL or Qwen3-VL")
    parser.add_argument("--port", type=number(Port), default=0, help="TCP port (default: one that is free)")
    needed = {
        "max-model-len": "tokens of the longest context with its output",
        "max-images": "images of one context",
        "max-frame-pixels": "width times height of the largest frame",
    }
    for name, what in needed.items():
        parser.add_argument(f"--{name}", type=number(Count), required=True, help=what)
    parser.add_argument(
        "--dtype", default="bfloat16", help="type of weights and activations (default: %(default)s)"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), help="where the model runs (default: a GPU, if there is one)"
    )
    parser.add_argument(
        "--seed", type=number(Seed), default=0, help="seed of sampling (default: %(default)s)"
    )
    parser.add_argument("--vllm", help="executable (default: that beside this Python, or on the path)")
    parser.add_argument(
        "--log",
        type=Path,
        default=Path("vllm.log"),
        help="file to which its output is appended (default: %(default)s)",
    )
    return parser


def main() -> None:
    """Serve until it is interrupted or terminated; end with 1 when the server has died."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # in the background interrupts are ignored
    given = sys.argv[1:]
    own = given.index("--") if "--" in given else len(given)
    parser = command_parser()
    options = vars(parser.parse_args(given[:own]))
    try:
        with serve(log_path=options.pop("log"), arguments=given[own + 1 :], **options) as server:
            sys.stdout.write(f"Train with --server {server.url}; its output is in {server.log_path}\n")
            sys.stdout.flush()
            while not (failure := server.failure()):
                time.sleep(1.0)
    except KeyboardInterrupt:
        return
    except EngineError as error:
        failure = str(error)
    except OSError as error:
        parser.exit(STATUS, f"{parser.prog}: error: {in_a_line(error)}\n")
    sys.exit(failure)


if __name__ == "__main__":
    main()
