"""Several servers as one engine, and ranks of torchrun that share them: equal weights, and sudden ends."""

# ruff: noqa: D103

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from served_run import Moment, require_line, scene
from test_vllm_http import LAYOUT, SAMPLING, TEXT, Answer, Frames, Handler, Served

from agents import train_grpo_mllm
from agents.engines.base import Context, EngineError
from agents.engines.shared_servers import SharedServers
from agents.training import ranks
from agents.vlm import command
from agents.vlm.policy import make_model
from videogym import FrameStore

# --- in one process ----------------------------------------------------------------------------


class Told:
    """A server that answers every context by its own first id, or not at all."""

    def __init__(self, start: Callable[[Handler], Served], root: str = "one") -> None:
        self.root, self.version, self.keys = root, "default", list[int]()
        self.hangs, self.reached = threading.Event(), threading.Event()
        self.hangs.set()  # not
        self.served = start(self)
        self.served.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = self.served.url

    def __call__(self, method: str, path: str, body: Any) -> Answer:
        """What vLLM would say."""
        if path == "/v1/models":
            return 200, {"data": [{"root": self.root}]}
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
        if path != "/inference/v1/generate":
            return 200, {"version": "0.32.0", "is_paused": False}
        asked = body["token_ids"]
        if len(asked) > 1:
            self.reached.set()
            self.hangs.wait()
            self.keys.append(asked[0])
        content = [{"token_id": token, "logprob": 0.0} for token in (asked[0], SAMPLING.end_id)]
        ids = [SAMPLING.end_id] if len(asked) == 1 else [asked[0], SAMPLING.end_id]
        choice = {
            "token_ids": ids,
            "logprobs": {"content": content[-len(ids) :]},
            "weight_versions": [{"version": self.version, "start": 0, "end": len(ids)}],
        }
        return 200, {
            "prompt_token_ids": asked,
            "mm_placeholders": {"image": []},
            "choices": [{**choice, "finish_reason": "stop"}],
        }


@pytest.fixture
def start() -> Iterator[Callable[[Handler], Served]]:
    started: list[Served] = []

    def _start(answer: Handler) -> Served:
        started.append(Served(answer))
        return started[-1]

    yield _start
    for served in started:
        served.close()


def engine_of(servers: Sequence[Told]) -> SharedServers:
    return SharedServers([one.url for one in servers], Frames(), LAYOUT, deadline_s=600.0)


def contexts(*first: int) -> list[Context]:
    return [Context(f"group/{one}", (one, *TEXT.ids), ()) for one in first]


def test_outputs_are_in_order_and_conversations_stay(start: Callable[[Handler], Served]) -> None:
    """Five are divided into three and two, neighbours together; later turns go where the first went."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    said = engine.generate(contexts(1, 2, 3, 4, 5), SAMPLING)
    assert [one.ids for one in said] == [(number, SAMPLING.end_id) for number in (1, 2, 3, 4, 5)]
    assert [sorted(one.keys) for one in servers] == [[1, 2, 3], [4, 5]]
    engine.generate(contexts(5, 1), SAMPLING)
    assert [one.keys[-1] for one in servers] == [1, 5]
    engine.reset_cache()
    engine.generate(contexts(5, 1), SAMPLING)
    assert [one.keys[-1] for one in servers] == [5, 1]
    engine.close()


def test_conversations_that_come_one_by_one_are_divided(start: Callable[[Handler], Served]) -> None:
    """As a collector asks that begins an episode where another has ended."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    for number in range(6):
        engine.generate(contexts(number), SAMPLING)
    assert [one.keys for one in servers] == [[0, 2, 4], [1, 3, 5]]
    engine.close()


def test_all_servers_get_one_version(start: Callable[[Handler], Served], tmp_path: Path) -> None:
    """Under one name; outputs of both are stamped with it, and the file is gone afterwards."""
    servers = [Told(start), Told(start)]
    urls = [one.url for one in servers]
    engine = SharedServers(urls, Frames(), LAYOUT, transfer_folder=tmp_path)
    engine.update_weights(torch.nn.Linear(2, 1), 7)
    assert servers[0].version == servers[1].version and servers[0].version.endswith("-7")
    assert {one.versions for one in engine.generate(contexts(1, 2), SAMPLING)} == {(7, 7)}
    assert list(tmp_path.iterdir()) == []
    servers[1].version = "default"  # it was started again
    with pytest.raises(EngineError, match="restarted"):
        engine.generate(contexts(1, 2), SAMPLING)
    engine.close()


def test_the_death_of_one_ends_what_the_other_is_asked(start: Callable[[Handler], Served]) -> None:
    """Though the other keeps its answer, and a server may be silent for ten minutes."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    engine.generate(contexts(1, 2), SAMPLING)
    servers[0].hangs.clear()
    servers[0].reached.clear()
    servers[1].served.close()
    with pytest.raises(EngineError, match=f"POST {servers[1].url}.*failed for"):
        engine.generate(contexts(1, 2), SAMPLING)
    assert servers[0].reached.is_set()
    servers[0].hangs.set()
    engine.close()


def test_servers_of_different_checkpoints_are_refused(start: Callable[[Handler], Served]) -> None:
    servers = [Told(start, "runs/sft/model"), Told(start, "Qwen/Qwen3-VL-8B-Instruct")]
    with pytest.raises(EngineError) as refused:
        engine_of(servers)
    told = f"{servers[0].url} has runs/sft/model, {servers[1].url} has Qwen/Qwen3-VL-8B-Instruct"
    assert told in str(refused.value)
    with pytest.raises(ValueError, match="a server is there twice"):
        engine_of([servers[0], servers[0]])


def test_after_a_failure_a_push_begins_anew(start: Callable[[Handler], Served]) -> None:
    """A server dies while it samples and another comes up at its address; later one dies before a push."""
    servers = [Told(start), Told(start)]
    engine = engine_of(servers)
    weights = torch.nn.Linear(2, 1)
    engine.update_weights(weights, 1)
    servers[1].served.close()
    for _ in range(2):  # before a push nothing is sampled, though the first server lives
        with pytest.raises(EngineError, match=f"{servers[1].url}.* failed for"):
            engine.generate(contexts(1, 2), SAMPLING)
    servers[1].served = Served(servers[1], servers[1].served.http.server_port)
    servers[1].version = "default"
    engine.update_weights(weights, 2)
    assert {one.versions for one in engine.generate(contexts(1, 2), SAMPLING)} == {(2, 2)}
    servers[1].served.close()
    with pytest.raises(EngineError, match=f"POST {servers[1].url}/pause"):
        engine.update_weights(weights, 3)
    with pytest.raises(EngineError, match="the weights of version 3 did not reach all servers"):
        engine.generate(contexts(1), SAMPLING)
    servers[1].served = Served(servers[1], servers[1].served.http.server_port)
    engine.update_weights(weights, 4)
    assert {one.versions for one in engine.generate(contexts(1, 2), SAMPLING)} == {(4, 4)}
    servers[1].served.close()
    engine.close()


@pytest.mark.parametrize("what", ["learning_rate", "server", "weights"])
def test_ranks_that_disagree_are_refused(
    what: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the rank, the option and both values."""
    config = train_grpo_mllm.Config.of(checkpoint=str(checkpoints["qwen2_5_vl"]))
    model = make_model(config, FrameStore())
    command.require_one_run(config, "", model)
    monkeypatch.setattr(ranks, "all_gather_object", lambda mine: [mine, mine, {**mine, what: "other"}])
    with pytest.raises(
        ranks.RanksDisagree, match=f"ranks disagree about {what}: rank 0 has .*, rank 2 other"
    ):
        command.require_one_run(config, "", model)


# --- ranks of torchrun -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_outlives_its_servers_and_its_ranks(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """A server, a rank and the first rank are killed while all wait for answers; it goes on."""
    with scene(tmp_path, checkpoints["qwen2_5_vl"], iterations=4) as made:
        for victim in ("server", "rank 1", "rank 0"):
            moment = Moment(victim, "asks")
            url = made.servers[1].url
            said = made.killed(victim, moment)
            require_line(said, moment, url)
        made.finish()
        made.require_whole(4)
        assert made.pushed() == [{1, 2, 3, 4, 5}, {1, 2}, {2, 3, 4, 5}]
