"""Policies and training loops on top of videogym: examples to run, read and copy."""

from videogym.extras import end_by_a_line

end_by_a_line(__name__)
