"""Minari keeps episodes by reference: read back and played again they are the same, frames included."""

# ruff: noqa: D103

import gc
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from videogym import Answer, Crop, FrameStore, TextActions, VideoQAEnv
from videogym.grammars import get_grammar
from videogym.observations import WHOLE_FRAME
from videogym.testing.env_suite import same
from videogym.video.synthetic import encode

pytestmark = [
    pytest.mark.peers("minari", "jax", "h5py"),  # jax collects what pyarrow or h5py stores
    pytest.mark.filterwarnings("ignore:.*is set to None:UserWarning"),  # of authors and the like
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]

TASKS = "procedural:brief_event?level=0&duration_s=60&count=20&size=64x36"
WORDS = get_grammar("native").write


@pytest.fixture(autouse=True)
def _own_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def structured(env):
    action = env.action_space.sample()
    return {**action, "option": action["option"] % 4}  # there are four; others are refused


def spoken(env):
    """A look, then an answer; one output in four cannot be read."""
    state, draw = env.unwrapped.state, env.action_space.np_random.random()
    if draw < 0.25:
        return "Let me see … 见"
    return WORDS(Crop(60 * draw - 10, 60 * draw) if draw < 0.8 else Answer("B"), state, "hm")


def collect(env, act, episodes, **options):
    """A data set, and the last state of each of its episodes."""
    import minari

    collector, states = minari.DataCollector(env, **options), []
    collector.action_space.seed(0)
    for seed in range(episodes):
        collector.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, _ = collector.step(act(collector))
            over = terminated or truncated
        states.append(env.unwrapped.state)
    collector.create_dataset("videogym/test-v0")
    collector.close()
    del collector
    gc.collect()  # now, where the warnings of Minari's temporary folders are expected
    return minari.load_dataset("videogym/test-v0"), states


def at(values, step):
    """One step of stored values."""
    return {k: at(v, step) for k, v in values.items()} if isinstance(values, dict) else values[step]


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize(
    ("wrap", "act"), [(lambda env: env, structured), (TextActions, spoken)], ids=["structured", "text"]
)
def test_a_stored_episode_replays_to_the_same_states_and_rewards(wrap, act, data_format):
    """With nothing but the file: its environment, its seeds and its actions."""
    env = wrap(gymnasium.make("videogym/VideoQA-v0", tasks=TASKS))
    dataset, states = collect(env, act, 6, data_format=data_format, record_infos=True)
    again = dataset.recover_environment()
    seeds = [metadata["seed"] for metadata in dataset.storage.get_episode_metadata(range(6))]
    assert len(dataset) == 6 and seeds == list(range(6))
    for episode, state, seed in zip(dataset, states, seeds, strict=True):
        observation, _ = again.reset(seed=int(seed))
        assert same_values(at(episode.observations, 0), observation)
        for step in range(len(episode)):
            observation, reward, terminated, truncated, info = again.step(at(episode.actions, step))
            assert same_values(at(episode.observations, step + 1), observation)
            assert episode.rewards[step] == reward
            assert (episode.terminations[step], episode.truncations[step]) == (terminated, truncated)
            stored = at(episode.infos["reward_terms"], step + 1)
            assert same({k: np.float64(v) for k, v in stored.items()}, plain(info["reward_terms"]))
        assert again.unwrapped.state == state, "the replay ended in another state"
    assert {state.ending for state in states} >= {"answered"}


def same_values(stored, observed):
    """Equal in keys and values; stored numbers may have lost their type, texts may not."""
    return stored.keys() == observed.keys() and all(
        np.array_equal(stored[name], observed[name]) for name in observed
    )


def plain(terms):
    return {name: np.float64(float(value)) for name, value in terms.items()}


def test_frames_are_decoded_again_from_the_stored_references(tmp_path):
    """Of a real H.264 file, with and without a region, bit for bit; no pixels are stored."""
    task = VideoQAEnv(TASKS).tasks[0]
    encode(task.video, tmp_path / "clip.mp4")
    row = {"task_id": "mine", "video": "clip.mp4", "question": "Which?", "kind": "open", "answer": "x"}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row) + "\n")
    where = {"tasks": str(tmp_path / "tasks.jsonl"), "video_root": str(tmp_path)}
    env, shown = gymnasium.make("videogym/VideoQA-v0", **where), []

    def act(collector):
        """Whole frames, then a part of them, then the answer."""
        state, number = env.unwrapped.state, len(env.unwrapped.state.turns)
        region = state.clips[-1].region
        shown.append(
            env.unwrapped.store.frames(
                state.task.video,
                state.clips[-1].times_s,
                size=(56, 32),
                region=region.as_tuple() if region else None,
            ).pixels
        )
        asked = (0, 0, 1, 1) if number == 0 else (0.25, 0.1, 0.7, 0.9)
        look = {"kind": 0, "segment": np.array([0.2, 0.3]) * (number + 1), "region": np.float32(asked)}
        return {**structured(collector), **(look if number < 3 else {"kind": 1, "answer": "a circle"})}

    dataset, _ = collect(env, act, 1)
    stored = dataset[0].observations
    assert not any(getattr(values, "dtype", None) == np.uint8 for values in stored.values())
    assert len(shown) == 4 == len(dataset[0])
    with FrameStore(video_root=tmp_path) as store:
        for step, pixels in enumerate(shown):
            mask = stored["clip_mask"][step].astype(bool)
            times, (region,) = (
                stored["clip_times_s"][step][mask],
                set(map(tuple, stored["clip_regions"][step][mask])),
            )
            again = store.frames(
                stored["video"][step],
                times.tolist(),
                size=(56, 32),
                region=None if region == WHOLE_FRAME else tuple(map(float, region)),
            ).pixels
            assert np.array_equal(again, pixels), f"other frames at step {step}"


def test_the_stored_space_of_texts_is_gymnasiums(tmp_path):
    """A limit: Minari writes our text space down as Gymnasium's, which knows the letters that we sample.

    Texts come back whole; only ``observation_space.contains`` of the data set says otherwise.
    """
    row = {"task_id": "a", "question": "Où est le café ?", "kind": "open", "answer": "x"}
    row["video"] = "synthetic:brief_event?level=0&duration_s=60&seed=3&size=64x36"
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    env = gymnasium.make("videogym/VideoQA-v0", tasks=str(tmp_path / "tasks.jsonl"))
    dataset, _ = collect(env, structured, 1)
    assert dataset[0].observations["question"][0] == "Où est le café ?"
    assert env.observation_space["question"].contains("Où est le café ?")
    assert type(dataset.observation_space["question"]) is gymnasium.spaces.Text
    assert not dataset.observation_space["question"].contains("Où est le café ?")


def test_a_file_of_references_is_small():
    """A twentieth of the pixels it stands for, at most; they would not compress by that much."""
    env = gymnasium.make("videogym/VideoQA-v0", tasks=TASKS)
    dataset, _ = collect(env, structured, 20)
    size = sum(file.stat().st_size for file in Path(dataset.storage.data_path).iterdir())
    frames = sum(int(episode.observations["clip_mask"].sum()) for episode in dataset)
    assert size < frames * 224 * 224 * 3 / 20, f"{size} bytes for {frames} frames"
