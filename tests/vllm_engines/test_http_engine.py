"""`HTTPEngine` and `serve` against a real vLLM server: what it samples is what a plain forward scores."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conversations import SAMPLING, TOLERANCE, check_bans, check_greedy, check_pushes, move, opening, worst
from tiny import LAYOUTS, Noise, build, shown, visual

from agents.engines.base import Context, EngineError
from agents.engines.vllm_http import HTTPEngine
from agents.engines.vllm_server import Server, serve

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
MAX_IMAGES = 16


@dataclass
class Served:
    """A server, an engine that drives it, and the model that it serves."""

    family: str
    server: Server
    engine: HTTPEngine
    model: Any
    version: int = 0  # pushed last

    def update_weights(self) -> None:
        """Push the model under the next version."""
        self.version += 1
        self.engine.update_weights(self.model, self.version)


@pytest.fixture(scope="module", params=list(LAYOUTS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a tiny model in float32, for all tests of a family; the last one kills it."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = build(folder, family)
    layout = LAYOUTS[family]
    with serve(
        folder,
        max_model_len=2048,
        max_images=MAX_IMAGES,
        max_frame_pixels=16 * layout.factor**2,
        log_path=folder / "server.log",
        device="cpu",
        dtype="float32",
        deadline_s=300.0,
    ) as server:
        engine = HTTPEngine(server, Noise(), layout, concurrency=8)
        yield Served(family, server, engine, model)
        engine.close()


def test_log_probs_are_those_of_a_plain_forward_before_and_after_pushes(served: Served) -> None:
    """Over growing contexts with repeated images, no output is computed with anything old."""
    check_pushes(served.engine, served.model, served.family)
    served.version = 2


def test_greedy_takes_the_likeliest_tokens(served: Served) -> None:
    """As an evaluation asks for."""
    check_greedy(served.engine, served.model, served.family)


def test_outputs_come_in_the_order_of_contexts(served: Served) -> None:
    """Each of 32 outputs has the log-probs of its own context, more of them than fit at once."""
    contexts = [opening(served.family, "x" * number, images=1 + number % 3) for number in range(32)]
    outputs = served.engine.generate(contexts, SAMPLING)
    assert worst(served.model, served.family, contexts, outputs, SAMPLING) < TOLERANCE
    shifted = [*outputs[1:], outputs[0]]
    assert worst(served.model, served.family, contexts, shifted, SAMPLING) > 0.1


def test_a_context_without_images_is_served(served: Served) -> None:
    """Text alone has log-probs of a plain forward too."""
    contexts = [Context("text", tuple(shown("only words", ())), ())]
    outputs = served.engine.generate(contexts, SAMPLING)
    assert worst(served.model, served.family, contexts, outputs, SAMPLING) < TOLERANCE


def test_more_images_than_the_limit_are_refused_and_the_server_lives(served: Served) -> None:
    """The error says how many are allowed; contexts of the same batch and later ones are not harmed."""
    fits, too_many = opening(served.family, "fits"), opening(served.family, "many", MAX_IMAGES + 1)
    with pytest.raises(EngineError, match=f"At most {MAX_IMAGES} image"):
        served.engine.generate([fits, too_many], SAMPLING)
    outputs = served.engine.generate([fits], SAMPLING)
    assert worst(served.model, served.family, [fits], outputs, SAMPLING) < TOLERANCE


def test_a_frame_that_the_server_would_shrink_is_an_error(served: Served) -> None:
    """A frame above the server's bound is not silently shown smaller."""
    factor = LAYOUTS[served.family].factor
    large = visual(1.0, (5 * factor, 4 * factor))
    with pytest.raises(EngineError, match="rescales frames"):
        served.engine.generate([Context("large", tuple(shown("?", [large])), (large,))], SAMPLING)


def test_an_output_is_cut_where_the_context_ends(served: Served) -> None:
    """With room for two tokens at most two come, and the context is read in full."""
    context = opening(served.family, "long")
    layout = LAYOUTS[served.family]
    length = len(context.ids) + sum(layout.tokens(visual) - 1 for visual in context.visuals)
    sampling = replace(SAMPLING, max_context=length + 2)
    (output,) = served.engine.generate([context], sampling)
    assert 1 <= len(output.ids) <= 2
    assert worst(served.model, served.family, [context], [output], sampling) < TOLERANCE


def test_a_failed_push_stops_sampling_until_one_succeeds(served: Served) -> None:
    """Weights of another model are refused; the next push of the right ones is sampled from exactly."""
    context = opening(served.family, "after")
    with pytest.raises(EngineError, match="update_weights"):
        served.engine.update_weights(torch.nn.Linear(3, 3), 99)
    with pytest.raises(EngineError, match="push them again"):
        served.engine.generate([context], SAMPLING)
    move(served.model, 11)
    served.update_weights()
    outputs = served.engine.generate([context], SAMPLING)
    assert worst(served.model, served.family, [context], outputs, SAMPLING) < TOLERANCE


def test_an_update_that_was_left_unfinished_does_not_hold_up_the_next(served: Served) -> None:
    """As by a trainer that was killed while the server read its weights."""
    served.engine._control("/pause?mode=abort&clear_cache=true")
    served.engine._control("/start_weight_update")
    again = HTTPEngine(served.server.url, Noise(), LAYOUTS[served.family])
    move(served.model, 12)
    again.update_weights(served.model, 1)
    context = opening(served.family, "afresh")
    outputs = again.generate([context], SAMPLING)
    assert worst(served.model, served.family, [context], outputs, SAMPLING) < TOLERANCE
    again.close()
    served.update_weights()


def test_weights_that_do_not_fill_the_model_are_refused(served: Served) -> None:
    """Half a model is an error, though vLLM itself would keep the other half's old weights."""

    class Half(torch.nn.Module):
        def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
            """Those of the language model."""
            names = served.model.named_parameters()
            return ((name, value) for name, value in names if "visual" not in name)

    with pytest.raises(EngineError, match="no new weights came for"):
        served.engine.update_weights(Half(), 99)
    served.update_weights()
    contexts = [opening(served.family, "again")]
    outputs = served.engine.generate(contexts, SAMPLING)
    assert worst(served.model, served.family, contexts, outputs, SAMPLING) < TOLERANCE


def test_another_trainer_on_the_same_server_is_noticed(served: Served) -> None:
    """Weights that somebody else pushed are not taken for one's own."""
    other = HTTPEngine(served.server.url, Noise(), LAYOUTS[served.family])
    other.update_weights(served.model, served.version)  # the very number
    with pytest.raises(EngineError, match="something else pushes"):
        served.engine.generate([opening(served.family, "mine")], SAMPLING)
    other.close()
    served.update_weights()
    served.engine.generate([opening(served.family, "mine")], SAMPLING)


def test_banned_ids_are_never_sampled(served: Served) -> None:
    """Even of a model that wants nothing else."""
    served.version += 1
    check_bans(served.engine, served.model, served.family, served.version)


def test_a_killed_server_is_noticed_in_seconds(served: Served) -> None:
    """SIGKILL of its HTTP process (one family) or of its engine (the other), with requests in flight."""
    family = psutil.Process(served.server.process.pid).children(recursive=True)
    api = next(process for process in family if "serve" in process.cmdline())
    victim = api if served.family == "qwen3_vl" else api.children()[-1]
    killed_at: list[float] = []

    def kill() -> None:
        victim.send_signal(signal.SIGKILL)
        killed_at.append(time.monotonic())

    timer = threading.Timer(1.0, kill)
    timer.start()
    with pytest.raises(EngineError):
        while True:
            served.engine.generate([opening(served.family, "x" * n) for n in range(16)], SAMPLING)
    noticed_after = time.monotonic() - killed_at[0]
    assert noticed_after < 10.0
    with pytest.raises(EngineError):
        served.engine.generate([opening(served.family, "x")], SAMPLING)


def test_the_end_of_serve_leaves_no_process(tmp_path: Path) -> None:
    """Its workers end with it, also when it is left before it answers."""
    build(tmp_path, "qwen2_5_vl")
    with pytest.raises(EngineError, match="did not answer within"):
        with serve(
            tmp_path,
            max_model_len=2048,
            max_images=1,
            max_frame_pixels=10_000,
            log_path=tmp_path / "log",
            device="cpu",
            deadline_s=8.0,
        ):
            pytest.fail("no server answers that early")
    left = [p.pid for p in psutil.process_iter() if str(tmp_path) in " ".join(_command(p))]
    assert left == [] or left == [os.getpid()]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
