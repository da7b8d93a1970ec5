"""One HTML file of stored episodes, readable without a network."""

from videogym.report.page import write_report

__all__ = ["write_report"]
