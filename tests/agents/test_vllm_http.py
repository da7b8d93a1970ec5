"""`HTTPEngine` without vLLM: requests, recorded real answers, and servers that fail in every way."""

# ruff: noqa: D103

import base64
import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from forks import fork, status
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from agents import train_grpo_mllm
from agents.engines.base import Context, EngineError, Sampling
from agents.engines.vllm_common import prepare, span_versions
from agents.engines.vllm_http import HTTPEngine, png_uri
from agents.engines.vllm_server import serve
from agents.engines.weight_files import WeightFiles
from agents.models.checkpoints import named_weights, save_processor
from agents.models.visuals import PatchLayout, Visual
from agents.vlm.policy import make_actor, make_model
from videogym import FrameStore
from videogym.video import FrameBatch

RECORDED = json.loads(
    Path(__file__).parents[1].joinpath("vllm_engines", "recorded_answers.json").read_text()
)
WHOLE = (0.0, 0.0, 1.0, 1.0)
LAYOUT = PatchLayout(14, 2, 2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# As they were recorded: ids of the tiny tokenizer, whose bytes come first.
END, START, STOP, IMAGE, VIDEO = 258, 259, 260, 261, 262
SAMPLING = Sampling(0.7, 12, END, (START, STOP, IMAGE, VIDEO), 2048)
SIZES = ((56, 28), (28, 84), (56, 28))
VISUALS = tuple(Visual("v", (at,), WHOLE, size) for at, size in zip((1.0, 2.0, 1.0), SIZES, strict=True))
IMAGES = Context("images", (START, IMAGE, STOP) * 3 + tuple(b"look"), VISUALS)
TEXT = Context("text", tuple(b"no images"), ())

Answer = tuple[int, Any]
Handler = Callable[[str, str, Any], Answer]


class Frames:
    """Frames whose every pixel tells their time and place."""

    def frames(
        self,
        source: str,
        times_s: Sequence[float],
        *,
        size: tuple[int, int] | None,
        region: tuple[float, float, float, float] | None,
    ) -> FrameBatch:
        """Frames."""
        assert size is not None
        pixels = np.stack([self.pixels(time_s, size) for time_s in times_s])
        return FrameBatch(pixels, np.array(times_s), np.zeros(len(times_s), bool))

    @staticmethod
    def pixels(time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One frame (H, W, 3)."""
        generator = np.random.default_rng(int(time_s))
        return generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


class Served:
    """A server on this machine that answers by a function, and keeps what it was asked."""

    def __init__(self, answer: Handler, port: int = 0) -> None:
        self.answer, self.asked = answer, list[tuple[str, str, Any]]()
        outer = self

        class Request(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                outer.asked.append((self.command, self.path, body))
                status, answer = outer.answer(self.command, self.path, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Request)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def close(self) -> None:
        """Stop."""
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def start() -> Iterator[Callable[[Handler], Served]]:
    """Starts servers, and stops them after the test."""
    started: list[Served] = []

    def _start(answer: Handler) -> Served:
        started.append(Served(answer))
        return started[-1]

    yield _start
    for served in started:
        served.close()


class Replay:
    """Answers as the real server did, by what is asked; what was recorded first is answered first.

    Only the name of the weights is the one that was pushed, where it was another in the recording.
    """

    def __init__(self) -> None:
        self.left = [dict(exchange) for exchange in RECORDED]
        self.pushed = "7"

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        """The next recorded answer to this request."""
        for place, exchange in enumerate(self.left):
            same_ids = (exchange["request"] or {}).get("token_ids") == (body or {}).get("token_ids")
            if (exchange["method"], exchange["path"]) == (method, path) and same_ids:
                del self.left[place]
                self.pushed = (body or {}).get("weight_version", self.pushed)
                answer = json.dumps(exchange["answer"]).replace(
                    '"version": "7"', f'"version": "{self.pushed}"'
                )
                return exchange["status"], json.loads(answer)
        raise AssertionError(f"not recorded: {method} {path} {body}")


def engine_of(url: str, **settings: Any) -> HTTPEngine:
    """An engine with little patience."""
    return HTTPEngine(url, Frames(), LAYOUT, **{"deadline_s": 2.0, **settings})


def version_only(method: str, path: str, body: Any) -> Answer:
    """A server of the tested version that knows nothing else."""
    return (200, {"version": "0.32.0"}) if path == "/version" else (404, {"detail": "Not Found"})


def altered(path: str, change: Callable[[Any], None]) -> Handler:
    """The recorded server with one kind of its answers changed, the probe left as it is."""
    replay = Replay()

    def answer(method: str, asked: str, body: Any) -> Answer:
        status, given = replay(method, asked, body)
        if asked == path and (body or {}).get("token_ids") != [END]:
            given = json.loads(json.dumps(given))
            change(given)
        return status, given

    return answer


# --- what is sent and what is read -------------------------------------------------------------


def test_recorded_answers_become_outputs_in_order(start: Callable[[Handler], Served]) -> None:
    """Ids, log-probs and versions are those that a real server gave to these contexts."""
    engine = engine_of(start(Replay()).url)
    outputs = engine.generate([IMAGES, TEXT], SAMPLING)
    for context, output in zip((IMAGES, TEXT), outputs, strict=True):
        given = next(e for e in RECORDED if (e["request"] or {}).get("token_ids") == list(context.ids))
        (choice,) = given["answer"]["choices"]
        assert list(output.ids) == choice["token_ids"]
        assert list(output.log_probs) == [token["logprob"] for token in choice["logprobs"]["content"]]
        assert output.versions == (0,) * 12  # the weights that it was started with
    engine.close()


def test_requests_hold_collapsed_ids_exact_pixels_and_all_of_sampling(
    start: Callable[[Handler], Served],
) -> None:
    """Nothing is left to defaults of the server or of the checkpoint."""
    served = start(Replay())
    engine = engine_of(served.url, concurrency=1)
    engine.generate([IMAGES], replace(SAMPLING, max_context=len(IMAGES.ids) - 3 + 2 + 3 + 2 + 5))
    body = served.asked[-1][2]
    assert body["token_ids"] == list(IMAGES.ids)
    frames = []
    for part in body["content_parts"]:
        assert part["type"] == "image_url"
        kind, data = part["url"].split(",")
        assert kind == "data:image/png;base64"
        frames.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    for frame, visual in zip(frames, VISUALS, strict=True):
        np.testing.assert_array_equal(frame, Frames.pixels(visual.times_s[0], visual.size))
    assert body["sampling_params"] == {
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 5,  # what is left of the context, below max_new_tokens
        "stop_token_ids": [END],
        "ignore_eos": True,
        "logit_bias": {str(i): -1e9 for i in SAMPLING.banned},
        "logprobs": 0,
        "detokenize": False,
    }
    engine.close()


def test_greedy_asks_for_the_likeliest_token(start: Callable[[Handler], Served]) -> None:
    """A temperature of 0 means that to vLLM, whatever temperature is trained with."""
    served = start(Replay())
    engine = engine_of(served.url)
    engine.generate([TEXT], replace(SAMPLING, greedy=True))
    assert served.asked[-1][2]["sampling_params"]["temperature"] == 0.0
    engine.close()


def test_a_push_writes_the_weights_and_stamps_outputs(
    start: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """The server is paused with empty caches before it reads, resumed after, and the file is removed."""
    model, read, replay = torch.nn.Linear(2, 3), {}, Replay()

    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/update_weights":
            read.update(load_file(body["update_info"]["path"]))
        return replay(method, path, body)

    served = start(answer)
    engine = engine_of(served.url, transfer_folder=tmp_path)
    engine.generate([IMAGES], SAMPLING)
    engine.update_weights(model, 7)
    assert sorted(read) == ["bias", "weight"]
    assert torch.equal(read["weight"], model.weight) and torch.equal(read["bias"], model.bias)
    paths = [path for _, path, _ in served.asked]
    assert paths[paths.index("/pause?mode=abort&clear_cache=true") :] == [
        "/pause?mode=abort&clear_cache=true",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/resume",
    ]
    (output,) = engine.generate([IMAGES], SAMPLING)
    assert output.versions == (7,) * 12
    assert list(tmp_path.iterdir()) == []
    engine.close()


def test_an_update_that_another_trainer_left_is_ended_first(start: Callable[[Handler], Served]) -> None:
    """As vLLM says of one that was stopped while it gave weights; they get a name that nobody samples."""
    replay, begun = Replay(), []

    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/start_weight_update" and not begun:
            begun.append(path)
            message = "start_weight_update called while a weight update is already active. Call"
            return 500, {"error": {"message": message}}
        if body == {"weight_version": "unfinished"}:
            return 200, {}
        return replay(method, path, body)

    served = start(answer)
    engine = engine_of(served.url)
    engine.update_weights(torch.nn.Linear(2, 3), 7)
    asked = [(path, body) for _, path, body in served.asked if "weight_update" in path]
    assert [path for path, _ in asked] == [
        *("/start_weight_update", "/finish_weight_update"),
        *("/start_weight_update", "/finish_weight_update"),
    ]
    assert [body["weight_version"] for _, body in asked[1::2]] == ["unfinished", f"{engine._sender}7"]
    engine.close()


def test_weights_can_travel_in_half_precision(start: Callable[[Handler], Served]) -> None:
    """The file has the asked type, the model keeps its own."""
    model, read, replay = torch.nn.Linear(2, 3), {}, Replay()

    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/update_weights":
            read.update(load_file(body["update_info"]["path"]))
        return replay(method, path, body)

    engine = engine_of(start(answer).url, transfer_dtype=torch.bfloat16)
    engine.update_weights(model, 7)
    assert torch.equal(read["weight"], model.weight.bfloat16())
    assert model.weight.dtype == torch.float32
    engine.close()


def test_low_rank_adapters_are_added_to_the_weights_that_travel() -> None:
    """Names are those of the model without adapters, values are W + alpha / r * B A."""
    peft = pytest.importorskip("peft")
    model = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(6, 4), "norm": torch.nn.LayerNorm(4)})
    plain = {name: value.detach().clone() for name, value in model.named_parameters()}
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"]), model)
    layer: Any = model["q_proj"]
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    found = dict(named_weights(model))
    assert list(found) == list(plain)
    expected = {**plain, "q_proj.weight": plain["q_proj.weight"] + 6 / 2 * up @ down}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach())
    assert not found["q_proj.weight"].requires_grad


def test_png_keeps_every_value() -> None:
    """All 256 values of all channels survive."""
    frame = np.arange(28 * 28 * 3, dtype=np.uint8).reshape(28, 28, 3)
    decoded = Image.open(io.BytesIO(base64.b64decode(png_uri(frame).split(",")[1])))
    np.testing.assert_array_equal(np.asarray(decoded), frame)


@pytest.mark.parametrize(
    ("spans", "pushed", "expected"),
    [
        ([("default", 0, 3)], None, [0, 0, 0]),
        ([("me-5", 0, 1), ("me-5", 1, 3)], 5, [5, 5, 5]),
        ([("default", 0, 3)], 5, "was restarted"),
        ([("me-5", 0, 2), ("me-6", 2, 3)], 5, "something else pushes"),
        ([("you-5", 0, 3)], 5, "'you-5', not 'me-5'"),
        ([("me-5", 0, 2)], 5, "cover 2 of 3"),
        ([("me-5", 0, 1), ("me-5", 2, 3)], 5, "a gap"),
        ([("you-1", 0, 3)], None, "'you-1', not 'default'"),
        (None, None, "cover 0 of 3"),
    ],
)
def test_versions_are_read_from_spans(spans: Any, pushed: int | None, expected: Any) -> None:
    """Every id has one; weights that were not pushed are an error."""
    given = spans and [dict(zip(("version", "start", "end"), span, strict=True)) for span in spans]
    if isinstance(expected, str):
        with pytest.raises(EngineError, match=expected):
            span_versions(given, 3, pushed, "me-")
    else:
        assert span_versions(given, 3, pushed, "me-") == expected


# --- what is refused ---------------------------------------------------------------------------


def test_a_video_item_is_refused(start: Callable[[Handler], Served]) -> None:
    """An engine of vLLM is shown images; several frames in one visual are the caller's mistake."""
    engine = engine_of(start(Replay()).url)
    film = Visual("film.mp4", (1.0, 2.0), WHOLE, (28, 28))
    with pytest.raises(ValueError, match=r"a visual of 2 frames of 'film.mp4'"):
        engine.generate([Context("k", (START, VIDEO, STOP), (film,))], SAMPLING)
    engine.close()


def test_a_context_without_room_for_an_output_is_an_error(start: Callable[[Handler], Served]) -> None:
    """Its expanded length is named: 10 ids and 2 + 3 + 2 placeholders."""
    engine = engine_of(start(Replay()).url)
    with pytest.raises(EngineError, match=r"'images' has 17 tokens and leaves no room in 17"):
        engine.generate([IMAGES], replace(SAMPLING, max_context=17))
    engine.close()


def test_a_temperature_that_vllm_would_raise_is_refused(start: Callable[[Handler], Served]) -> None:
    """It samples at 0.01 when asked for less, with log-probs that training would not find."""
    engine = engine_of(start(Replay()).url)
    with pytest.raises(ValueError, match=r"at least 0.01, got 0.001"):
        engine.generate([IMAGES], replace(SAMPLING, temperature=0.001))
    engine.close()


def test_a_wrapped_model_is_refused(start: Callable[[Handler], Served]) -> None:
    """Its names are not those of a checkpoint."""
    engine = engine_of(start(Replay()).url)
    with pytest.raises(ValueError, match=r"a wrapper of it: it has a parameter 'module.weight'"):
        engine.update_weights(torch.nn.ModuleDict({"module": torch.nn.Linear(1, 1)}), 1)
    engine.close()


def test_the_option_for_untested_versions_reaches_every_engine(
    start: Callable[[Handler], Served], checkpoints: dict[str, Path]
) -> None:
    """One server, and several."""
    servers = [start(lambda *_: (200, {"version": "0.99.1", "data": [{"root": "one"}]})) for _ in range(2)]
    config = train_grpo_mllm.Config.of(checkpoint=str(checkpoints["qwen2_5_vl"]))
    model = make_model(config, FrameStore())
    for urls in (servers[0].url, ",".join(served.url for served in servers)):
        with pytest.raises(EngineError, match="--allow-untested-vllm"):
            make_actor(config, model, urls)
        make_actor(config.with_options(allow_untested_vllm=True), model, urls).engine.close()


def test_an_untested_version_is_refused_unless_it_is_allowed(
    start: Callable[[Handler], Served], caplog: pytest.LogCaptureFixture
) -> None:
    """With the versions that are tested; where it is allowed, a warning names it."""
    served = start(lambda *_: (200, {"version": "0.99.1"}))
    with pytest.raises(EngineError, match=r"vLLM 0\.99\.1 is untested, tested are 0\.32\.0"):
        engine_of(served.url)
    assert not caplog.messages
    engine_of(served.url, allow_untested=True).close()
    (told,) = caplog.messages
    assert told.startswith("vLLM 0.99.1 is untested, tested are 0.32.0")


def test_a_refusal_of_the_server_is_passed_on(start: Callable[[Handler], Served]) -> None:
    """Too many images, in the words of a real server."""
    engine = engine_of(start(Replay()).url)
    many = Context("many", (START, IMAGE, STOP) * 6 + tuple(b"many"), VISUALS * 2)
    with pytest.raises(EngineError, match=r"answered 400: At most 3 image\(s\) may be provided"):
        engine.generate([many], SAMPLING)
    (output,) = engine.generate([TEXT], SAMPLING)
    assert len(output.ids) == 12
    engine.close()


def test_missing_routes_name_what_the_server_was_not_started_with(
    start: Callable[[Handler], Served],
) -> None:
    """A plain `vllm serve` can do neither."""
    engine = engine_of(start(version_only).url)
    with pytest.raises(EngineError, match="VLLM_SERVER_DEV_MODE=1"):
        engine.generate([TEXT], SAMPLING)
    with pytest.raises(EngineError, match="VLLM_SERVER_DEV_MODE=1"):
        engine.update_weights(torch.nn.Linear(1, 1), 1)
    with pytest.raises(EngineError, match="version 1 did not reach"):
        engine.generate([TEXT], SAMPLING)
    engine.close()


def test_a_server_that_is_paused_does_not_hang_a_run(start: Callable[[Handler], Served]) -> None:
    """An update that another process began and never finished."""
    engine = engine_of(
        start(
            lambda *asked: (200, {"is_paused": True}) if "paused" in asked[1] else version_only(*asked)
        ).url
    )
    with pytest.raises(EngineError, match="in the middle of an update"):
        engine.generate([TEXT], SAMPLING)
    engine.close()


def _choice(answer: Any) -> Any:
    return answer["choices"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: _choice(a).update(finish_reason="abort"), "did not finish an output"),
        (lambda a: _choice(a).update(finish_reason="stop"), "ended an output by 'stop'"),
        (lambda a: _choice(a)["token_ids"].__setitem__(0, 7), "log-probs of other ids"),
        (lambda a: _choice(a)["logprobs"]["content"].pop(), "log-probs of other ids"),
        (lambda a: _choice(a)["logprobs"]["content"][3].update(logprob=-9999.0), "outside"),
        (lambda a: _choice(a).update(weight_versions=None), "cover 0 of 12"),
        (lambda a: a["prompt_token_ids"].__setitem__(0, 7), "changed the ids of a prompt"),
        (lambda a: a["mm_placeholders"]["image"][1].update(length=4), "28x84: 4 instead of 3.*rescales"),
        (lambda a: a["mm_placeholders"]["image"].pop(), "2 images of 3"),
    ],
)
def test_answers_that_contradict_the_question_are_errors(
    start: Callable[[Handler], Served], change: Callable[[Any], None], message: str
) -> None:
    """Each would have been a silent bias of training."""
    engine = engine_of(start(altered("/inference/v1/generate", change)).url)
    with pytest.raises(EngineError, match=message):
        engine.generate([IMAGES], SAMPLING)
    engine.close()


def test_log_probs_of_another_distribution_are_noticed(start: Callable[[Handler], Served]) -> None:
    """A server with vLLM's default `raw_logprobs` gives a forced token a log-prob below 0."""

    def answer(method: str, path: str, body: Any) -> Answer:
        status, given = replay(method, path, body)
        if (body or {}).get("token_ids") == [END]:
            given["choices"][0]["logprobs"]["content"][0]["logprob"] = -5.6
        return status, given

    replay = Replay()
    replay.left = json.loads(json.dumps(RECORDED))
    engine = engine_of(start(answer).url)
    with pytest.raises(EngineError, match="--logprobs-mode processed_logprobs"):
        engine.generate([TEXT], SAMPLING)
    engine.close()


# --- what fails --------------------------------------------------------------------------------


def test_an_unreachable_server_is_given_up_after_the_deadline() -> None:
    """Not before, and soon after; the message names the URL and what to look at."""
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"http://127.0.0.1:9/version failed for [12] s.*vllm serve"):
        engine_of("http://127.0.0.1:9", deadline_s=1.0)
    assert 1.0 <= time.monotonic() - began < 5.0


def test_a_server_that_has_gone_is_given_up_before_the_deadline(
    start: Callable[[Handler], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has answered before, and now its machine says that nobody listens."""
    monkeypatch.setattr("agents.engines.vllm_http.REFUSED_S", 0.5)
    served = start(Replay())
    engine = engine_of(served.url, deadline_s=600.0)
    served.close()
    with pytest.raises(EngineError, match=r"failed for \d+ s \(ConnectionRefusedError"):
        engine.generate([TEXT], SAMPLING)
    engine.close()


def test_a_url_that_is_none_is_refused() -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match="http:// or https://, got 'localhost:8000'"):
        engine_of("localhost:8000")


def test_a_dropped_connection_is_tried_again(start: Callable[[Handler], Served]) -> None:
    """Sampling twice harms nobody: the first answer was never read."""
    replay, dropped = Replay(), []

    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/inference/v1/generate" and len(dropped) < 2:
            dropped.append(path)
            raise ConnectionResetError
        return replay(method, path, body)

    served = start(answer)
    served.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # not into the test's output
    engine = engine_of(served.url)
    (output,) = engine.generate([TEXT], SAMPLING)
    assert len(output.ids) == 12 and len(dropped) == 2
    engine.close()


def test_a_server_that_stops_answering_is_given_up(
    start: Callable[[Handler], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that hangs is ended once the server's health does not answer either."""
    monkeypatch.setattr("agents.engines.vllm_http.HEALTH_S", 0.3)
    monkeypatch.setattr("agents.engines.vllm_http.WATCH_S", 0.1)
    replay, hanging = Replay(), threading.Event()

    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/health" or (body or {}).get("token_ids") == list(TEXT.ids):
            hanging.wait(20)
        return replay(method, path, body)

    served = start(answer)
    served.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # not into the test's output
    engine = engine_of(served.url, deadline_s=1.0)
    began = time.monotonic()
    with pytest.raises(EngineError, match="has not answered for"):
        engine.generate([TEXT], SAMPLING)
    assert time.monotonic() - began < 6.0
    hanging.set()
    engine.close()


def test_an_ill_server_is_given_up_at_once(
    start: Callable[[Handler], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server answers 503 for its health when its engine has died; waiting longer is no use."""
    monkeypatch.setattr("agents.engines.vllm_http.HEALTH_S", 0.2)
    monkeypatch.setattr("agents.engines.vllm_http.WATCH_S", 0.1)
    replay, hanging = Replay(), threading.Event()

    def answer(method: str, path: str, body: Any) -> Answer:
        if path == "/health":
            return 503, {"error": "engine dead"}
        if (body or {}).get("token_ids") == list(TEXT.ids):
            hanging.wait(20)
        return replay(method, path, body)

    served = start(answer)
    served.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # not into the test's output
    engine = engine_of(served.url, deadline_s=30.0)
    with pytest.raises(EngineError, match="its health is 503 engine dead"):
        engine.generate([TEXT], SAMPLING)
    hanging.set()
    engine.close()


# --- the server's processes --------------------------------------------------------------------

FAKE = """#!{python}
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "worker", {mark!r}])
print("loading weights", flush=True)
{then}
"""
SETTINGS = {"max_model_len": 9, "max_images": 1, "max_frame_pixels": 9, "device": "cpu"}


def fake_vllm(folder: Path, then: str) -> Path:
    """An executable with a worker, in place of `vllm`."""
    path = folder / "vllm"
    path.write_text(FAKE.format(python=sys.executable, mark=str(folder), then=then))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def alive(folder: Path) -> list[psutil.Process]:
    """Processes that were started for this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return [process for process in found if process.pid != os.getpid()]


def wait_until_gone(folder: Path, within_s: float) -> None:
    """Fail if a process of the folder is left after a while."""
    end = time.monotonic() + within_s
    while left := alive(folder):
        assert time.monotonic() < end, f"still alive after {within_s} s: {left}"
        time.sleep(0.1)


def test_a_server_that_dies_at_its_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    """At once, not after the deadline; what it had started is ended."""
    vllm = fake_vllm(tmp_path, "sys.exit('no such checkpoint')")
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"has died.*\n.*loading weights\n.*no such checkpoint"):
        with serve("c", log_path=tmp_path / "log", vllm=vllm, deadline_s=60.0, **SETTINGS):
            pytest.fail("there is no server")
    assert time.monotonic() - began < 15.0
    wait_until_gone(tmp_path, 3.0)


def test_a_server_that_does_not_answer_is_ended_after_the_deadline(tmp_path: Path) -> None:
    """With its workers."""
    vllm = fake_vllm(tmp_path, "time.sleep(600)")
    with pytest.raises(EngineError, match=r"did not answer within 1 s; the end of .*log:\nloading weights"):
        with serve("c", log_path=tmp_path / "log", vllm=vllm, deadline_s=1.0, **SETTINGS):
            pytest.fail("there is no server")
    wait_until_gone(tmp_path, 3.0)


def test_a_checkpoint_without_a_processor_is_named(tmp_path: Path) -> None:
    """As a model and a tokenizer are saved by themselves; what is missing can be written."""
    vllm = fake_vllm(tmp_path, "sys.exit('started')")
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    with pytest.raises(FileNotFoundError, match=r"none of preprocessor_config.json.*save_processor"):
        with serve(tmp_path, log_path=tmp_path / "log", vllm=vllm, **SETTINGS):
            pytest.fail("there is no server")
    save_processor(tmp_path, LAYOUT)
    with pytest.raises(EngineError, match="started"):
        with serve(tmp_path, log_path=tmp_path / "log", vllm=vllm, **SETTINGS):
            pytest.fail("there is no server")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="a checkpoint of type 'llama'; known are qwen2_5_vl, qwen3_vl"):
        save_processor(tmp_path, LAYOUT)


def test_what_is_missing_can_be_written_by_a_process_that_does_nothing_else(tmp_path: Path) -> None:
    """It knows the families without a model being loaded first."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    write = (
        "import sys; from agents.models.checkpoints import save_processor; "
        "from agents.models.visuals import PatchLayout; half = (0.5, 0.5, 0.5); "
        "save_processor(sys.argv[1], PatchLayout(patch=16, merge=2, temporal=2, mean=half, std=half))"
    )
    subprocess.run([sys.executable, "-c", write, str(tmp_path)], check=True)
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (written["processor_class"], written["patch_size"]) == ("Qwen3VLProcessor", 16)


def test_a_missing_executable_is_named(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(FileNotFoundError, match="nowhere/vllm"):
        with serve("c", log_path=tmp_path / "log", vllm=tmp_path / "nowhere/vllm", **SETTINGS):
            pytest.fail("there is no server")


def test_a_server_ends_with_a_killed_trainer(tmp_path: Path) -> None:
    """SIGKILL leaves no time for cleaning up, and still nothing keeps running."""
    vllm = fake_vllm(tmp_path, "time.sleep(600)")

    def train() -> None:
        with serve("c", log_path=tmp_path / "log", vllm=vllm, **SETTINGS):
            pass

    trainer, ended = fork(train), False
    log, end = tmp_path / "log", time.monotonic() + 60.0
    try:
        while not (log.exists() and "loading" in log.read_text()):
            ended = os.waitpid(trainer, os.WNOHANG)[0] == trainer
            assert time.monotonic() < end and not ended, "the trainer did not start a server"
            time.sleep(0.1)
        assert len(alive(tmp_path)) >= 3  # a supervisor, a server and its worker
        os.kill(trainer, signal.SIGKILL)
        ended = True
        assert status(trainer) == -signal.SIGKILL
        wait_until_gone(tmp_path, 5.0)
    finally:
        if not ended:
            os.kill(trainer, signal.SIGKILL)
            status(trainer)
        for left in alive(tmp_path):
            with contextlib.suppress(psutil.Error):
                left.kill()


def test_a_server_that_is_killed_is_noticed_before_the_deadline(
    start: Callable[[Handler], Served], tmp_path: Path
) -> None:
    """The engine watches the process of its own server: a request that hangs is ended in seconds."""
    from agents.engines.vllm_server import Server

    replay, hanging = Replay(), threading.Event()

    def answer(method: str, path: str, body: Any) -> Answer:
        if (body or {}).get("token_ids") == list(TEXT.ids):
            hanging.wait(20)
        return replay(method, path, body)

    served = start(answer)
    served.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # not into the test's output
    (tmp_path / "log").write_text("Segmentation fault\n")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])
    engine = HTTPEngine(Server(served.url, process, tmp_path / "log"), Frames(), LAYOUT, deadline_s=60.0)
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"has died.*\nSegmentation fault"):
        engine.generate([TEXT], SAMPLING)
    assert time.monotonic() - began < 5.0
    hanging.set()
    engine.close()


# --- answers of any size and form --------------------------------------------------------------


class Raw:
    """A server that says what it is told to, byte by byte if need be."""

    def __init__(self, parts: Callable[[str], Iterator[bytes]]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.parts = parts
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._say, args=(taken,), daemon=True).start()

    def _say(self, taken: socket.socket) -> None:
        with taken:
            path = taken.recv(1 << 16).split(b" ")[1].decode()
            try:
                for part in self.parts(path):
                    taken.sendall(part)
            except OSError:
                pass


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b""]
)
def test_an_answer_that_trickles_is_given_up(head: bytes) -> None:
    """Headers, a body of known length or one until the end: each byte comes in time, the whole never."""

    def parts(path: str) -> Iterator[bytes]:
        if path == "/health":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            return
        yield head or b"HTTP/1.1 200 OK\r\nX-Endless: "
        while True:
            yield b" "
            time.sleep(0.05)

    server, before = Raw(parts), time.monotonic()
    with pytest.raises(EngineError):
        engine_of(server.url, deadline_s=0.5)
    assert time.monotonic() - before < 30
    assert not [t for t in threading.enumerate() if t.name.startswith("vllm-request")]
    server.listening.close()


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.engines.vllm_http.MAX_ANSWER_BYTES", 1 << 20)

    def parts(path: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b" " * (1 << 16)

    server = Raw(parts)
    with pytest.raises(EngineError, match="more than 1048576 bytes"):
        engine_of(server.url)
    server.listening.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"7", b'"text"', b"[" * 100_000, b"\xff", b"{}", b'{"version": {}}'],
    ids=repr,
)
def test_an_answer_of_another_form_is_an_error_of_the_engine(body: bytes) -> None:
    def parts(path: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    server = Raw(parts)
    with pytest.raises(EngineError) as caught:
        engine_of(server.url)
    assert len(str(caught.value)) < 1000
    server.listening.close()


ODD: list[Any] = [None, 7, -1, 10**400, 1e300, float("nan"), "text", [], [[]], {}, True]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    "place",
    [
        ("choices",),
        ("choices", 0),
        ("choices", 0, "token_ids"),
        ("choices", 0, "token_ids", 0),
        ("choices", 0, "logprobs"),
        ("choices", 0, "logprobs", "content"),
        ("choices", 0, "logprobs", "content", 0),
        ("choices", 0, "logprobs", "content", 0, "token_id"),
        ("choices", 0, "logprobs", "content", 0, "logprob"),
        ("choices", 0, "weight_versions"),
        ("choices", 0, "weight_versions", 0),
        ("choices", 0, "weight_versions", 0, "end"),
        ("choices", 0, "finish_reason"),
        ("prompt_token_ids",),
        ("mm_placeholders",),
        ("mm_placeholders", "image"),
        ("mm_placeholders", "image", 0),
        ("mm_placeholders", "image", 0, "length"),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_any_field_of_any_form_is_an_error_of_the_engine(
    place: tuple[Any, ...], odd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in place of a field, an output comes of it only where it is none of the odd ones."""
    given = next(e for e in RECORDED if (e["request"] or {}).get("token_ids") == list(IMAGES.ids))
    answer = json.loads(json.dumps(given["answer"]))
    at = answer
    for key in place[:-1]:
        at = at[key]
    if at[place[-1]] == odd or (place[-1] == "logprob" and odd == -1):
        return  # as it should be, or might be
    at[place[-1]] = odd
    engine = HTTPEngine.__new__(HTTPEngine)
    vars(engine).update(url="http://vllm", _key="", _pushed=None, _sender="")
    monkeypatch.setattr(engine, "_generate", lambda *_: answer)
    (prompt,) = prepare([IMAGES], SAMPLING, Frames(), LAYOUT)
    with pytest.raises(EngineError) as caught:
        engine._output(prompt, SAMPLING, {})
    assert len(str(caught.value)) < 1000


def test_more_ids_than_were_asked_for_are_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    given = next(e for e in RECORDED if (e["request"] or {}).get("token_ids") == list(IMAGES.ids))
    engine = HTTPEngine.__new__(HTTPEngine)
    vars(engine).update(url="http://vllm", _key="", _pushed=None, _sender="")
    monkeypatch.setattr(engine, "_generate", lambda *_: given["answer"])
    few = replace(SAMPLING, max_new_tokens=3)
    (prompt,) = prepare([IMAGES], few, Frames(), LAYOUT)
    with pytest.raises(EngineError, match="gave 12 ids, asked for 1 to 3"):
        engine._output(prompt, few, {})


def test_the_key_is_in_no_error(start: Callable[[Handler], Served]) -> None:
    key = "sk-SECRET-0123456789"

    def answer(method: str, path: str, body: Any) -> Answer:
        return (200, {"version": "0.32.0"}) if path == "/version" else (400, {"error": f"bad key {key}"})

    engine = engine_of(start(answer).url, api_key=key)
    with pytest.raises(EngineError, match=r"bad key \[key\]"):
        engine.generate([TEXT], SAMPLING)
    engine.close()


@pytest.mark.parametrize(
    "url", ["http://me:secret-word@127.0.0.1:1", "http://127.0.0.1:1/?key=secret-word"]
)
def test_a_url_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        engine_of(url)
    assert "secret-word" not in str(caught.value)


# --- the folder of pushed weights --------------------------------------------------------------


def killed_in_a_push() -> None:
    """Leave half of the weights behind."""
    (WeightFiles().own_folder() / "weights.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def test_weights_of_a_killed_trainer_go_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a live one, and what only looks alike, stay."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert status(fork(killed_in_a_push)) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "videogym-weights-link").symlink_to(tmp_path / "mine")
    one, other = WeightFiles(), WeightFiles()
    first, second = one.own_folder(), other.own_folder()
    assert not left.exists() and first.exists() and second.exists()
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"
    one.close()
    other.close()
    assert not first.exists() and not second.exists()


def test_a_full_disk_stops_a_push_with_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Handler], Served]
) -> None:
    from safetensors import SafetensorError

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("agents.engines.weight_files.save_file", full)
    engine = engine_of(start(version_only).url, transfer_folder=tmp_path)
    with pytest.raises(OSError, match="No space left"):
        engine.update_weights(torch.nn.Linear(1, 1), 1)
    assert list(tmp_path.iterdir()) == []
    engine.close()
