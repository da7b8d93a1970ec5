"""What can be wrong with a video, and how it is mended: one entry a cause.

Commands are text for a person to read and run. Nothing here runs one, or touches a file.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "note"]

# Each is run in the tests, on the file it is for; docs/command.md says with which versions of FFmpeg.
_TO = "-c:v libx264 -crf 18 {mended}"
_ENCODE = f"ffmpeg -i {{file}} {_TO}"
_FETCH = "Fetch or copy it again and compare its size with the source's."


@dataclass(frozen=True, slots=True)
class Cause:
    """A kind of problem."""

    severity: Severity  # "note": such a video works, but this is good to know
    advice: str
    command: str = ""  # a template; "" where no command helps


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is to be said of a file."""

    code: str  # a key of `CAUSES`
    severity: Severity
    message: str  # what was seen
    advice: str  # how to mend it
    command: str = ""  # for a shell, or ""


CAUSES: dict[str, Cause] = {
    # --- the way to the file ---
    "missing": Cause("error", "Check the path, or name the folder that holds the videos by --video-root."),
    "address": Cause("error", "Mend the address; docs/concepts.md says what it is made of."),
    "ambiguous": Cause("error", "Give the tasks' videos paths that tell the files apart."),
    "dangling_link": Cause(
        "error", "Make the link again, or fetch what it stands for (git-annex and DVC keep data so)."
    ),
    "permission": Cause("error", "Ask its owner, or allow reading.", "chmod u+rX {file}"),
    "folder": Cause("error", "Name a file in it, or move that out of it: some tools pack a video so."),
    "special": Cause("error", "A pipe, socket or device has no frames to go back to: save it as a file."),
    "empty": Cause("error", "Nothing was ever written into it. " + _FETCH),
    "changing": Cause("error", "Wait until whoever writes it is done."),
    # --- not a video ---
    "not_video": Cause("error", _FETCH),
    "no_index": Cause(
        "error",
        "The end of the file, with its index, is missing. "
        + _FETCH
        + " A recording that was not finished can be rebuilt by tools such as untrunc from a whole one of "
        "the same camera.",
    ),
    "no_video_stream": Cause("error", "Take it out of the tasks, or look for the file with the pictures."),
    "codec": Cause(
        "error",
        "Convert it where there is a decoder: with another build of FFmpeg, or its maker's software.",
        _ENCODE,
    ),
    "no_frames": Cause("error", "It holds a header and nothing else. " + _FETCH),
    "no_keyframe": Cause("error", "Nothing in it can be decoded without a keyframe. " + _FETCH),
    "undecodable": Cause(
        "error", "Its index points to the wrong places, or the data is damaged or encrypted. " + _FETCH
    ),
    "unreadable": Cause("error", _FETCH),
    # --- a video, but damaged or ambiguous ---
    "truncated": Cause(
        "error", _FETCH + " Or keep what is there; the command ends before what is cut.", _ENCODE
    ),
    "damaged_frames": Cause(
        "error",
        _FETCH + " Until then, what shows frames of those times fails. Converting would hide the damage "
        "behind guessed pictures.",
    ),
    "no_timestamps": Cause(
        "error",
        "Have the times made up from the order of the frames.",
        f"ffmpeg -fflags +genpts -i {{file}} {_TO}",
    ),
    "zero_duration": Cause(
        "error",
        "Say how many frames a second it has, here 30, in place of its own times.",
        # As an input's rate (-r 30 -i) versions up to 6 drop frames by the times in the file.
        f"ffmpeg -i {{file}} -vf setpts=N/30/TB,fps=30 {_TO}",
    ),
    "equal_timestamps": Cause("error", "Have frames that share their time with another left out.", _ENCODE),
    "clock_jumps": Cause("error", "Files were joined as they stood: have their clocks made one.", _ENCODE),
    "avi_order": Cause(
        "error", "AVI cannot tell the order of these frames: move them to a container that can.", _ENCODE
    ),
    "tilted": Cause("error", "Have the pictures turned for good.", _ENCODE),
    "too_short": Cause("error", "An episode needs two frames. Take it out of the tasks."),
    "too_large": Cause(
        "error",
        "If it is the video that you expect, make its pictures smaller: ffmpeg -vf scale=1920:-2. What "
        "is larger than 8K, or has an index of a gigabyte, is mostly made to do harm.",
    ),
    "too_long": Cause(
        "error",
        "An episode takes a day at most. Its clock may be wrong; otherwise cut it, or raise max_duration_s "
        "of the rules.",
    ),
    "hang": Cause(
        "error",
        "Take it out of the tasks. A large file on a slow disk may only need more time: raise --deadline.",
    ),
    "crash": Cause("error", "Take it out of the tasks, or convert it.", _ENCODE),
    "fault": Cause("error", "This is a fault of the program: report it. Leave the file out until then."),
    # --- tasks ---
    "evidence": Cause(
        "error", "The annotation is of another cut of the video, or in other units: take the tasks out."
    ),
    "task_file": Cause("error", "Mend these places; none of its tasks is read before."),
    # --- good to know ---
    "variable_rate": Cause("note", "Nothing is to be done: frames are found by their times."),
    "rotated": Cause("note", "Nothing is to be done: frames are shown upright."),
    "missing_frames": Cause(
        "note",
        "Packets were lost, or frames left out when it was made. If lost, pictures are smeared up to the "
        "next keyframe: look at them. Batches mark these frames as damaged.",
    ),
    "other_streams": Cause(
        "note",
        "Nothing is to be done if the film is shown, as players do. Otherwise copy the stream that is "
        "meant into a file of its own: with ffmpeg -map 0:1 for stream 1.",
    ),
    "gap": Cause("note", "The picture stands still for so long. Look whether a part is missing."),
    "huge_group": Cause(
        "note",
        "Every look decodes from the keyframe before it. More keyframes make looks faster.",
        f"ffmpeg -i {{file}} -g 120 {_TO}",
    ),
}


def finding(code: str, path: str, message: str) -> Finding:
    """A cause as it was met in a file."""
    cause = CAUSES[code]
    words = {"file": argument(path), "mended": argument(_mended(path))}
    return Finding(code, cause.severity, message, cause.advice, cause.command.format_map(words))


def _mended(path: str) -> str:
    return os.path.splitext(path)[0] + ".mended.mp4"


def argument(path: str) -> str:
    r"""A path as one word of a shell command that no program takes for an option or an address.

    >>> print(argument("it's.mp4"), argument("-i.mp4"), argument("12:30.mp4"), argument("a\x1b.mp4"))
    'it'"'"'s.mp4' ./-i.mp4 ./12:30.mp4 $'a\x1b.mp4'
    """
    if path.startswith("-") or ":" in path.split("/")[0]:
        path = f"./{path}"
    if path.isprintable():
        return shlex.quote(path)
    # What a terminal would obey, or cannot show, as bash spells it; a name need not be valid UTF-8.
    try:
        escaped = path.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:  # no file can have such a name
        escaped = path.encode("utf-8", "replace").decode("latin-1")
    return "$'" + re.sub(r"[^ -~]|['\\]", lambda found: f"\\x{ord(found[0]):02x}", escaped) + "'"
