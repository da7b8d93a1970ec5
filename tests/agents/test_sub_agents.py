"""A policy that describes its own crops: with the same weights, without the question, untrained."""

# ruff: noqa: D103

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_chat import ANSWER, TASKS, crop, load, make_actor, plain_logits

from agents.policies import ActingConfig, LoadedPolicy, Speaking
from agents.train_grpo_mllm import Config
from agents.vlm.env import ChatEnv
from agents.vlm.records import Record
from agents.vlm.responder import SameWeights, context_of_prompt
from agents.vlm.rollouts import make_chat_env
from videogym import Term, VideoQAEnv, get_recipe
from videogym.responding import CompletenessVerifier, MultimodalPrompt
from videogym.rewards import Completeness

PARAVT = get_recipe("PARAVT/paper")
TOLD = replace(
    PARAVT,
    name="TOLD",
    rules=replace(PARAVT.rules, skim_frames=4, max_pixels=56 * 56),
    responder=SameWeights(max_new_tokens=8),
)


def called(env: ChatEnv, record: Record, text: str) -> Record:
    ids = [*env.chat.output_ids(text), env.chat.end_id]
    return env.advance(record.answered(ids, [0.0] * len(ids), [0] * len(ids)))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_policy_reads_what_its_own_weights_say_of_a_crop(
    checkpoints: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(checkpoints[family])
    seen: list[MultimodalPrompt] = []
    ask = SameWeights.__call__

    def watched(self: SameWeights, prompt: MultimodalPrompt) -> str:
        seen.append(prompt)
        return ask(self, prompt)

    monkeypatch.setattr(SameWeights, "__call__", watched)
    env = make_chat_env(Config.of(recipe=TOLD), model, TASKS, groups=1, group_size=2)
    (record, _) = [row["record"] for row in env.reset().unbind(0)]
    after = called(env, record, crop(5, 9))
    (result,) = env.env.state.turns[-1].results
    reply = after.turns[-1]
    assert result.reply and not reply.visuals  # a text came, and no frame
    said = env.chat.text_ids(result.reply)
    joined = ",".join(map(str, reply.observation))
    assert ",".join(map(str, said)) in joined
    assert after.turns[0].looked and called(env, after, ANSWER).ending == "answered"

    # By an independent forward pass: each id is the likeliest after those before it.
    (prompt,) = seen
    context = context_of_prompt(model, prompt)
    question = env.env.state.task.question
    assert question not in model.tokenizer.decode(context.ids)
    ids = list(context.ids)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(plain_logits(model, ids, context.visuals, 1.0)[-1].argmax()))
        if ids[-1] == model.end_id:
            break
    written = ids[len(context.ids) :]
    cut = "" if written[-1] == model.end_id else " [truncated]"
    text = model.tokenizer.decode([i for i in written if i != model.end_id], skip_special_tokens=False)
    assert result.reply == text + cut


def test_the_policy_is_asked_again_with_the_frames_it_retrieved(checkpoints: dict[str, Path]) -> None:
    verifier = CompletenessVerifier(SameWeights(max_new_tokens=4))
    terms = (*PARAVT.terms, Term("complete", "trajectory", Completeness()))
    recipe = replace(TOLD, responder=None, verifier=verifier, terms=terms)
    env = make_chat_env(
        Config.of(recipe=recipe), load(checkpoints["qwen2_5_vl"]), TASKS, groups=1, group_size=2
    )
    for look in (True, False):
        (record, _) = [row["record"] for row in env.reset().unbind(0)]
        record = called(env, record, crop(5, 9)) if look else record
        record = called(env, record, ANSWER)
        assert record.ending == "answered"
        assert isinstance(env.env.state.turns[-1].verifier_answer, str) == look
        assert (record.turns[-1].terms["complete"] is not None) == look


def test_a_trained_policy_describes_its_looks_when_it_is_played(checkpoints: dict[str, Path]) -> None:
    config = ActingConfig.of(recipe=TOLD)
    acting = Speaking(config, make_actor(load(checkpoints["qwen2_5_vl"])))
    env = LoadedPolicy(acting, config, {"config": {"eval_tasks": TASKS}}).make_env()
    env.reset(seed=0)
    env.step(crop(5, 9))
    assert env.unwrapped.state.turns[-1].results[0].reply  # type: ignore[attr-defined]


def test_it_follows_the_weights_and_needs_some(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    assert replace(TOLD, responder=SameWeights(max_new_tokens=9)).identity != TOLD.identity
    model = load(checkpoints["qwen2_5_vl"])
    bound = replace(TOLD, responder=SameWeights(8, model=model))
    assert bound.identity == TOLD.identity and bound == TOLD
    assert pickle.loads(pickle.dumps(bound)) == bound
    env = VideoQAEnv(TASKS, pickle.loads(pickle.dumps(bound)))
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="no model was given"):
        env.step(TOLD.language.parse(crop(5, 9), env.state))
    env = VideoQAEnv(TASKS, bound)
    texts = []
    for _ in range(2):
        env.reset(seed=0)
        env.step(bound.language.parse(crop(5, 9), env.state))
        texts.append(env.state.turns[-1].results[0].reply)
        with torch.no_grad():
            model.model.lm_head.weight.copy_(torch.roll(model.model.lm_head.weight, 7, 0))
    assert texts[0] != texts[1]
