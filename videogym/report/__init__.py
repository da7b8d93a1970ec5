"""Stored episodes as a page that is readable without a network."""

from videogym.report.page import write_report
from videogym.report.sources import Sources

__all__ = ["Sources", "write_report"]
