"""Why two runs have different results: settings, tasks, paired metrics, and where episodes part."""

from videogym.comparison.compare import Comparison, compare
from videogym.comparison.divergence import Divergence, divergence
from videogym.comparison.paired import McNemar, PairedMetric, mcnemar, mean_difference, share_difference
from videogym.comparison.runs import ComparisonError, Run, read_run, run_from_result, run_from_traces
from videogym.comparison.settings import Difference, differences

__all__ = [
    "Comparison",
    "ComparisonError",
    "Difference",
    "Divergence",
    "McNemar",
    "PairedMetric",
    "Run",
    "compare",
    "differences",
    "divergence",
    "mcnemar",
    "mean_difference",
    "read_run",
    "run_from_result",
    "run_from_traces",
    "share_difference",
]
