"""Where things lie on a drawn timeline: per cent of its width, from seconds of the video.

Knows numbers only, no episode and no HTML.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS_S = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 4, 6, 12, 24)),
)
_MOST_TICKS = 8
_NARROWEST = 0.35  # per cent: about three pixels, so that the shortest event is seen


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of the time axis."""

    left: float  # per cent
    label: str
    title: str


def axis(duration_s: float) -> tuple[Tick, ...]:
    """At most nine round times from 0 on.

    >>> [tick.label for tick in axis(600.0)]
    ['0:00', '2:00', '4:00', '6:00', '8:00', '10:00']
    """
    place = bisect.bisect_left(_STEPS_S, duration_s / _MOST_TICKS)
    step = _STEPS_S[place] if place < len(_STEPS_S) else duration_s / _MOST_TICKS
    times = [i * step for i in range(int(duration_s / step + 1e-9) + 1)]
    return tuple(Tick(percent(t, duration_s), clock(t, tenths=step < 1), seconds(t)) for t in times)


def percent(time_s: float, duration_s: float) -> float:
    """Where an instant lies, from 0 to 100; instants outside the video lie at its ends."""
    return round(100 * min(max(time_s / duration_s, 0.0), 1.0), 3)


def span(start_s: float, end_s: float, duration_s: float) -> tuple[float, float]:
    """Left end and width of a segment, per cent; wide enough to be seen, and inside."""
    left, right = percent(start_s, duration_s), percent(end_s, duration_s)
    width = max(right - left, _NARROWEST)
    return round(min(left, 100 - width), 3), round(width, 3)


def tick_path(times_s: Iterable[float], duration_s: float) -> str:
    """An SVG path of one vertical line per distinct place, in a box 1000 wide and 10 high.

    >>> tick_path([0.0, 30.0, 30.0], 60.0)
    'M0 0v10M500 0v10'
    """
    places = sorted({round(10 * percent(time_s, duration_s)) for time_s in times_s})
    return "".join(f"M{place} 0v10" for place in places)


def clock(time_s: float, *, tenths: bool = False) -> str:
    """``m:ss`` or ``h:mm:ss``, cut, not rounded.

    >>> clock(59.99), clock(3725.25, tenths=True)
    ('0:59', '1:02:05.2')
    """
    whole = int(time_s)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return f"{text}.{int(time_s * 10 + 1e-6) % 10}" if tenths else text


def seconds(time_s: float) -> str:
    """Seconds to a hundredth, without zeros at the end.

    >>> seconds(12.5), seconds(600.0), seconds(0.125), seconds(float("nan"))
    ('12.5 s', '600 s', '0.12 s', 'nan s')
    """
    text = f"{time_s:.2f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} s"
