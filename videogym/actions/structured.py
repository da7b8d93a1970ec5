"""Structured actions: the space of all kinds that a recipe has, and how a member of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.spaces import Dict, Discrete, Text

from videogym.state import Action, Invalid, Move, Rules, State, action_kinds


def action_space(rules: Rules) -> Dict:
    """The structured action space of a recipe's rules."""
    spaces: dict[str, Any] = {"kind": Discrete(len(rules.actions))}
    for kind in rules.actions:
        spaces |= action_kinds()[kind].spaces(rules)
    return Dict(spaces)


def as_move(action: Any, state: State) -> Move:
    """Read whatever `VideoQAEnv.step` takes.

    Values a policy can get wrong become `Invalid`; a shape no policy should send raises.

    Raises:
        ValueError: not an action, or a structured action without a key it needs, or with a value of another
            shape than its space has.
    """
    if isinstance(action, Move):
        return action
    if isinstance(action, Action):
        return Move((action,))
    if isinstance(action, list | tuple) and action:
        return Move(tuple(one for part in action for one in as_move(part, state).actions))
    if not isinstance(action, dict) or "kind" not in action:
        raise ValueError(
            "an action is a dict with 'kind', a Crop, Select, Answer or Move, or a list of those that are "
            f"played in one turn, got {type(action).__name__}"
        )
    try:
        return Move((_structured_action(action, state),))
    except KeyError as error:
        raise ValueError(f"the structured action lacks the key {error}; it has {sorted(action)}") from error
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        told = "; ".join(_misfits(action, action_space(state.rules)))
        if not told:
            raise  # of an action of the user's
        raise ValueError(f"the structured action does not fit its space: {told}") from error


def _misfits(action: dict[str, Any], space: Dict) -> Iterator[str]:
    """What is wrong with values that no space of their names has."""
    for name in sorted(action.keys() & space.keys()):
        due, value = space[name], action[name]
        try:
            given = np.asarray(value, np.float64)
            # One number may stand for a row of one.
            fits = given.shape == due.shape or (value is not None and given.ndim == 0 and due.shape == (1,))
            fits &= not isinstance(due, Discrete) or bool(np.isfinite(given).all())
            # NumPy makes numbers of dates, Python does not.
            fits &= np.asarray(value).dtype.kind not in "mM"
        except (TypeError, ValueError, OverflowError):
            fits = isinstance(value, str) and isinstance(due, Text)
        if not fits:
            yield f"{name} must be in {due}, got {' '.join(repr(value).split())[:60]}"


def _structured_action(action: dict[str, Any], state: State) -> Action:
    kinds, kind = state.rules.actions, int(action["kind"])
    if not 0 <= kind < len(kinds):
        return Invalid("unknown_action", f"kind must be 0 to {len(kinds) - 1}, got {kind}.")
    return action_kinds()[kinds[kind]].from_structured(action, state)
