"""What language models are trained on unless something else is named."""

from agents.train_ppo_mllm import Config as PPO
from agents.train_sft import Config as SFT
from agents.vlm.config import TASKS
from videogym import VideoQAEnv
from videogym.evaluate import hits


def test_a_look_is_needed() -> None:
    """No skim of a tiny recipe meets the evidence, so that demonstrations look and looks can pay."""
    for recipe in (SFT().recipe, PPO().recipe, "VIDEO_MTR_TINY"):
        env = VideoQAEnv(TASKS.format(count=40, split="train"), recipe)
        for task in env.tasks:
            env.reset(options={"task_id": task.task_id})
            assert hits(task, env.state.clips) is False, (recipe, task.task_id)
