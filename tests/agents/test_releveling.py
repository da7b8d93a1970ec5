"""Turn rewards, the published gate and exploration bonuses: real episodes, cases by hand, recorded rows."""

# ruff: noqa: D103

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import assert_close, rounded
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.data import Binary, Composite, Unbounded
from torchrl.envs import Compose, EnvBase

from agents.training.advantage import BiLevelGAE
from agents.training.releveling import CodeGate, ExplorationBonus, TurnRewards
from videogym import Answer, Crop, RewardError, Select, Term, VideoQAEnv, get_recipe

TASKS = "procedural:brief_event?duration_s=60&count=8"
GOLDEN = Path(__file__).parents[1] / "golden" / "training" / "video_mtr_shaping_probe.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def batch_of(turn_rewards, looked=None, **terms):
    """Episodes of these turn rewards, padded; looks and terms are lists of the same lengths."""
    rows, turns = len(turn_rewards), max(map(len, turn_rewards))

    def padded(lists, filler, dtype):
        whole = [[*row, *[filler] * (turns - len(row))] for row in lists]
        return torch.tensor(whole, dtype=dtype)[..., None]

    waiting = padded([[False] * len(row) for row in turn_rewards], True, torch.bool)
    ended = padded([[False] * (len(row) - 1) + [True] for row in turn_rewards], False, torch.bool)
    following = {
        "reward": padded(turn_rewards, 0.0, torch.float32),
        "terminated": ended,
        "is_success": torch.zeros(rows, turns, 1),
        "looked": padded(looked or [[False] * len(row) for row in turn_rewards], False, torch.bool),
        "terms": {name: padded(lists, math.nan, torch.float32) for name, lists in terms.items()},
    }
    return TensorDict({"waiting": waiting, "next": following}, batch_size=(rows, turns))


def rewards_of(batch, digits=6):
    pairs = zip(batch["next", "reward"], batch["waiting"], strict=True)
    return [[round(r, digits) for r in reward[~waiting].tolist()] for reward, waiting in pairs]


def pay(name="x", gated="no", level="turn"):
    """A term of which only name and gate matter: the transform never calls it."""
    return Term(name, level, lambda before, after: 0.0, gated=gated)


# --- turn rewards ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_batch_with_a_reward_that_is_not_finite_is_refused(value):
    with pytest.raises(RewardError, match="the reward must be a finite number; it is not in row 1, turn 0"):
        TurnRewards([pay()])(batch_of([[1.0], [value, 2.0]], x=[[1.0], [1.0, 2.0]]))
    if math.isinf(value):
        with pytest.raises(RewardError, match=r"reward term 'x' must be a finite number; .* row 0, turn 1"):
            TurnRewards([pay()])(batch_of([[1.0, 1.0]], x=[[1.0, value]]))
    # NaN is a term that is absent, and what lies beyond the end is nobody's.
    batch = batch_of([[1.0], [1.0, 2.0]], x=[[math.nan], [1.0, 2.0]])
    batch["next", "reward"][0, 1] = value
    assert rewards_of(TurnRewards([pay()])(batch)) == [[0.0], [1.0, 2.0]]


def played(recipe, seeds, guess=0.5):
    """Random episodes of a real environment: rewards and terms as it reports them."""
    env = VideoQAEnv(TASKS, recipe)
    rewards, terms, success = [], {name: [] for name in env.recipe.term_names}, []
    for seed in seeds:
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        episode, terminated = [], False
        while not terminated:
            _, reward, terminated, _, info = env.step(random_action(env.state, rng, guess))
            episode.append((reward, {name: float(v) for name, v in info["reward_terms"].items()}))
        rewards.append([reward for reward, _ in episode])
        success.append(float(info["is_success"]))
        for name, lists in terms.items():
            lists.append([paid[name] for _, paid in episode])
    env.close()
    batch = batch_of(rewards, **terms)
    batch["next", "is_success"] += torch.tensor(success)[:, None, None]
    return batch, env.recipe.terms


def random_action(state, rng, guess):
    if rng.random() < 0.4:
        letter = state.task.answer if rng.random() < guess else rng.choice(list("ABCDE"))
        return Answer(str(letter))
    start_s, end_s = np.sort(rng.uniform(0, 60, 2))
    if rng.random() < 0.2:
        end_s = start_s - 1.0  # refused
    return (Select if "select" in state.rules.actions else Crop)(float(start_s), float(end_s))


@pytest.mark.parametrize("recipe", ["VIDEO_MTR/paper", "VIDEO_MTR/code", "DEFAULT", "LONGVT_TINY"])
def test_the_return_of_real_episodes_stays_what_it_was(recipe):
    paid, terms = played(recipe, range(40))
    turn_rewards = TurnRewards(terms)(paid)
    totals = [batch["next", "reward"].double().sum((1, 2)) for batch in (paid, turn_rewards)]
    assert_close(totals[1], totals[0])
    if "gate" in paid["next", "terms"].keys():
        taken_back = paid["next", "terms", "gate"].nan_to_num(0.0) != 0
        assert taken_back.any() and (paid["next", "is_success"] > 0).any()
        assert not torch.equal(turn_rewards["next", "reward"], paid["next", "reward"])
    else:
        assert_close(turn_rewards["next", "reward"], paid["next", "reward"])


# Format 0.1 a turn, gated before the last one; frames gated throughout; the answer at the end.
PAPER = get_recipe("VIDEO_MTR/paper").terms
GAE_KEYS = {"gamma_turn": 0.95, "lmbda_turn": 1.0, "lmbda_token": 1.0, "value_network": None}


def paper_batch(format, frame_gain, answer, gate):
    """One episode as the paper's recipe pays it."""
    terms = {"format": format, "frame_gain": frame_gain, "answer": answer, "gate": gate}
    rewards = np.nansum(list(terms.values()), 0).tolist()
    return batch_of([rewards], **{name: [values] for name, values in terms.items()})


def advantages(batch):
    batch.set("state_value", torch.zeros_like(batch["next", "reward"]))
    return BiLevelGAE(**GAE_KEYS)(batch)["advantage"].flatten().tolist()


NAN = math.nan


def test_a_right_answer_keeps_all():
    batch = TurnRewards(PAPER)(paper_batch([0.1, 0.1], [0.5, NAN], answer=[NAN, 1.0], gate=[NAN, 0.0]))
    assert rewards_of(batch) == [[0.6, 1.1]]
    assert advantages(batch) == pytest.approx([0.6 + 0.95 * 1.1, 1.1])


def test_never_answering_leaves_the_last_turns_format():
    # Three looks and no answer: 0.1 + 0.5, 0.1 - 0.2 and 0.1 were paid, 0.2 + 0.3 taken back.
    paid = paper_batch([0.1] * 3, [0.5, -0.2, 0.0], answer=[NAN, NAN, 0.0], gate=[NAN, NAN, -0.5])
    assert rewards_of(paid) == [[0.6, -0.1, -0.4]]
    batch = TurnRewards(PAPER)(paid)
    assert rewards_of(batch) == [[0.0, 0.0, 0.1]]
    assert advantages(batch) == pytest.approx([0.95**2 * 0.1, 0.95 * 0.1, 0.1])


def test_refusing_to_look_pays_the_answer_only():
    right = TurnRewards(PAPER)(paper_batch([0.1], [NAN], answer=[1.0], gate=[0.0]))
    wrong = TurnRewards(PAPER)(paper_batch([0.1], [NAN], answer=[0.0], gate=[0.0]))
    assert rewards_of(right) == [[1.1]] and rewards_of(wrong) == [[0.1]]
    assert advantages(right) == pytest.approx([1.1])


def test_running_out_of_turns_is_an_end_for_the_critic_too():
    batch = TurnRewards(PAPER)(
        paper_batch([0.1] * 3, [0.5, 0.5, 0.5], answer=[NAN, NAN, 0.0], gate=[NAN, NAN, -1.7])
    )
    batch.set("state_value", torch.full((1, 3, 1), 100.0))
    out = BiLevelGAE(**GAE_KEYS)(batch)
    assert out["value_target"].flatten().tolist() == rounded([0.09025, 0.095, 0.1], of=100.0)


def test_each_kind_of_gate_by_hand():
    terms = (pay("free"), pay("all", "all"), pay("early", "before_last"), pay("answer", level="trajectory"))
    columns = {"free": [1.0, 2.0], "all": [4.0, 8.0], "early": [16.0, 32.0], "answer": [NAN, 0.0]}
    wrong = batch_of([[21.0, 14.0]], **{name: [column] for name, column in columns.items()})
    assert rewards_of(TurnRewards(terms)(wrong)) == [[1.0, 34.0]]
    assert rewards_of(TurnRewards(terms, gate=False)(wrong)) == [[21.0, 42.0]]
    right = wrong.clone()
    right["next", "terms", "answer"][0, 1] = 0.25
    assert rewards_of(TurnRewards(terms)(right)) == [[21.0, 42.25]]


def test_what_is_right_with_and_without_an_answer_term():
    without = (pay("look", "all"),)
    batch = batch_of([[0.5, 0.5], [0.5]], look=[[0.5, 0.5], [0.5]])
    assert rewards_of(TurnRewards(without)(batch)) == [[0.0, 0.0], [0.0]]
    batch["next", "is_success"][0, 1] = 1.0
    batch["next", "is_success"][1, 1] = 1.0  # a turn that does not exist
    assert rewards_of(TurnRewards(without)(batch)) == [[0.5, 0.5], [0.0]]
    # What the term says at the last turn comes before success.
    batch["next", "terms", "answer"] = torch.tensor([[NAN, 0.0], [0.25, NAN]])[..., None]
    with_answer = (*without, pay("answer", level="trajectory"))
    assert rewards_of(TurnRewards(with_answer)(batch)) == [[0.0, 0.0], [0.75]]


def test_episodes_whose_answer_was_not_judged_are_dropped():
    terms = (pay("look", "all"), pay("answer", level="trajectory"))
    rewards = [[0.5, 1.5], [0.5, 0.5], [0.5]]
    looks, answers = [[0.5, 0.5], [0.5, 0.5], [0.5]], [[NAN, 1.0], [NAN, NAN], [0.0]]
    batch = batch_of(rewards, look=looks, answer=answers)
    batch["next", "is_success"][1] = 1.0  # an exact match says nothing of what the judge would have said
    kept = TurnRewards(terms)(batch)
    assert kept.batch_size == (2, 2) and rewards_of(kept) == [[0.5, 1.5], [0.0]]
    with pytest.raises(ValueError, match="the judge abstained from the answers of all 1 episodes"):
        TurnRewards(terms)(batch[1:2])


def test_inputs_are_left_alone():
    # One turn in three looks: each of the three changes something.
    batch = batch_of([[0.6, 0.1], [0.1]], looked=[[True, False], [False]], x=[[0.6, 0.1], [0.1]])
    for transform in (TurnRewards([pay(gated="all")]), CodeGate(), ExplorationBonus("paper")):
        assert rewards_of(transform(batch)) != [[0.6, 0.1], [0.1]], transform
        assert rewards_of(batch) == [[0.6, 0.1], [0.1]], transform
        assert "bonus" not in batch["next"].keys()


def test_rows_that_were_cut_are_dropped():
    batch = batch_of([[1.0, 1.0], [2.0], [3.0, 3.0]], x=[[1.0, 1.0], [2.0], [3.0, 3.0]])
    batch["next", "terminated"][0] = False  # cut
    batch["waiting"][2] = True  # never played
    before = batch.clone()
    kept = TurnRewards([pay()])(batch)
    assert kept.batch_size == (1, 2) and rewards_of(kept) == [[2.0]]
    assert batch.batch_size == (3, 2)
    batch["next", "terminated"][1] = False
    with pytest.raises(ValueError, match="none of the 3 rows is a whole episode"):
        TurnRewards([pay()])(batch)
    with pytest.raises(ValueError, match=r"terms are \['y'\], got \['x'\]"):
        TurnRewards([pay("y")])(before)
    with pytest.raises(ValueError, match=r"must be \(episodes, turns\), got \(2,\)"):
        TurnRewards([pay()])(before[0])


def test_without_waiting_every_turn_exists():
    batch = batch_of([[1.0, 2.0]], x=[[1.0, 2.0]]).exclude("waiting")
    assert TurnRewards([pay()])(batch)["next", "reward"].flatten().tolist() == [1.0, 2.0]


# --- the published shaping ---------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_recorded_rows(row):
    gated = CodeGate()(batch_of(row["turn_rewards_in"]))
    assert rewards_of(gated, 5) == row["after_answer_gate"]
    assert rewards_of(ExplorationBonus("code")(gated), 5) == row["after_bootstrapping"]


def test_the_code_gate_by_hand():
    # The last positive turn decides, at 0.5 exactly too; padding with rewards in it does not exist.
    batch = batch_of([[0.6, 0.7, 0.1], [0.6, 0.5], [0.6, 0.0], [0.5, 0.1], [0.6, 0.1, 0.0]])
    batch["next", "reward"][batch["waiting"]] = 9.0
    expected = [[0.1, 0.2, 0.1], [0.6, 0.5], [0.6, 0.0], [0.5, 0.1], [0.1, 0.1, 0.0]]
    assert rewards_of(CodeGate()(batch)) == expected


def test_gate_and_bonus_in_both_orders():
    # A wrong answer after a good look, among three episodes that do not look: rate 1/4, bonus 0.5.
    batch = batch_of([[1.1], [1.1], [1.1], [0.6, 0.1]])
    gate_first = Compose(CodeGate(), ExplorationBonus("code"))(batch)
    assert rewards_of(gate_first)[3] == [0.6, 0.1]
    bonus_first = Compose(ExplorationBonus("code"), CodeGate())(batch)
    assert rewards_of(bonus_first)[3] == [0.6, 0.1]  # 1.1 less the gate's 0.5
    # They differ where a look alone would not have been gated: 0.1 + 0.5 = 0.6 is above 0.5.
    batch = batch_of([[1.1], [1.1], [1.1], [0.1, 0.1]])
    assert rewards_of(Compose(CodeGate(), ExplorationBonus("code"))(batch))[3] == [0.6, 0.1]
    assert rewards_of(Compose(ExplorationBonus("code"), CodeGate())(batch))[3] == [0.1, 0.1]


def test_the_papers_gate_and_bonus_in_both_orders():
    # Of four turns one looks: rate 0.25. That episode's answer is wrong.
    terms = (pay("look", "all"), pay("answer", level="trajectory"))
    batch = batch_of(
        [[0.5, 0.0], [1.0], [1.0]],
        looked=[[True, False], [False], [False]],
        look=[[0.5, NAN], [NAN], [NAN]],
        answer=[[NAN, 0.0], [1.0], [1.0]],
    )
    after = Compose(TurnRewards(terms), ExplorationBonus())(batch)
    assert rewards_of(after) == [[0.5, 0.0], [1.0], [1.0]]
    assert after["next", "bonus"].flatten().tolist() == [0.5, 0, 0, 0, 0, 0]
    before = Compose(ExplorationBonus(), TurnRewards(terms))(batch)
    assert rewards_of(before) == [[0.0, 0.0], [1.0], [1.0]]
    assert not before["next", "bonus"].any()
    before = Compose(ExplorationBonus(), TurnRewards(terms, gate=False))(batch)
    assert rewards_of(before) == [[1.0, 0.0], [1.0], [1.0]]


# --- bonuses -----------------------------------------------------------------------------------


def turns_of_which(looks, turns):
    """One batch of single turns."""
    return batch_of([[0.0]] * turns, looked=[[i < looks] for i in range(turns)])


@pytest.mark.parametrize(
    ("looks", "turns", "rate", "bonus"),
    [(0, 10, 0.0, 0.0), (1, 11, 1 / 11, 1.0), (1, 10, 0.1, 0.5), (4, 10, 0.4, 0.5), (5, 10, 0.5, 0.0)],
)
def test_the_papers_bonus_goes_to_turns_that_look(looks, turns, rate, bonus):
    transform = ExplorationBonus("paper")
    batch = transform(turns_of_which(looks, turns))
    assert transform.rate.item() == rate
    assert rewards_of(batch) == [[bonus]] * looks + [[0.0]] * (turns - looks)
    assert torch.equal(batch["next", "bonus"], batch["next", "reward"])


def test_waiting_turns_count_for_no_rate():
    batch = batch_of([[0.0, 0.0], [0.0]], looked=[[True, False], [False]])
    batch["next", "looked"][1, 1] = True
    transform = ExplorationBonus("paper")
    assert rewards_of(transform(batch)) == [[0.5, 0.0], [0.0]]
    assert transform.rate.item() == pytest.approx(1 / 3)
    batch["next", "reward"][1, 1] = 9.0
    transform = ExplorationBonus("code")
    assert transform(batch)["next", "reward"][1, 1] == 9.0
    assert transform.rate.item() == 0.0


@pytest.mark.parametrize(
    ("multi", "single", "rate", "bonus"),
    [(1, 1, 0.5, 0.0), (1, 9, 0.1, 0.5), (1, 10, 1 / 11, 1.0), (1, 0, 1.0, 0.0)],
)
def test_the_codes_bonus_goes_to_positive_turns_but_the_last(multi, single, rate, bonus):
    transform = ExplorationBonus("code")
    # An episode with no positive turn does not count, nor does it matter who looked.
    batch = batch_of([[0.1, 0.0, 0.1, 1.0]] * multi + [[0.0, 1.1]] * single + [[0.0]])
    assert rewards_of(transform(batch)) == [
        *[[round(0.1 + bonus, 6), 0.0, round(0.1 + bonus, 6), 1.0]] * multi,
        *[[0.0, 1.1]] * single,
        [0.0],
    ]
    assert transform.rate.item() == rate


def test_other_thresholds_and_bonuses():
    transform = ExplorationBonus("paper", thresholds=(0.3, 0.8), bonuses=(3.0, 2.0))
    assert [rewards_of(transform(turns_of_which(looks, 10)))[0][0] for looks in (2, 3, 7, 8)] == [
        3,
        2,
        2,
        0,
    ]


def test_switching_off_is_permanent_and_saved():
    transform = ExplorationBonus("paper", patience=2)

    def bonus(looks, used):
        return rewards_of(used(turns_of_which(looks, 10)))[0][0]

    # Above, exactly at the threshold (which breaks the row), above: still on.
    assert [bonus(looks, transform) for looks in (6, 5, 6, 2)] == [0.0, 0.0, 0.0, 0.5]
    assert bonus(6, transform) == 0.0
    halfway = ExplorationBonus("paper", patience=2)
    halfway.load_state_dict(transform.state_dict())
    for used in (transform, halfway):
        assert bonus(9, used) == 0.0
        assert used.off and [bonus(looks, used) for looks in (2, 1, 1)] == [0.0] * 3
    resumed = Compose(ExplorationBonus("paper", patience=2))
    resumed.load_state_dict(Compose(transform).state_dict())
    assert bonus(1, resumed) == 0.0
    assert resumed[0].rate.item() == 0.1


def test_it_stays_on_without_patience_and_as_published():
    for transform in (ExplorationBonus("paper", patience=None), ExplorationBonus("code", patience=1)):
        for _ in range(10):
            high = batch_of([[0.1, 1.0]], looked=[[True, True]])
            assert not transform(high)["next", "bonus"].any()
        low = batch_of([[0.1, 1.0], *[[1.0]] * 3], looked=[[True, False], *[[False]] * 3])
        assert transform(low)["next", "bonus"].sum() == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"definition": "mine"}, "definition must be one of"),
        ({"thresholds": (0.5, 0.1)}, "thresholds must ascend"),
        ({"patience": 0}, "patience must be None or at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExplorationBonus(**arguments)


# --- in a collector ----------------------------------------------------------------------------


class Stub(EnvBase):
    """Four episodes side by side that look, look again and answer; the last of them wrongly."""

    def __init__(self):
        super().__init__(batch_size=(4,))
        flag, number = Binary(1, (4, 1), dtype=torch.bool), Unbounded((4, 1))
        self.observation_spec = Composite(
            turn=Unbounded((4, 1), dtype=torch.int64),
            is_success=number.clone(),
            looked=flag.clone(),
            terms=Composite(look=number.clone(), answer=number.clone(), gate=number.clone(), shape=(4,)),
            shape=(4,),
        )
        self.action_spec, self.reward_spec = Unbounded((4, 1)), number.clone()

    def _observed(self, turn):
        turns = torch.full((4, 1), turn)
        right = torch.tensor([1.0, 1.0, 1.0, 0.0])[:, None]
        last = turns == 3
        terms = {
            "look": torch.where(last, NAN, 0.25),
            "answer": torch.where(last, right, NAN),
            "gate": torch.where(last, -0.5 * (1 - right), NAN),
        }
        out = {"turn": turns, "is_success": right * last, "looked": (turns > 0) & ~last, "terms": terms}
        out |= {"done": last, "terminated": last}
        return out, sum(term.nan_to_num(0.0) for term in terms.values())

    def _reset(self, tensordict=None, **_):
        return TensorDict(self._observed(0)[0], batch_size=(4,))

    def _step(self, tensordict):
        out, reward = self._observed(int(tensordict["turn"].max()) + 1)
        return TensorDict({**out, "reward": reward}, batch_size=(4,))

    def _set_seed(self, seed):
        pass


def test_as_what_a_collector_does_last():
    terms = (pay("look", "all"), pay("answer", level="trajectory"))
    bonus = ExplorationBonus("paper", thresholds=(0.1, 0.7))
    collector = Collector(
        Stub(), frames_per_batch=12, total_frames=36, postproc=Compose(TurnRewards(terms), bonus)
    )
    for batch in collector:
        assert batch["next", "reward"][..., 0].tolist() == [[0.75, 0.75, 1.0]] * 3 + [[0.5, 0.5, 0.0]]
    assert bonus.rate.item() == 2 / 3
    collector.shutdown()
