"""Stored episodes: record them, append them to a file, read them back."""

from videogym.traces.files import TraceFiles, Traces, append_trace, read_traces
from videogym.traces.lines import TraceError, from_line, to_line
from videogym.traces.recording import RecordTraces
from videogym.traces.trace import Trace, TurnTrace, looks_of, trace_of

__all__ = [
    "RecordTraces",
    "Trace",
    "TraceError",
    "TraceFiles",
    "Traces",
    "TurnTrace",
    "append_trace",
    "from_line",
    "looks_of",
    "read_traces",
    "to_line",
    "trace_of",
]
