"""Conversations for engines, and the check that an engine samples what a plain forward scores."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from tiny import END, IMAGE, LAYOUTS, START, STOP, VIDEO, distributions, scores, shown, visual

from agents.engines.base import Context, Engine, Output, Sampling

TOLERANCE = 1e-4
BANNED = (START, STOP, IMAGE, VIDEO)
SAMPLING = Sampling(temperature=0.7, max_new_tokens=12, end_id=END, banned=BANNED, max_context=2048)


def opening(family: str, key: str, images: int = 3) -> Context:
    """The first turn of a conversation: images of its own size, then its name."""
    factor = LAYOUTS[family].factor
    size = (factor * (1 + len(key) % 2), factor * 2)
    visuals = tuple(visual(float(second), size) for second in range(images))
    return Context(key, (*shown(f"look, {key}: ", visuals),), visuals)


def next_turn(family: str, before: Context, output: Output, seconds: Sequence[float]) -> Context:
    """The conversation after an output: more images, some seen before."""
    factor = LAYOUTS[family].factor
    visuals = tuple(visual(second, (2 * factor, factor)) for second in seconds)
    ids = (*before.ids, *output.ids, *shown("and then?", visuals))
    return Context(before.key, ids, (*before.visuals, *visuals))


def worst(
    model: Any, family: str, contexts: Sequence[Context], outputs: Sequence[Output], sampling: Sampling
) -> float:
    """The largest difference of an engine's log-probs from those of a plain forward."""
    assert len(outputs) == len(contexts)
    differences = []
    for context, output in zip(contexts, outputs, strict=True):
        expected = scores(model, family, context, output.ids, sampling.temperature, sampling.banned)
        assert len(output.log_probs) == len(output.ids) > 0
        pairs = zip(output.log_probs, expected, strict=True)
        differences += [abs(found - wanted) for found, wanted in pairs]
    return max(differences)


def play(engine: Engine, model: Any, family: str, version: int) -> tuple[list[Context], list[Output]]:
    """Three turns of four conversations, each output checked; returns the last turn."""
    contexts = [opening(family, key) for key in ("a", "bb", "ccc", "dddd")]
    for seconds in ((0.0, 7.0), (7.0, 0.0, 9.5), ()):
        outputs = engine.generate(contexts, SAMPLING)
        difference = worst(model, family, contexts, outputs, SAMPLING)
        assert difference < TOLERANCE, f"log-probs differ by {difference} at version {version}"
        assert {v for output in outputs for v in output.versions} == {version}
        for output in outputs:
            assert output.ids[-1] == END or len(output.ids) == SAMPLING.max_new_tokens
            assert END not in output.ids[:-1]
        if seconds:
            turns = zip(contexts, outputs, strict=True)
            contexts = [next_turn(family, context, output, seconds) for context, output in turns]
    return contexts, outputs


def move(model: Any, seed: int) -> None:
    """Change all weights by amounts that change outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def prefer_banned(model: Any, strength: float = 1000.0) -> None:
    """Make the model want ids that may not be sampled: of two opposite rows one always wins."""
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        for banned, sign in ((START, 1.0), (STOP, -1.0)):
            weight[banned] = 0.0
            weight[banned, 0] = sign * strength


def check_bans(engine: Engine, model: Any, family: str, version: int) -> None:
    """Push a model that wants banned ids, and sample none."""
    prefer_banned(model)
    engine.update_weights(model, version)
    contexts = [opening(family, key) for key in ("a", "bb")]
    wanted = [scores(model, family, contexts[0], [i], SAMPLING.temperature, ())[0] for i in (START, STOP)]
    assert max(wanted) > -1e-3, "this model does not want a banned id: the test would prove nothing"
    outputs = engine.generate(contexts, SAMPLING)
    assert not {i for output in outputs for i in output.ids} & set(BANNED)
    assert worst(model, family, contexts, outputs, SAMPLING) < TOLERANCE


def check_greedy(engine: Engine, model: Any, family: str) -> None:
    """The likeliest id each time, though a temperature of 5 would sample nearly any."""
    contexts = [opening(family, key) for key in ("a", "bb", "ccc")]
    sampling = replace(SAMPLING, temperature=5.0, greedy=True)
    outputs = engine.generate(contexts, sampling)
    for context, output in zip(contexts, outputs, strict=True):
        likeliest = distributions(model, family, context, output.ids, 1.0, BANNED).argmax(-1)
        assert list(output.ids) == likeliest.tolist()


def check_pushes(engine: Engine, model: Any, family: str) -> None:
    """Play before and after each of two pushes; the frames are the same each time."""
    play(engine, model, family, 0)
    for version in (1, 2):
        contexts, outputs = play(engine, model, family, version - 1)
        move(model, version)
        stale = worst(model, family, contexts, outputs, SAMPLING)
        assert stale > 0.1, "the weights hardly changed: a push that does nothing would pass"
        engine.update_weights(model, version)
        play(engine, model, family, version)
