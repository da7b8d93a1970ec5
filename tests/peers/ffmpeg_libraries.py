"""Where there is no FFmpeg on the system, torchcodec can use the one inside PyAV's wheel.

The wheel gives its libraries names of their own (``libavcodec-5e6b81c2.so.62.28.102``). This makes a
folder of links with the usual ones (``libavcodec.so.62``) and prints it: start Python with it in
``LD_LIBRARY_PATH``. Linux only.

Usage: ffmpeg_libraries.py FOLDER
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import av


def link(folder: Path) -> Path:
    """Make the links anew; returns the folder's absolute path.

    Raises:
        FileNotFoundError: PyAV was not installed from a wheel.
    """
    bundled = Path(av.__file__).parents[1] / "av.libs"
    if not bundled.is_dir():
        raise FileNotFoundError(f"{bundled}: PyAV uses the system's FFmpeg, and so can torchcodec")
    folder.mkdir(parents=True, exist_ok=True)
    for library in bundled.iterdir():
        if name := re.fullmatch(r"(lib(?:av|sw)[a-z]+)-[0-9a-f]+(\.so\.\d+)[\d.]*", library.name):
            place = folder / (name[1] + name[2])
            place.unlink(missing_ok=True)
            place.symlink_to(library)
    return folder.resolve()


if __name__ == "__main__":
    print(link(Path(sys.argv[1])))
