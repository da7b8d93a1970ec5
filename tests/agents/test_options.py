"""Configs: a short list of own fields, groups of options for the rest, and one name for each option."""

# ruff: noqa: D103

import argparse
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest

from agents import (
    evaluate,
    train_grpo,
    train_grpo_mllm,
    train_ppo,
    train_ppo_mllm,
    train_rft,
    train_sft,
)
from agents.training.options import RENAMED, LoopConfig, add_options, from_options, groups_of, options_of

LOOPS = (train_ppo, train_grpo, train_sft, train_grpo_mllm, train_rft, train_ppo_mllm)
CONFIGS = [pytest.param(module.Config, id=module.__name__.partition(".")[2]) for module in LOOPS]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_has_about_twenty_fields_of_its_own(config: type[LoopConfig]) -> None:
    own = [one.name for one in fields(config) if one.name not in groups_of(config)]
    assert len(own) <= 22, f"{len(own)} fields; is there a group for {', '.join(own)}?"


@pytest.mark.parametrize("config", [*CONFIGS, pytest.param(evaluate.Config, id="evaluate")])
def test_an_option_is_in_one_place(config: type[LoopConfig]) -> None:
    names = [option.name for option in options_of(config)]
    assert len(names) == len(set(names)) and not set(names) & set(groups_of(config))
    assert not set(names) & set(RENAMED), "which the command takes for other options"


def test_options_are_set_by_their_names() -> None:
    config = train_ppo_mllm.Config.of(groups=3, temperature=0.5, device="cuda")
    assert (config.groups, config.sampling.temperature, config.model.device) == (3, 0.5, "cuda")
    # The others of a group are those of the loop, not of the group's own class.
    assert (config.sampling.window, config.sampling.max_new_tokens) == (2, 512)
    longer = config.with_options(max_new_tokens=7, seed=1)
    assert (longer.sampling.temperature, longer.sampling.max_new_tokens, longer.seed) == (0.5, 7, 1)
    assert config.sampling.max_new_tokens == 512
    with pytest.raises(FrozenInstanceError):
        config.sampling.window = 3  # type: ignore[misc]


def test_what_is_no_option_is_named() -> None:
    for make in (train_ppo.Config.of, train_ppo.Config().with_options):
        with pytest.raises(TypeError, match=r"no option 'entropy_coeff'; there are .*entropy_coef,"):
            make(entropy_coeff=0.1)


def test_a_group_is_checked_with_the_config() -> None:
    with pytest.raises(ValueError, match="max_concurrent_rollouts must be at least 0, got -1"):
        train_sft.Config.of(max_concurrent_rollouts=-1)


@pytest.mark.parametrize(
    ("config", "told", "name", "value"),
    [
        (train_ppo.Config, "minibatch=4", "mini_batch_size", 4),
        (train_ppo.Config, "entropy=0.5", "entropy_coef", 0.5),
        (train_ppo.Config, "lr=0.1", "learning_rate", 0.1),
        (train_grpo_mllm.Config, "minibatch-groups=2", "mini_batch_groups", 2),
        (train_sft.Config, "vision-lr=0.1", "vision_lr_mult", 0.1),
        (train_sft.Config, "at-once=3", "micro_batch_size", 3),
        (train_sft.Config, "rollouts-at-once=5", "max_concurrent_rollouts", 5),
        (train_ppo_mllm.Config, "critic=0.25", "vf_coef", 0.25),
    ],
)
def test_earlier_names_of_options_are_read(
    config: type[LoopConfig], told: str, name: str, value: float
) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, config)
    read = from_options(config, vars(parser.parse_args([f"--{told}"])))
    assert {option.name: option.of(read) for option in options_of(config)}[name] == value
    assert f"--{told.partition('=')[0]} " not in parser.format_help(), "only the new name is shown"
    assert from_options(config, vars(parser.parse_args([]))) == config(), "defaults are the config's"


def test_a_group_of_ones_own_is_read_too() -> None:
    @dataclass(frozen=True)
    class Schedule:
        """How the learning rate falls."""

        half_life: int = 5
        """Iterations in which it halves."""

    @dataclass(frozen=True)
    class Own(LoopConfig):
        schedule: Schedule = Schedule()
        """How the learning rate falls."""

    parser = argparse.ArgumentParser()
    add_options(parser, Own)
    told = " ".join(parser.format_help().split())
    assert "schedule: How the learning rate falls. --half-life N Iterations in which it halves" in told
    assert from_options(Own, vars(parser.parse_args(["--half-life", "9"]))).schedule == Schedule(9)
