"""Checkpoints with random weights whose tokenizers know the words of the episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videogym import Answer, VideoQAEnv
from videogym.grammars import get_grammar

from ..demonstrations.evidence import Demonstrator, ScriptedPolicy
from ..models.tiny_qwen import build_tiny_qwen
from ..training.staging import whole_folder
from .config import ChatConfig


def tiny_checkpoint(
    folder: Path, config: ChatConfig, script: ScriptedPolicy | None = None, **sizes: Any
) -> Path:
    """A checkpoint with random weights whose tokenizer knows the words of the configured episodes.

    Args:
        folder: where it is saved; one that is there is taken as it is.
        config: whose recipe and tasks give the words; its seed is that of the weights.
        script: demonstrates the episodes; None: `agents.demonstrations.evidence` does.
        sizes: see `agents.models.tiny_qwen.build_tiny_qwen`.
    """
    if not (folder / "config.json").exists():
        env = VideoQAEnv(config.tasks, config.rules, video_root=config.root)
        with whole_folder(folder) as unfinished:
            build_tiny_qwen(unfinished, corpus(env, script), seed=config.seed, **sizes)
    return folder


def corpus(env: VideoQAEnv, script: ScriptedPolicy | None = None, episodes: int = 64) -> list[str]:
    """Texts of some demonstrated episodes, and the whole numbers up to the length of a video."""
    grammar, texts = env.recipe.language, []
    speak = script or Demonstrator(get_grammar(env.recipe.grammar), seed=0)
    for seed in range(episodes):
        env.reset(seed=seed)
        if script is None and not env.state.task.evidence:  # nothing to demonstrate a look at
            env.step(Answer(env.state.task.answer))
        while not env.state.terminated:
            env.step(grammar.parse(speak(env.state).text, env.state))
        for message in grammar.messages(env.state):
            texts += [f"{message.role}\n", message.text]
        texts += [f" {number}" for number in range(round(env.state.video.duration_s) + 1)]
    return texts
