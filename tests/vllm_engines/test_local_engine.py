"""`LocalEngine`: a vLLM in this process samples what a plain forward scores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conversations import SAMPLING, TOLERANCE, check_bans, check_greedy, check_pushes, move, opening, worst
from tiny import LAYOUTS, Noise, build, shown, visual

from agents.engines.base import Context, EngineError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
MAX_IMAGES = 16


@pytest.fixture(scope="module", params=list(LAYOUTS))
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Family, engine and model, for all tests of a family."""
    from agents.engines.vllm_local import LocalEngine

    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = build(folder, family)
    layout = LAYOUTS[family]
    engine = LocalEngine(
        folder,
        Noise(),
        layout,
        max_model_len=2048,
        max_images=MAX_IMAGES,
        max_frame_pixels=16 * layout.factor**2,
        dtype="float32",
    )
    yield family, engine, model
    engine.close()


def test_log_probs_are_those_of_a_plain_forward_before_and_after_pushes(local: Any) -> None:
    """Over growing contexts with repeated images, no output is computed with anything old."""
    family, engine, model = local
    check_pushes(engine, model, family)


def test_greedy_takes_the_likeliest_tokens(local: Any) -> None:
    """As an evaluation asks for."""
    family, engine, model = local
    check_greedy(engine, model, family)


def test_more_images_than_the_limit_are_refused_and_the_engine_lives(local: Any) -> None:
    """The error says how many are allowed; nothing of the refused batch comes back later."""
    family, engine, model = local
    fits, too_many = opening(family, "fits"), opening(family, "many", MAX_IMAGES + 1)
    with pytest.raises(EngineError, match=f"At most {MAX_IMAGES} image"):
        engine.generate([fits, too_many], SAMPLING)
    outputs = engine.generate([fits], SAMPLING)
    assert worst(model, family, [fits], outputs, SAMPLING) < TOLERANCE


def test_a_frame_that_the_engine_would_shrink_is_an_error(local: Any) -> None:
    """A frame above the bound is not silently shown smaller."""
    family, engine, _ = local
    factor = LAYOUTS[family].factor
    large = visual(1.0, (5 * factor, 4 * factor))
    with pytest.raises(EngineError, match="rescales frames"):
        engine.generate([Context("large", tuple(shown("?", [large])), (large,))], SAMPLING)


def test_a_failed_push_stops_sampling_until_one_succeeds(local: Any) -> None:
    """Weights of another model are refused; the next push of the right ones is sampled from exactly."""
    family, engine, model = local
    contexts = [opening(family, "after")]
    with pytest.raises(EngineError, match="could not be loaded"):
        engine.update_weights(torch.nn.Linear(3, 3), 99)
    with pytest.raises(EngineError, match="push them again"):
        engine.generate(contexts, SAMPLING)
    move(model, 11)
    engine.update_weights(model, 3)
    outputs = engine.generate(contexts, SAMPLING)
    assert worst(model, family, contexts, outputs, SAMPLING) < TOLERANCE


def test_banned_ids_are_never_sampled(local: Any) -> None:
    """Even of a model that wants nothing else."""
    family, engine, model = local
    check_bans(engine, model, family, 4)


def test_an_untested_vllm_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before any weights are loaded, with the versions that are tested."""
    import vllm

    from agents.engines.vllm_local import LocalEngine

    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    with pytest.raises(EngineError, match=r"vLLM 0\.33\.0 is untested, tested are 0\.32\.0"):
        LocalEngine(
            tmp_path, Noise(), LAYOUTS["qwen3_vl"], max_model_len=9, max_images=1, max_frame_pixels=9
        )
