"""The containers that are opened, and what files in them are called: the one list of either.

Playlists would open other files and the text demuxer draws text as video, so containers are listed. Endings
matter to whoever looks for videos in folders or by names; what a file is, is read from its bytes.
"""

from __future__ import annotations

# By libav's names of the demuxer. Endings of sound alone (.m4a, .mka, .oga, .wma) are left out.
_ENDINGS: dict[str, tuple[str, ...]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".3gp2"),
        *(".f4v", ".ismv", ".mj2", ".psp"),
    ),
    "matroska,webm": (".mkv", ".mk3d", ".webm"),
    "mpegts": (".ts", ".mts", ".m2ts", ".m2t", ".tp", ".trp", ".mpegts"),
    "mpeg": (".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".dvd", ".evo"),
    "avi": (".avi", ".divx", ".xvid"),
    "flv": (".flv",),
    "asf": (".asf", ".wmv"),
    "ogg": (".ogv", ".ogg", ".ogm", ".ogx"),
    "gif": (".gif",),
}

CONTAINERS = ",".join(_ENDINGS)  # libav's whitelist
VIDEO_SUFFIXES = tuple(ending for endings in _ENDINGS.values() for ending in endings)  # lower case
