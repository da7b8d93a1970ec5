"""Bi-level advantages against plain loops, TorchRL's GAE, closed forms and the recorded rows."""

# ruff: noqa: D103

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from rounding import assert_close
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from torchrl.objectives.value.functional import generalized_advantage_estimate

from agents.training.advantage import BiLevelGAE, bilevel_gae, masked_moments, whiten

GOLDEN = Path(__file__).parents[1] / "golden" / "training" / "video_mtr_gae_probe.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
PLAIN = {"gamma_turn": 1.0, "lmbda_turn": 1.0, "lmbda_token": 1.0}


def by_loops(reward, value, mask, turn_end, gamma_turn, gamma_token, lmbda_turn, lmbda_token):
    """The published arithmetic as it is written: a loop over samples, turns and tokens."""
    advantage, value_target = torch.zeros_like(value), torch.zeros_like(value)
    for b in range(len(value)):
        ends = [t for t in range(value.shape[1]) if mask[b, t] and turn_end[b, t]]
        later_value = later_advantage = 0.0
        for e in reversed(ends):
            delta = reward[b, e] + gamma_turn * later_value - value[b, e]
            advantage[b, e] = delta + gamma_turn * lmbda_turn * later_advantage
            later_value, later_advantage = value[b, e], advantage[b, e]
        begin = 0
        for e in ends:
            after = e
            for t in reversed(range(begin, e)):
                if mask[b, t]:
                    delta = reward[b, t] + gamma_token * value[b, after] - value[b, t]
                    advantage[b, t] = delta + gamma_token * lmbda_token * advantage[b, after]
                    after = t
            for t in range(begin, e + 1):
                if mask[b, t]:
                    value_target[b, t] = advantage[b, t] + value[b, t]
            begin = e + 1
    return advantage, value_target


def random_batch(seed, rows=3, length=24, masked=0.6, ending=0.3):
    generator = torch.Generator().manual_seed(seed)
    reward, value = torch.randn(2, rows, length, dtype=torch.float64, generator=generator)
    mask, turn_end = torch.rand(2, rows, length, generator=generator)
    return reward, value, mask < masked, turn_end < ending


DISCOUNT = st.sampled_from([0.0, 1.0, 0.95]) | st.floats(0.0, 1.0)
SHARE = st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0)


@given(
    st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 33), SHARE, SHARE, st.tuples(*[DISCOUNT] * 4)
)
def test_equals_the_loops(seed, rows, length, masked, ending, discounts):
    batch = random_batch(seed, rows, length, masked, ending)
    names = ("gamma_turn", "gamma_token", "lmbda_turn", "lmbda_token")
    given_discounts = dict(zip(names, discounts, strict=True))
    for actual, expected in zip(
        bilevel_gae(*batch, **given_discounts), by_loops(*batch, **given_discounts), strict=True
    ):
        torch.testing.assert_close(actual, expected)  # both in float64


@given(st.integers(0, 2**31), st.integers(1, 20), DISCOUNT, DISCOUNT)
def test_one_token_a_turn_is_plain_gae(seed, turns, gamma, lmbda):
    reward, value, _, _ = random_batch(seed, 2, turns)
    all_of_them = torch.ones(2, turns, dtype=torch.bool)
    # What is discounted inside a turn does not matter where a turn has one token.
    actual = bilevel_gae(
        reward,
        value,
        all_of_them,
        all_of_them,
        gamma_turn=gamma,
        gamma_token=0.3,
        lmbda_turn=lmbda,
        lmbda_token=0.1,
    )
    end = torch.zeros(2, turns, 1, dtype=torch.bool)
    end[:, -1] = True
    later = torch.cat((value[:, 1:], torch.full((2, 1), 100.0)), 1)[..., None]
    expected = generalized_advantage_estimate(
        gamma, lmbda, value[..., None], later, reward[..., None], done=end, terminated=end
    )
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs[..., 0])  # TorchRL's discounts are float32


@given(st.integers(0, 2**31))
def test_without_discounts_it_is_what_is_still_to_come_less_the_value(seed):
    reward, value, mask, turn_end = random_batch(seed)
    ends = mask & turn_end
    advantage, value_target = bilevel_gae(reward * ends, value, mask, turn_end, **PLAIN)
    to_come = (reward * ends).flip(1).cumsum(1).flip(1)
    last_end = torch.where(ends, torch.arange(24), -1).max(1, keepdim=True).values
    counts = mask & (torch.arange(24) <= last_end)
    torch.testing.assert_close(advantage, torch.where(counts, to_come - value, 0.0))
    torch.testing.assert_close(value_target, torch.where(counts, to_come, 0.0))


def test_a_reward_inside_a_turn_stays_in_it():
    # Such as a penalty per token: the pass over turns reads turn ends only, as published.
    reward, everywhere = torch.tensor([[0.0, 0.0, -1.0, 2.0]]), torch.ones(1, 4, dtype=torch.bool)
    turn_end = torch.tensor([[False, True, False, True]])
    advantage, _ = bilevel_gae(reward, torch.zeros(1, 4), everywhere, turn_end, **PLAIN)
    assert advantage.tolist() == [[2.0, 2.0, 1.0, 2.0]]


@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e9, float("nan"), float("inf")]))
def test_observation_tokens_change_nothing(seed, rubbish):
    reward, value, mask, turn_end = random_batch(seed)
    discounts = {"gamma_turn": 0.9, "gamma_token": 0.99, "lmbda_turn": 0.8, "lmbda_token": 0.95}
    clean = bilevel_gae(reward, value, mask, turn_end, **discounts)
    dirty = bilevel_gae(
        torch.where(mask, reward, rubbish),
        torch.where(mask, value, rubbish),
        mask,
        turn_end | ~mask,
        **discounts,
    )
    for before, after in zip(clean, dirty, strict=True):
        assert torch.equal(before, after)
        assert (after[~mask] == 0).all()


def test_a_critic_that_says_100_everywhere_is_never_bootstrapped_from_past_the_end():
    # Two turns, rewards 0.5 and 1; the second row never finishes its second turn.
    mask = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 1, 0, 1, 1, 0]], dtype=torch.bool)
    turn_end = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]], dtype=torch.bool)
    reward = torch.tensor([[0, 0.5, 0, 0, 1, 0], [0, 0.5, 0, 0, 0, 0]])
    advantage, value_target = bilevel_gae(reward, torch.full_like(reward, 100.0), mask, turn_end, **PLAIN)
    assert value_target.tolist() == [[1.5, 1.5, 0, 1, 1, 0], [0.5, 0.5, 0, 0, 0, 0]]
    assert advantage.tolist() == [[-98.5, -98.5, 0, -99, -99, 0], [-99.5, -99.5, 0, 0, 0, 0]]
    # With lambda 0 an earlier turn sees the critic, the last one still does not.
    one_step = {"gamma_turn": 0.5, "lmbda_turn": 0.0, "lmbda_token": 0.0}
    _, value_target = bilevel_gae(reward, torch.full_like(reward, 100.0), mask, turn_end, **one_step)
    assert value_target.tolist() == [[100, 50.5, 0, 100, 1, 0], [100, 0.5, 0, 0, 0, 0]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_recorded_rows(row):
    tensors = [torch.tensor(row[name]) for name in ("token_level_rewards", "values")]
    mask, turn_end = (torch.tensor(row[name]) > 0 for name in ("loss_mask", "reward_mask"))
    advantage, value_target = bilevel_gae(
        *tensors,
        mask,
        turn_end,
        gamma_turn=row["high_level_gamma"],
        gamma_token=row["gamma"],
        lmbda_turn=row["lam"],
        lmbda_token=row["lam"],
    )
    assert_close(advantage, torch.tensor(row["raw_advantages"]))
    assert_close(value_target, torch.tensor(row["returns"]))
    recorded = torch.tensor(row["whitened_advantages"])
    assert_close(whiten(advantage, mask), torch.where(mask, recorded, 0.0))


def test_whitening_by_hand():
    # Mean 2, unbiased variance 2, the 100 is not counted.
    whitened = whiten(torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False]))
    torch.testing.assert_close(whitened, torch.tensor([-(0.5**0.5), 0.5**0.5, 0.0]))
    constant = whiten(torch.tensor([4.0, 4.0]), torch.tensor([True, True]))
    assert constant.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="at least 2 elements under the mask, got 1"):
        masked_moments(torch.tensor([1.0, 3.0]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"got \(2,\) and mask \(1,\)"):
        masked_moments(torch.tensor([1.0, 3.0]), torch.tensor([True]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"value": torch.zeros(2, 3)},
            r"equal, got reward \(2, 4\), value \(2, 3\), mask",
        ),
        ({"mask": torch.ones(2, 4)}, "mask must be bool, got torch.float32"),
        ({"gamma_turn": 1.01}, r"gamma_turn must be in \[0, 1\], got 1.01"),
        ({"gamma_token": -0.1}, "gamma_token"),
        ({"lmbda_turn": float("nan")}, "lmbda_turn"),
        ({"lmbda_token": 2.0}, "lmbda_token"),
        (
            {"reward": torch.tensor([[0.0] * 4, [0, 0, float("nan"), 0]])},
            r"reward is nan in row \[1\], token 2",
        ),
        ({"value": torch.full((2, 4), float("inf"))}, r"value is inf in row \[0\], token 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    everywhere = torch.ones(2, 4, dtype=torch.bool)
    arguments = {"reward": torch.zeros(2, 4), "value": torch.zeros(2, 4)}
    arguments |= {"mask": everywhere, "turn_end": everywhere, **PLAIN, **changes}
    with pytest.raises(ValueError, match=message):
        bilevel_gae(**arguments)


def test_rows_without_tokens_and_other_batch_shapes():
    reward, value, mask, turn_end = random_batch(0, 4)
    mask[1] = False
    expected = by_loops(reward, value, mask, turn_end, 0.9, 1.0, 0.8, 0.7)
    assert (expected[0][1] == 0).all()
    discounts = {"gamma_turn": 0.9, "lmbda_turn": 0.8, "lmbda_token": 0.7}
    folded = bilevel_gae(*(x.reshape(2, 2, 24) for x in (reward, value, mask, turn_end)), **discounts)
    torch.testing.assert_close(folded[0].reshape(4, 24), expected[0])
    single = bilevel_gae(reward[0], value[0], mask[0], turn_end[0], **discounts)
    torch.testing.assert_close(single[1], expected[1][0])
    nothing = bilevel_gae(reward, value, mask & False, turn_end, **discounts)
    assert not nothing[0].any() and not nothing[1].any()


def test_gradients_reach_the_values():
    reward, value, mask, turn_end = random_batch(3, 2, 8)
    discounts = {"gamma_turn": 0.9, "gamma_token": 0.99, "lmbda_turn": 0.8, "lmbda_token": 0.95}
    assert torch.autograd.gradcheck(
        lambda v: bilevel_gae(reward, v, mask, turn_end, **discounts), value.requires_grad_()
    )


# --- in TorchRL --------------------------------------------------------------------------------


def critic():
    torch.manual_seed(0)
    return TensorDictModule(torch.nn.Linear(3, 1), in_keys=["seen"], out_keys=["state_value"])


def episodes(turns=(4, 2, 3)):
    """Whole episodes of these lengths, padded to 4."""
    generator = torch.Generator().manual_seed(1)
    rows = len(turns)
    waiting = (torch.arange(4) >= torch.tensor(turns)[:, None])[..., None]
    ended = (torch.arange(4) == torch.tensor(turns)[:, None] - 1)[..., None]
    return TensorDict(
        {
            "seen": torch.randn(rows, 4, 3, generator=generator),
            "waiting": waiting,
            "action": torch.zeros(rows, 4, dtype=torch.int64),
            "action_log_prob": torch.full((rows, 4), -0.7),
            "next": {
                "seen": torch.randn(rows, 4, 3, generator=generator),
                "reward": torch.randn(rows, 4, 1, generator=generator),
                "done": ended,
                "terminated": ended,
            },
        },
        batch_size=(rows, 4),
    )


def estimator(network=None, **changes):
    discounts = {"gamma_turn": 0.9, "lmbda_turn": 0.8, "lmbda_token": 0.7}
    return BiLevelGAE(value_network=network, **{**discounts, **changes})


def test_compact_policies_get_what_gae_gives_them():
    batch, network = episodes(), critic()
    # GAE takes the next value from the next observation: the same one here.
    batch["next", "seen"][:, :-1] = batch["seen"][:, 1:]
    theirs = GAE(gamma=0.9, lmbda=0.8, value_network=network)(batch.clone())
    ours = estimator(network)(batch.clone())
    played = ~batch["waiting"]
    for name in ("advantage", "value_target", "state_value"):
        assert ours[name].shape == (3, 4, 1)
        assert_close(ours[name][played], theirs[name][played])
    for name in ("advantage", "value_target"):
        assert (ours[name][~played] == 0).all()
        assert not ours[name].requires_grad


def test_masks_and_keys():
    batch, network = episodes(), critic()
    expected = estimator(network)(batch.clone())["advantage"]
    # A mask says the opposite of waiting and comes before it; with neither all steps count.
    masked = batch.clone().set("mask", ~batch["waiting"]).set("waiting", batch["waiting"] & False)
    assert_close(estimator(network)(masked)["advantage"], expected)
    full = batch.clone()[:1].exclude("waiting")
    assert_close(estimator(network)(full)["advantage"], expected[:1])
    # Under other names, with turns of two tokens.
    ends = torch.tensor([False, True]).repeat(2)[None, :, None]
    named = full.clone().set("last", ends).set("own", torch.ones_like(ends))
    module = estimator(network)
    module.set_keys(mask="own", turn_end="last", advantage="adv", value_target=("deep", "target"))
    out = module(named)
    loops = by_loops(
        named["next", "reward"][..., 0],
        named["state_value"][..., 0],
        named["own"][..., 0],
        ends[..., 0],
        *(0.9, 1.0, 0.8, 0.7),
    )
    assert_close(out["adv"][..., 0], loops[0])
    assert_close(out["deep", "target"][..., 0], loops[1])
    assert_close(module.value_estimate(named)[..., 0], loops[1])
    with pytest.raises(KeyError, match="nonsense"):
        module.set_keys(nonsense="x")


def test_averaging_leaves_out_padding():
    batch = episodes()
    raw = estimator(critic())(batch.clone())["advantage"]
    averaged = estimator(critic(), average=True)(batch.clone())["advantage"]
    played = ~batch["waiting"]
    chosen = raw[played]
    assert_close(averaged[played], (chosen - chosen.mean()) / chosen.std())
    assert (averaged[~played] == 0).all()


def test_values_that_are_there_and_values_that_are_missing():
    batch = episodes().set("state_value", torch.full((3, 4, 1), 100.0))
    target = estimator(None, lmbda_turn=1.0, gamma_turn=1.0)(batch)["value_target"]
    to_come = batch["next", "reward"].masked_fill(batch["waiting"], 0.0).flip(1).cumsum(1).flip(1)
    assert_close(target, to_come.masked_fill(batch["waiting"], 0.0), of=100.0)
    with pytest.raises(KeyError, match="state_value"):
        estimator(None)(episodes())
    with pytest.raises(ValueError, match=r"shapes must be equal, got reward \(3, 4, 1\)"):
        estimator(None)(episodes().set("state_value", torch.zeros(3, 4, 2)))
    with pytest.raises(ValueError, match="gamma_turn"):
        estimator(None, gamma_turn=2.0)


def test_differentiable_reaches_the_inputs_but_never_the_critic():
    batch, network = episodes(), critic()
    batch["seen"].requires_grad_()
    estimator(network, differentiable=True)(batch)["advantage"].sum().backward()
    assert batch["seen"].grad is not None
    assert network.module.weight.grad is None
    assert network.module.weight.requires_grad


def clip_ppo(network):
    actor = ProbabilisticActor(
        TensorDictModule(torch.nn.Linear(3, 5), in_keys=["seen"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        return_log_prob=True,
    )
    return ClipPPOLoss(actor, network)


def test_a_pipeline_with_clip_ppo():
    batch, network = episodes(), critic()
    loss_module = clip_ppo(network)
    batch = estimator(network, average=True)(batch)
    losses = loss_module(batch[~batch["waiting"][..., 0]])
    (losses["loss_objective"] + losses["loss_critic"]).backward()
    assert network.module.weight.grad.abs().sum() > 0
    played = batch[~batch["waiting"][..., 0]]
    expected = torch.nn.functional.smooth_l1_loss(played["state_value"], played["value_target"])
    assert_close(losses["loss_critic"].detach(), expected)


def test_a_loss_can_ask_for_advantages_itself():
    batch, network = episodes((4, 4, 4)), critic()
    given_them = clip_ppo(network)
    asking = clip_ppo(network)
    asking.load_state_dict(given_them.state_dict())
    asking.make_value_estimator(estimator(network))
    expected = given_them(estimator(network)(batch.clone()))
    actual = asking(batch.clone())
    for name in ("loss_objective", "loss_critic"):
        assert_close(actual[name], expected[name])
