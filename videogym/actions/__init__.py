"""What a policy can do: the transition of an episode, and one class for each kind of action.

An action that cannot be executed changes nothing but spends the turn and says why; it never raises.
Pixels, rewards and text are not known here. A kind of your own is a class below `Look`, `Showing`
or `videogym.state.Action`, in any file.
"""

from videogym.actions.answer import Answer
from videogym.actions.crop import Crop
from videogym.actions.find import Find
from videogym.actions.look import Look, Showing
from videogym.actions.select import Select
from videogym.actions.transition import begin, mark_fault, play, play_fault

__all__ = [
    "Answer",
    "Crop",
    "Find",
    "Look",
    "Select",
    "Showing",
    "begin",
    "mark_fault",
    "play",
    "play_fault",
]
