"""Which option an answer names and which texts are the same, and that accuracy and reward say one thing."""

# ruff: noqa: D103

import itertools
import string
from dataclasses import replace

import gymnasium
import pytest
from hand_episodes import Hand, choice
from hypothesis import given
from hypothesis import strategies as st

from videogym import DiscreteActions, RewardError, TextActions, VideoQAEnv, evaluate, get_recipe
from videogym.actions import Answer, Crop, Select
from videogym.answers import folded, letter_named, option_named, plain, same_text, with_plain_signs
from videogym.grammars import get_grammar
from videogym.rewards import AnswerTerm, Term, answered_right, judge_lenient, judge_letter
from videogym.state import Move

RECIPES = ("DEFAULT", "LONGVT/paper", "LONGVT/code", "VIDEO_MTR/paper", "VIDEO_MTR/code")


# Some drawn options do; that they are warned of is tested where tasks are.
labelled = pytest.mark.filterwarnings("ignore:options that begin with their letters")


def options(*texts, answer="A"):
    return choice(options=texts, answer=answer)


# --- which option ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations("ABCD")), ids="".join)
@pytest.mark.parametrize("form", ["{}", " {} ", "{}.", "({})", "{})", "{}:"])
def test_of_options_that_are_letters_exactly_the_right_letter_is_right(order, form):
    for truth in "ABCD":
        task = options(*order, answer=truth)
        right = [letter for letter in "ABCD" if judge_lenient(task, form.format(letter)) > 0]
        assert right == [truth]
        assert [letter for letter in "abcd" if judge_lenient(task, form.format(letter)) > 0] == [
            truth.lower()
        ]


@labelled
@given(st.data())
def test_an_existing_letter_is_that_letter_whatever_the_options_say(data):
    marks = st.sampled_from(["{}", "{}.", "({})", "{})", "{}. x", " {}"])
    texts = st.builds(str.format, marks, st.sampled_from("ABCDEFabcdef"))
    task = options(*data.draw(st.lists(texts, min_size=2, max_size=6)))
    for letter in string.ascii_letters:
        expected = letter.upper() if letter.upper() in task.letters else None
        assert letter_named(task, letter) == expected
        if expected is not None:
            assert option_named(task, letter) == expected


words = st.text(alphabet="aAbB12²₂½.–-() é", min_size=1, max_size=6)


@labelled
@given(st.lists(words, min_size=2, max_size=5), words)
def test_an_answer_names_one_option_at_most_and_every_unlike_text_names_its_own(texts, answer):
    task = options(*texts)
    named = option_named(task, answer)
    paid = [judge_lenient(replace(task, answer=letter), answer) for letter in task.letters]
    assert sum(paid) <= 1
    assert [letter for letter, value in zip(task.letters, paid, strict=True) if value] == [
        letter for letter in task.letters if letter == named
    ]
    for letter, labelled in zip(task.letters, task.labelled_options, strict=True):
        assert option_named(task, letter) == letter
        if task.options[task.letters.index(letter)].strip(" ."):
            assert option_named(task, labelled) == letter


@given(words, words)
def test_sameness_is_symmetric_and_needs_a_text(left, right):
    assert same_text(left, right) == same_text(right, left) == (folded(left) == folded(right) != "")
    assert not same_text("", left) and not same_text(" ", left)
    assert plain(plain(left)) == plain(left) and folded(folded(left)) == folded(left)


@pytest.mark.parametrize(
    ("texts", "answer", "named"),
    [
        (("a red flag", "Blue."), "a red flag.", "A"),
        (("a red flag", "Blue."), "BLUE", "B"),
        (("a red flag", "Blue."), "B. blue", "B"),
        (("a red flag", "Blue."), "(B) Blue.", "B"),
        (("a red flag", "Blue."), "B. a red flag", None),  # it contradicts itself
        (("a red flag", "Blue."), "A, B", None),
        (("a red flag", "Blue."), "", None),
        (("E", "F"), "E", "A"),  # no such letter, so it is a text
        (("102", "10²", "20"), "102", "A"),
        (("102", "10²", "20"), "10²", "B"),
        (("H2O", "H₂O"), "H2O", "A"),
        (("½", "1⁄2", "12"), "½", "A"),
        (("①", "1"), "1", "B"),
        (("ℝ", "R"), "ℝ", "A"),
        (("5 mW", "5 MW"), "5 MW", "B"),  # as it is written comes before any case
        (("5 mW", "5 MW"), "5 mw", None),
        (("red", "red", "blue"), "red", None),
        (("...", "?", "!"), "", None),
        (("...", "?", "!"), ".", None),
        (("...", "?", "!"), "..", None),
        (("...", "?", "!"), "...", "A"),
        ((".", ".."), ".", "A"),
        (("B. x", "x"), "B. x", "B"),
        (("Ｂlue", "red"), "blue", "A"),
        (("red", "blue"), "Ｂ", "B"),
        (("red", "blue"), "В", None),  # Cyrillic
        (("red", "blue"), "\u200fB\u200b", "B"),  # marks that show nothing
        (("red", "blue"), "\ufeffblue", "B"),
        (("red", "\u2066blue\u2069"), "blue", "B"),
        (("red", "blue"), "\u200b", None),
        (("نامهای", "نامه\u200cای"), "نامه\u200cای", "B"),  # a joiner tells words apart
        (("-5", "5"), "–5", "A"),  # a number by its value, where no option is written so
    ],
)
def test_the_option_an_answer_names(texts, answer, named):
    assert option_named(options(*texts), answer) == named


def test_a_dotless_i_is_no_letter():
    task = options(*"zyxwvutsr", answer="I")
    hand = Hand(get_recipe("DEFAULT"), task, num_frames=600, fps=10.0).play(Answer("ı"))
    assert hand.state.answer is None and hand.state.turns[-1].error.code == "unknown_option"
    assert Hand(get_recipe("DEFAULT"), task, num_frames=600, fps=10.0).play(Answer("i")).state.answer == "i"


@pytest.mark.parametrize("text", ["−5", "–5", "－5"])
def test_a_number_with_another_minus_is_an_answer(text):
    task = choice(kind="numeric", options=(), answer="-5")
    hand = Hand(get_recipe("DEFAULT"), task, num_frames=600, fps=10.0).play(Answer(text))
    assert hand.state.answer == text and hand.total("answer") == 1.0
    assert float(with_plain_signs(text)) == -5


# --- accuracy and reward -----------------------------------------------------------------------

TASKS = (
    options("B", "C", "A", "D"),
    options("102", "10²", "20", answer="B"),
    options("...", "?", "!"),
    options("a red flag", "Blue.", answer="B"),
    choice(kind="numeric", options=(), answer="-5"),
    choice(kind="open", options=(), answer="H₂O"),
)
ANSWERS = (
    *"ABCDabc",
    "",
    ".",
    "...",
    "102",
    "10²",
    "Blue",
    "B. Blue.",
    "(B)",
    "5",
    "-5",
    "–5",
    "H2O",
    "h₂o",
    "\u200fB",
    "\ufeff-5",
    "\u200b",
)
_SYNTHETIC = "synthetic:brief_event?duration_s=60&level=0&seed=1"


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{'/'.join(task.options)}")
@pytest.mark.parametrize("late", [0, 2])
def test_no_recipe_pays_for_what_it_does_not_count_as_right_nor_the_other_way(name, task, late):
    recipe = get_recipe(name)
    for answer in ANSWERS:
        hand = Hand(recipe, task, num_frames=6000, fps=10.0)
        look = Select(0, 600) if "select" in recipe.rules.actions else Crop(0, 600)
        for action in [*[look] * late, Answer(answer)]:
            move = Move((action,))
            if name.startswith("LONGVT"):  # its reward reads the text
                grammar = get_grammar(recipe.grammar)
                move = grammar.parse(grammar.write(action, hand.state), hand.state)
            hand.step(move)
            if hand.state.terminated:
                break
        paid = hand.scores[-1].terms["answer"] or 0.0
        assert answered_right(recipe.terms, paid, hand.state) is (paid > 0), (answer, paid)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_wrong_letter_that_is_the_text_of_the_right_option_is_neither_paid_nor_right(name, wrapped):
    env = VideoQAEnv([replace(TASKS[0], task_id="letters", video=_SYNTHETIC, evidence=None)], name)
    for letter in "ABCD":
        env.reset(seed=0)
        action = Answer(letter)
        if wrapped:
            action = env_text = get_grammar(env.recipe.grammar).write(action, env.state)
            assert letter in env_text
        _, _, terminated, _, info = (TextActions(env) if wrapped else env).step(action)
        assert terminated and bool(info["is_success"]) is (letter == "A")
        assert info["reward_terms"]["answer"] == float(letter == "A")


def test_a_late_right_answer_is_right_while_it_is_paid_anything():
    term = Term("answer", "trajectory", AnswerTerm(decay=0.5))
    for looks, right in ((0, True), (1, True), (2, False), (3, False)):
        hand = Hand(
            replace(get_recipe("DEFAULT"), terms=(term,)), options("x", "y"), num_frames=6000, fps=10.0
        )
        hand.play(*[Crop(1, 5)] * looks, Answer("A"))
        assert hand.returned == 1 - looks / 2
        assert answered_right((term,), hand.returned, hand.state) is right


def test_a_half_right_early_answer_is_not_taken_for_a_late_right_one():
    term = Term("answer", "trajectory", AnswerTerm(judge=lambda task, answer: 0.5, decay=0.5))
    hand = Hand(replace(get_recipe("DEFAULT"), terms=(term,)), options("x", "y"), num_frames=6000, fps=10.0)
    hand.play(Crop(1, 5), Answer("A"))
    assert hand.returned == 0.25 and answered_right((term,), 0.25, hand.state) is False


@pytest.mark.parametrize("weight", [0.0, -1.0])
@pytest.mark.parametrize(("letter", "right"), [("A", True), ("B", False)])
def test_an_answer_that_is_paid_nothing_is_judged_all_the_same(weight, letter, right):
    answer = Term("answer", "trajectory", AnswerTerm(), weight=weight)
    turn = Term("turn", "turn", lambda before, after: 1.0, gated="all")
    hand = Hand(
        replace(get_recipe("DEFAULT"), terms=(turn, answer)), options("B", "A"), num_frames=6000, fps=10.0
    )
    hand.play(Answer(letter))
    assert answered_right((turn, answer), hand.scores[-1].terms["answer"], hand.state) is right
    assert hand.scores[-1].terms["gate"] == (0.0 if right else -1.0)


def test_video_mtrs_judge_reads_letters_alone():
    assert [judge_letter(TASKS[0], answer) for answer in ("A", "B", "a", "A.")] == [1, 0, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), "abc"])
@pytest.mark.parametrize("wrap", [lambda env: env, TextActions, DiscreteActions])
def test_environment_and_wrappers_name_the_term_that_pays_no_number(value, wrap):
    recipe = replace(get_recipe("DEFAULT"), terms=(Term("own", "turn", lambda before, after: value),))
    inner = VideoQAEnv([replace(TASKS[0], task_id="letters", video=_SYNTHETIC, evidence=None)], recipe)
    env = wrap(inner)
    actions = {TextActions: "?", DiscreteActions: 0}
    env.reset(seed=0)
    with pytest.raises(
        RewardError, match=r"reward term 'own' of task 'letters' must be a finite number, got"
    ):
        env.step(actions.get(wrap, Answer("A")))


def test_an_evaluation_refuses_what_a_wrapper_made_of_the_reward():
    inner = VideoQAEnv([replace(TASKS[0], task_id="letters", video=_SYNTHETIC, evidence=None)])
    env = gymnasium.wrappers.TransformReward(inner, lambda reward: reward / 0.0 if reward else float("nan"))
    with pytest.raises(RewardError, match="the reward of task 'letters' must be a finite number, got nan"):
        evaluate(lambda observation, info: Answer("B"), env)
