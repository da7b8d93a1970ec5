"""A grammar around another one, which answers all that the wrapper does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from videogym.grammars.base import Grammar, Message
from videogym.state import Action, Move, Rules, State


@dataclass(frozen=True)
class GrammarWrapper:
    """The grammar itself; a subclass overrides what it changes. See `Grammar`."""

    grammar: Grammar

    @property
    def name(self) -> str:
        """The grammar's."""
        return self.grammar.name

    @property
    def block_end(self) -> str:
        """The grammar's."""
        return str(getattr(self.grammar, "block_end", "\n"))

    def tools(self, rules: Rules) -> list[dict[str, Any]]:
        """The grammar's."""
        return self.grammar.tools(rules)

    def parse(self, text: str, state: State) -> Move:
        """As the grammar does."""
        return self.grammar.parse(text, state)

    def write(self, action: Action, state: State, thought: str = "") -> str:
        """As the grammar does."""
        return self.grammar.write(action, state, thought)

    def messages(self, state: State) -> tuple[Message, ...]:
        """The grammar's."""
        return self.grammar.messages(state)
