"""The best guesses that can be made from the text of a task, its id and the address of its video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import RidgeClassifier

from videogym.state import Task
from videogym.testing.pixel_reader import NAMED
from videogym.video.addresses import PLANTED_PREFIX
from videogym.video.synthetic import Address


def text_features(task: Task) -> dict[str, float]:
    """Colours of the question, options and their places, pairs of both, remainders of seed or length."""
    options = [f"{letter}={text}" for letter, text in zip(task.letters, task.options, strict=True)]
    words = [word for word in re.findall(r"\w+", task.question) if word in NAMED]
    order = [f"{a}<{b}" for i, a in enumerate(task.options) for b in task.options[i + 1 :]]
    pairs = [f"{word}&{option}" for word in words for option in options]
    # Of a planted video the address has no seed; what can be counted in it is its length.
    planted = task.video.startswith(PLANTED_PREFIX)
    number = len(task.video) if planted else Address.parse(task.video).seed
    remainders = [f"{m}:{number % m}" for m in (2, 4, 5, 7)] + [f"id:{task.task_id[-1]}"]
    remainders += [f"length:{number // 8}", f"file:{task.video.partition('?')[0]}"] if planted else []
    return dict.fromkeys([*words, *options, *order, *pairs, *remainders], 1.0)


def right_by_text(train: Sequence[Task], test: Sequence[Task]) -> dict[str, list[bool]]:
    """Which answers of ``test`` each way of guessing gets right that was fitted to ``train``.

    The ways are the commonest answer, the commonest option, and two classifiers of `text_features`.
    """
    answers = [task.answer for task in train]
    encoder = DictVectorizer()
    x_train = encoder.fit_transform([text_features(task) for task in train])
    x_test = encoder.transform([text_features(task) for task in test])
    (commonest, _), *_ = Counter(answers).most_common(1)
    texts = Counter(_right_text(task) for task in train)
    guesses = {
        "commonest answer": [commonest] * len(test),
        "commonest option": [_likeliest(task, texts) for task in test],
    }
    models = RidgeClassifier(alpha=30.0), RandomForestClassifier(25, min_samples_leaf=4, random_state=0)
    for model in models:
        guesses[type(model).__name__] = list(model.fit(x_train, answers).predict(x_test))
    return {
        name: [guess == task.answer for guess, task in zip(guessed, test, strict=True)]
        for name, guessed in guesses.items()
    }


def _right_text(task: Task) -> str:
    return task.options[task.letters.index(task.answer)] if task.options else task.answer


def _likeliest(task: Task, texts: Counter[str]) -> str:
    if not task.options:
        return texts.most_common(1)[0][0]
    return max(task.letters, key=lambda letter: texts[task.options[task.letters.index(letter)]])
