"""Demonstrators: looks at the evidence, mistakes that are mended, and nothing said before it was seen."""

from dataclasses import replace

import pytest

from agents.demonstrations.evidence import Demonstrator, ScriptedTurn
from videogym import Crop, Recipe, Select, State, VideoQAEnv, get_recipe
from videogym.grammars import get_grammar

FAMILIES = ["LONGVT/paper-64", "LONGVT/code-64", "VIDEO_MTR/paper", "VIDEO_MTR/code"]
Episode = tuple[State, list[tuple[State, ScriptedTurn]]]


def tasks(family: str, recipe: Recipe) -> str:
    """Events that hide from the skim, and that a look at one frame a second, or at the pool, shows."""
    event_s = 1.5 if "crop" in recipe.rules.actions else 4
    return f"procedural:{family}?level=0&duration_s=192&event_s={event_s}&size=32x32"


def speaker(recipe: Recipe, seed: int = 0, **settings: float) -> Demonstrator:
    """A demonstrator of the recipe's grammar that errs only where the settings say so."""
    merged = {"wrong_looks": 0.0, "refused_calls": 0.0, "look": 8, **settings}
    return Demonstrator(get_grammar(recipe.grammar), seed, **merged)  # type: ignore[arg-type]


def play(source: str, recipe: Recipe, speak: Demonstrator, episodes: int = 40) -> list[Episode]:
    """Ended states, each with the states before every turn and what was said there.

    Episodes whose skim shows evidence are left out.
    """
    env, grammar = VideoQAEnv(source, recipe), get_grammar(recipe.grammar)
    played = []
    for seed in range(episodes):
        env.reset(seed=seed)
        said: list[tuple[State, ScriptedTurn]] = []
        while not env.state.terminated:
            said.append((env.state, speak(env.state)))
            env.step(grammar.parse(said[-1][1].text, env.state))
        shown = said[0][0].skim.times_s
        if not any(s.contains(t) for s in env.state.task.evidence or () for t in shown):
            played.append((env.state, said))
    assert len(played) >= 10
    return played


def shows_evidence(state: State) -> bool:
    """Whether all evidence is among the frames shown."""
    times = [time_s for clip in state.clips for time_s in clip.times_s]
    return all(any(segment.contains(t) for t in times) for segment in state.task.evidence or ())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("family, looks", [("brief_event", 1), ("event_order", 2)])
def test_one_look_at_each_segment_and_then_the_right_answer(name: str, family: str, looks: int) -> None:
    """Without mistakes an episode has one well-formed turn a segment, all learned, and a right answer."""
    recipe = get_recipe(name)
    for state, said in play(tasks(family, recipe), recipe, speaker(recipe)):
        assert len(said) <= looks + 1  # one look may show two segments
        assert state.answer == state.task.answer
        assert all(turn.well_formed and turn.valid for turn in state.turns)
        assert all(output.trainable for _, output in said)
        assert shows_evidence(state)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_wrong_look_shows_nothing_and_is_followed_by_the_right_one(name: str) -> None:
    """With wrong looks alone: a look without evidence that is not learned, its mending, the answer."""
    recipe = get_recipe(name)
    for state, said in play(tasks("brief_event", recipe), recipe, speaker(recipe, wrong_looks=1.0)):
        assert [output.trainable for _, output in said] == [False, True, True]
        action, (evidence,) = state.turns[0].results[0].action, state.task.evidence or ()
        assert isinstance(action, Crop | Select)
        assert action.end_s <= evidence.start_s or evidence.end_s <= action.start_s
        assert not shows_evidence(said[1][0]) and shows_evidence(said[2][0])
        assert state.answer == state.task.answer


@pytest.mark.parametrize("name", FAMILIES)
def test_a_refused_call_is_told_why_and_repeated_rightly(name: str) -> None:
    """With refused calls alone: one that is answered with a reason, its mending, the answer."""
    recipe = get_recipe(name)
    codes = set()
    for state, said in play(
        tasks("brief_event", recipe), recipe, speaker(recipe, refused_calls=1.0), episodes=40
    ):
        assert [output.trainable for _, output in said] == [False, True, True]
        error = state.turns[0].error
        assert error is not None and error.reason
        codes.add(error.code)
        assert state.ending == "answered" and state.answer == state.task.answer
    assert len(codes) >= 2


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("family", ["brief_event", "event_order"])
def test_nothing_is_told_before_it_was_shown(name: str, family: str) -> None:
    """No colour of a shape is in an output before all evidence was shown."""
    recipe = get_recipe(name)
    speak = speaker(recipe, seed=1, wrong_looks=0.4, refused_calls=0.3)
    for _, said in play(tasks(family, recipe), recipe, speak):
        for state, output in said:
            if not shows_evidence(state):
                assert not any(colour in output.text for colour in ("red", "yellow", "blue", "white"))


@pytest.mark.parametrize("name", FAMILIES)
def test_mistakes_never_cost_the_episode(name: str) -> None:
    """At any rate of mistakes all evidence is shown in the end and the answer is right."""
    recipe = get_recipe(name)
    for state, _ in play(
        tasks("event_order", recipe), recipe, speaker(recipe, wrong_looks=0.5, refused_calls=0.5)
    ):
        assert shows_evidence(state) and state.answer == state.task.answer


def test_an_answer_that_was_not_seen_is_not_learned() -> None:
    """Events between two frames of the pool cannot be shown: the answer is then context only."""
    recipe = get_recipe("VIDEO_MTR/paper")
    source = "procedural:brief_event?level=0&duration_s=600&event_s=0.5&size=32x32"
    unseen = 0
    for state, said in play(source, recipe, speaker(recipe)):
        assert said[-1][1].trainable == shows_evidence(state)
        unseen += not shows_evidence(state)
    assert unseen > 0


def test_a_look_in_vain_at_the_right_place_is_narrowed() -> None:
    """Crops of one frame a second miss shorter events; a second, narrow crop shows them."""
    recipe = get_recipe("LONGVT_TINY")
    source = "procedural:brief_event?level=0&duration_s=192&event_s=0.25&size=32x32"
    lengths = set()
    for state, said in play(source, recipe, speaker(recipe, step=4)):
        assert shows_evidence(state) and all(output.trainable for _, output in said)
        lengths.add(len(said))
    assert 3 in lengths


def test_looks_lie_on_the_grid_and_hold_the_evidence() -> None:
    """Bounds are multiples of the step in seconds, and the evidence lies between them."""
    recipe = get_recipe("LONGVT_TINY")
    for state, _ in play(tasks("brief_event", recipe), recipe, speaker(recipe, look=18, step=5)):
        action, (evidence,) = state.turns[0].results[0].action, state.task.evidence or ()
        assert isinstance(action, Crop)
        assert action.start_s % 5 == 0 and (action.end_s % 5 == 0 or action.end_s == 192)
        assert action.start_s <= evidence.start_s and evidence.end_s <= action.end_s


def test_what_is_said_follows_from_the_seed() -> None:
    """The same seed says the same, another one something else; plain wording says one thing only."""
    recipe = get_recipe("LONGVT_TINY")

    def texts(**settings: object) -> list[str]:
        speak = Demonstrator(get_grammar(recipe.grammar), **settings)  # type: ignore[arg-type]
        return [
            output.text
            for _, said in play(tasks("brief_event", recipe), recipe, speak)
            for _, output in said
        ]

    assert texts(seed=3) == texts(seed=3) != texts(seed=4)
    answers = [text for text in texts(seed=3, wording="plain") if "<answer>" in text]
    assert answers and all(text.startswith("<think>I see the shape while the") for text in answers)


def test_what_cannot_be_demonstrated_is_refused() -> None:
    """Another family, tasks without evidence, ended episodes and rates that are none."""
    recipe = get_recipe("LONGVT_TINY")
    env, speak = VideoQAEnv(tasks("brief_event", recipe), recipe), speaker(recipe)
    env.reset(seed=0)
    bare = replace(env.state, task=replace(env.state.task, evidence=None))
    with pytest.raises(ValueError, match="no evidence"):
        speak(bare)
    with pytest.raises(ValueError, match="has ended"):
        speak(replace(env.state, ending="answered"))
    with pytest.raises(ValueError, match="native"):
        Demonstrator(get_grammar("native"), 0)
    for settings in ({"wrong_looks": -0.1}, {"wrong_looks": 0.6, "refused_calls": 0.6}, {"step": 0}):
        with pytest.raises(ValueError, match="must be"):
            speaker(recipe, **settings)
