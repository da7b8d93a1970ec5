"""A person plays episodes in a browser, under the rules and the budget of a policy."""

from videogym.play.game import Game, Refused, Stale
from videogym.play.review import Review
from videogym.play.server import PlayServer

__all__ = ["Game", "PlayServer", "Refused", "Review", "Stale"]
