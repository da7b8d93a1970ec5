"""What every environment of this package promises, as one call for tests of your own.

``check_environment(make_env)`` plays an environment, plain or wrapped, alone and in vectors, and
``check_no_leak`` plants an answer nobody could guess and looks for it in everything a policy is
shown. Both raise `AssertionError` with a sentence that says what is broken.
"""

from __future__ import annotations

import math
import pickle
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from videogym.actions import Answer, Crop, Find, Select
from videogym.env import VideoQAEnv
from videogym.geometry import Segment
from videogym.state import Action, Rules, Task
from videogym.testing.policies import with_count
from videogym.wrappers import TextActions

Env = gymnasium.Env[Any, Any]
MakeEnv = Callable[[], Env]

ODD_SHARES = (
    math.nan,
    math.inf,
    -math.inf,
    -1.0,
    -0.0,
    0.0,
    1e-300,
    0.04,
    math.nextafter(1.0, 0.0),
    1.0,
    math.nextafter(1.0, 2.0),
    1e300,
)

ODD_QUERIES = ("", " \n", "a red shape", "🙂", "\x00", "\ud800", "</tool_call>" * 9, "x" * 100_000)


def check_environment(make_env: MakeEnv, *, episodes: int = 3, seed: int = 0) -> None:
    """Check everything below.

    Args:
        make_env: makes a new environment with the same tasks each time; called about ten times, in
            worker processes too.
        episodes: how many episodes the single-environment checks play.
        seed: seeds environments and actions.

    Raises:
        AssertionError: a promise is broken.
    """
    check_gymnasium(make_env)
    check_spaces_and_info(make_env, episodes=episodes, seed=seed)
    check_determinism(make_env, episodes=episodes, seed=seed)
    check_snapshots(make_env, seed=seed)
    check_odd_actions(make_env, count=200, seed=seed)
    check_spec(make_env)
    check_vector_envs(make_env, seed=seed)


def check_gymnasium(make_env: MakeEnv) -> None:
    """Gymnasium's own checker passes, its warnings included."""
    env = make_env()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version")
        check_env(env, skip_render_check=env.spec is None, skip_close_check=True)
    env.close()


def check_spaces_and_info(make_env: MakeEnv, *, episodes: int = 3, seed: int = 0) -> None:
    """Observations lie in the space, infos keep their keys and types, an ended episode stays ended."""
    env = make_env()
    env.action_space.seed(seed)
    for episode in range(episodes):
        observation, info = env.reset(seed=seed + episode)
        shape = _types(info)
        _require(observation in env.observation_space, "the first observation is not in the space")
        over = False
        while not over:
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            _require(
                observation in env.observation_space, f"an observation is not in the space: {observation}"
            )
            _require(_types(info) == shape, f"info changed from {shape} to {_types(info)}")
            _require(type(reward) is float and math.isfinite(reward), f"the reward is {reward!r}")
            _require(not (terminated and truncated), "an episode was terminated and truncated at once")
            over = terminated or truncated
        if terminated:
            _require_raises(env, "a step after the end was accepted")
    env.close()


def _types(value: Any) -> Any:
    """Keys and types of an info, nested; a float and an absent term are one."""
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    return np.float64 if isinstance(value, np.float64) else type(value)


def _require_raises(env: Env, sentence: str) -> None:
    try:
        env.step(env.action_space.sample())
    except ValueError:
        return
    raise AssertionError(sentence)


def check_determinism(make_env: MakeEnv, *, episodes: int = 3, seed: int = 0) -> None:
    """Two environments with one seed and the same actions give the same of everything."""
    first, second = make_env(), make_env()
    for episode in range(episodes):
        runs = [_play(env, seed + episode) for env in (first, second)]
        for number, (one, other) in enumerate(zip(*runs, strict=True)):
            _require(same(one, other), f"episode {episode} differs at step {number}: {one} and {other}")
    first.close()
    second.close()


def _play(env: Env, seed: int) -> Iterator[Any]:
    env.action_space.seed(seed)
    yield env.reset(seed=seed)
    over = False
    while not over:
        outcome = env.step(env.action_space.sample())
        over = outcome[2] or outcome[3]
        yield outcome


def check_snapshots(make_env: MakeEnv, *, seed: int = 0) -> None:
    """A pickled snapshot goes on in another environment, and one snapshot can be branched many times."""
    env, other = make_env(), make_env()
    env.action_space.seed(seed)
    start, _ = env.reset(seed=seed)
    other.reset(seed=seed + 1)
    snapshot = pickle.loads(pickle.dumps(_inner(env).get_state()))
    resumed = _inner(other).set_state(snapshot)
    _require(same({key: start[key] for key in resumed}, resumed), "a restored state is observed otherwise")
    actions = [env.action_space.sample() for _ in range(4)]
    for action in actions:
        outcomes = []
        for branch in (env, other, env):
            _inner(branch).set_state(snapshot)
            outcomes.append(branch.step(action))
        _require(same(outcomes[0], outcomes[1]), f"{action} comes out otherwise in another environment")
        _require(same(outcomes[0], outcomes[2]), f"{action} comes out otherwise the second time")
    tasks = []
    for branch in (env, other):
        _inner(branch).set_state(snapshot)
        tasks.append(branch.reset()[1]["task_id"])
    _require(tasks[0] == tasks[1], f"the restored generators draw different tasks: {tasks}")
    env.close()
    other.close()


def check_odd_actions(make_env: MakeEnv, *, count: int = 200, seed: int = 0) -> Counter[str]:
    """Whatever numbers a policy puts out, a step gives an observation and never an exception.

    Returns:
        How often each error code came, "" for actions that were executed.
    """
    env, outcomes = make_env(), Counter[str]()
    rng = np.random.default_rng(seed)
    env.action_space.seed(seed)
    env.reset(seed=seed)
    for _ in range(count):
        action = odd_action(env, rng)
        observation, _, terminated, truncated, info = env.step(action)
        if observation not in env.observation_space:
            raise AssertionError(f"{action} brings an observation outside the space")
        if bool(info["invalid"]) != (info["error_code"] != ""):
            raise AssertionError(f"{action} is invalid without a code, or has one and is valid")
        outcomes[info["error_code"]] += 1
        if terminated or truncated:
            env.reset()
    env.close()
    return outcomes


def odd_action(env: Env, rng: np.random.Generator) -> Any:
    """A sampled action whose numbers are replaced, often, by ones no policy should put out."""
    action = env.action_space.sample()
    if isinstance(env, TextActions) or not isinstance(action, dict):
        return action
    if rng.random() < 0.7:
        action["segment"] = rng.choice([*ODD_SHARES, *rng.uniform(0, 1, 12)], 2)
    if "region" in action and rng.random() < 0.5:
        action["region"] = rng.choice([math.nan, -0.5, 0.0, 0.3, 0.3001, 1.0, 2.0], 4).astype(np.float32)
    for name in ("fps", "scale"):
        if name in action and rng.random() < 0.3:
            action[name] = rng.choice([*ODD_SHARES, *rng.uniform(0, 1, 6)], 1)
    if "frames" in action and rng.random() < 0.3:
        action["frames"] = np.int64(rng.integers(-3, 10**6))
    if "query" in action and rng.random() < 0.7:
        action["query"] = str(rng.choice(ODD_QUERIES))
        action["k"] = np.int64(rng.choice([-3, 0, 1, 2, 10**6]))
    if rng.random() < 0.1:
        action["kind"] = np.int64(rng.integers(-2, 5))
        action["option"] = np.int64(rng.integers(-2, 40))
    return action


def check_spec(make_env: MakeEnv) -> None:
    """The specification of a registered environment survives JSON; others have none to check."""
    env = make_env()
    if env.spec is not None:
        again = EnvSpec.from_json(env.spec.to_json())
        _require(again.id == env.spec.id, f"{env.spec.id} comes back from JSON as {again.id}")
        gymnasium.make(again).close()
    env.close()


def check_vector_envs(make_env: MakeEnv, *, count: int = 2, steps: int = 8, seed: int = 0) -> None:
    """Synchronous and asynchronous vectors with shared memory play the same, across episode ends."""
    vectors = (SyncVectorEnv([make_env] * count), AsyncVectorEnv([make_env] * count, shared_memory=True))
    try:
        for vector in vectors:
            vector.action_space.seed(seed)
        pairs = [vector.reset(seed=seed) for vector in vectors]
        _require(same(*pairs), "the vectors start with different observations")
        for number in range(steps):
            sync, parallel = (vector.step(vector.action_space.sample()) for vector in vectors)
            _require(same(sync, parallel), f"the vectors differ at step {number}")
            _require(sync[0] in vectors[0].observation_space, "a batch is not in the batched space")
    finally:
        for vector in vectors:
            vector.close()


def same(one: Any, other: Any) -> bool:
    """Whether two outcomes are equal in every value, type and shape; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic | float):
        nan = np.asarray(one).dtype.kind == "f"
        return bool(np.array_equal(one, other, equal_nan=nan))
    return bool(one == other)


# --- leaks -------------------------------------------------------------------------------------


def check_no_leak(make_env: Callable[[list[Task]], Env], video: str, duration_s: float) -> None:
    """The answer and the evidence appear in nothing that a policy is shown.

    Args:
        make_env: makes an environment of the given tasks; not with ``privileged=True``.
        video: a usable video, for instance a ``synthetic:`` address.
        duration_s: its length in seconds.
    """
    task = planted_task(video, duration_s)
    env = make_env([task])
    inner, secret = _inner(env), _Secrets(task)
    secret.search("the first observation", env.reset(seed=0))
    for planted in _planted_actions(inner.recipe.rules, duration_s):
        env.reset(seed=0)
        action = with_count(planted, inner.state) if isinstance(planted, Crop) else planted
        written = env.grammar.write(action, inner.state) if isinstance(env, TextActions) else action
        observation, _, _, _, info = env.step(written)
        secret.search(f"what follows {action}", (observation, info))
        secret.search(f"the state after {action}", repr(inner.state))
        if isinstance(env, TextActions):
            secret.search(f"the messages after {action}", env.messages)
    secret.search("the environment", (repr(env), str(env), repr(list(inner.tasks))))
    env.close()


def planted_task(video: str, duration_s: float) -> Task:
    """An open question whose answer and evidence occur nowhere by chance."""
    # Shares of a prime are no multiples of a frame's length, so no frame is shown at these times.
    start_s = duration_s * (0.3 + (1 + secrets.randbelow(1000)) / 7919.0)
    evidence = (Segment(start_s, start_s + duration_s * 0.0717),)
    return Task("planted", video, "What is it?", "open", answer=secrets.token_hex(20), evidence=evidence)


def _planted_actions(rules: Rules, duration_s: float) -> Iterator[Action]:
    """Looks away from and over the evidence, and a wrong answer."""
    look = Select if "select" in rules.actions else Crop
    yield look(0.0, duration_s * 0.1)
    yield look(duration_s * 0.2, duration_s * 0.6)
    if "find" in rules.actions:
        yield Find("whatever there is", 16)
    yield Answer("no idea")


class _Secrets:
    """Forms in which a task's answer and evidence could be told."""

    def __init__(self, task: Task) -> None:
        bounds = [bound for s in task.evidence or () for bound in (s.start_s, s.end_s)]
        self._texts = [task.answer, *(f"{bound:.3f}" for bound in bounds), *map(repr, bounds)]
        self._numbers = np.array([*bounds, *(s.length_s for s in task.evidence or ())])

    def search(self, where: str, shown: Any) -> None:
        """Raise if anything in ``shown`` tells a secret."""
        for value in _leaves(shown):
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                hit = bool(np.isclose(value.ravel()[:, None], self._numbers, rtol=0, atol=1e-6).any())
            elif isinstance(value, float):
                hit = bool(np.isclose(value, self._numbers, rtol=0, atol=1e-6).any())
            else:
                hit = any(text in str(value) for text in self._texts)
            _require(not hit, f"{where} tells the answer or the evidence: {value!r}")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif hasattr(value, "parts"):
        yield from _leaves(value.parts)
    else:
        yield value


def _inner(env: Env) -> VideoQAEnv:
    inner = env.unwrapped
    _require(isinstance(inner, VideoQAEnv), f"{inner} is not a videogym environment")
    return inner  # type: ignore[return-value]


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)
