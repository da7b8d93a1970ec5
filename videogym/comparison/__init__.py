"""Why two runs have different figures: settings, tasks, paired figures, and where episodes part."""

from videogym.comparison.compare import Comparison, compare
from videogym.comparison.paired import Figure, McNemar, mcnemar, mean_difference, share_difference
from videogym.comparison.partings import Parting, parting
from videogym.comparison.settings import Difference, differences
from videogym.comparison.sides import ComparisonError, Side, read_side, side_of_result, side_of_traces

__all__ = [
    "Comparison",
    "ComparisonError",
    "Difference",
    "Figure",
    "McNemar",
    "Parting",
    "Side",
    "compare",
    "differences",
    "mcnemar",
    "mean_difference",
    "parting",
    "read_side",
    "share_difference",
    "side_of_result",
    "side_of_traces",
]
