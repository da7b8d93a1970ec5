"""Gymnasium's own vectors and video recorder, by the ids that a user writes."""

# ruff: noqa: D103

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordVideo

from videogym import Answer, Crop, DiscreteActions, TextActions
from videogym.rendering import HEIGHT, WIDTH
from videogym.testing.env_suite import same
from videogym.video import open_video

TASKS = "procedural:brief_event?level=0&duration_s=60&count=20&size=64x36"
ID = "videogym:videogym/VideoQA-v0"  # with the prefix, spawned workers import videogym themselves


def vector(mode, **changes):
    arguments = {"num_envs": 3, "tasks": TASKS, "wrappers": (DiscreteActions,), **changes}
    return gymnasium.make_vec(ID, vectorization_mode=mode, **arguments)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"vector_kwargs": {"context": "spawn"}},
        {"vector_kwargs": {"shared_memory": False}},
        {"observe": "pixels", "frame_size": (16, 9)},
        {"wrappers": (TextActions,)},
    ],
    ids=["forked", "spawned", "piped", "pixels", "text"],
)
def test_workers_play_what_one_process_plays(how):
    """Every value of every batch, over the ends of episodes and the resets that follow them."""
    alone = {key: value for key, value in how.items() if key != "vector_kwargs"}
    sync, parallel = vector("sync", **alone), vector("async", **how)
    try:
        sync.action_space.seed(0)
        assert same(sync.reset(seed=5), parallel.reset(seed=5))
        ended = 0
        for step in range(7):
            action = sync.action_space.sample()
            one, other = sync.step(action), parallel.step(action)
            assert same(one, other), f"the vectors differ at step {step}"
            ended += one[2].sum()
        assert ended, "no episode ended, so no reset was compared"
    finally:
        sync.close()
        parallel.close()


def test_rows_are_episodes_of_their_own():
    """Row i of a vector with seed s is the single environment with seed s + i."""
    rows = vector("sync")
    observations, infos = rows.reset(seed=7)
    for row in range(3):
        env = DiscreteActions(gymnasium.make(ID, tasks=TASKS))
        observation, info = env.reset(seed=7 + row)
        assert info["task_id"] == infos["task_id"][row]
        assert np.array_equal(observation["clip_times_s"], observations["clip_times_s"][row])
        assert observation["question"] == observations["question"][row]
    rows.close()


def test_without_autoreset_an_ended_row_waits_for_its_reset():
    """How loops over whole episodes want it: rows that go on are untouched by the reset of one."""
    rows = vector("sync", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED})
    rows.reset(seed=0)
    answer, look = 16, 0
    _, _, terminated, _, infos = rows.step(np.array([answer, look, look]))
    assert terminated.tolist() == [True, False, False]
    observations, _ = rows.reset(options={"reset_mask": terminated})
    assert observations["turn"].ravel().tolist() == [0, 1, 1]
    assert infos["ending"][0] == "answered"
    rows.close()


@pytest.mark.peers("moviepy")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:moviepy", "ignore::SyntaxWarning")
def test_a_recorded_episode_has_one_picture_for_each_state(tmp_path):
    """Two turns are three states; the file's frames are their pictures, but for compression."""
    env = gymnasium.make(ID, tasks=TASKS, render_mode="rgb_array", privileged=True)
    env = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    env.reset(seed=0)
    drawn = [env.unwrapped.render()]
    for action in (Crop(10.0, 20.0), Answer("A")):
        env.step(action)
        drawn.append(env.unwrapped.render())
    env.close()
    (file,) = (tmp_path / "videos").glob("*.mp4")
    with open_video(str(file)) as video:
        assert (video.meta.width, video.meta.height) == (WIDTH, HEIGHT)
        assert video.meta.avg_fps == 1.0, "a turn is shown for a second"
        frames = video.frames_at(video.pts_s).pixels
    assert len(frames) == 3
    distance = np.array([[np.abs(f.astype(int) - d).mean() for d in drawn] for f in frames])
    assert (distance.argmin(1) == [0, 1, 2]).all(), "frames are not in the order of the states"
    assert distance.diagonal().max() < 3.0, f"a frame is far from its picture: {distance}"


@pytest.mark.peers("moviepy")
def test_text_cannot_be_recorded(tmp_path):
    env = gymnasium.make(ID, tasks=TASKS, render_mode="ansi")
    with pytest.raises(ValueError, match="rgb_array"):
        RecordVideo(env, str(tmp_path))
