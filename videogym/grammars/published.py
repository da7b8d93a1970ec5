"""Which texts were published for which system, by their SHA-256.

The texts themselves are their authors' and are not here. ``docs/prompts.md`` says where each is published
and how it becomes a field of a prompt file.
"""

from __future__ import annotations

import hashlib

from videogym.grammars.prompts import Prompt

_LONGVT, _VIDEO_MTR, _PARAVT, _EVA = "LongVT's", "Video-MTR's", "ParaVT's", "EVA's"
_VIDEO_ZOOMER = "VideoZoomer's"
# SHA-256 of a field's text in UTF-8 -> field, and what it is of which system.
PUBLISHED = {
    "75357d685f238b6afd7738be9786fdafde641eb6ca9a3be7471939715a68a4de": ("system", _LONGVT),
    "23979eec7ef63d057a5e761838f759ca1db5c5a3e70fe188e5f798a38fe7794a": ("instruction", _LONGVT),
    "8c2b9ec094251441db97b9e762df5f1710db94a886a118fd29809f021d464436": ("system", _VIDEO_MTR),
    "9fe9750c5dc413d140bd8b14a239db5f5b9f2454d83d7abde17e0fd07ef39399": ("instruction", _VIDEO_MTR),
    "763ca1b970c8819b4a028dd6439fac6f4f20bda59624481ff0a3714498866641": ("last_instruction", _VIDEO_MTR),
    "7ec249c501e13949c36a7a9a0a61ddd5068af64e7950dd88bdf540804a40bfbc": ("choice", _VIDEO_MTR),
    "853b6e89a667381330ba3a9a4d5cb7a0087c74743e503224f5673dad336a4810": ("numeric", _VIDEO_MTR),
    "aa8dbf62b3bb5e814f4d1c94b3fa417485c923e09751f119e50aea7c851e29fd": ("open", _VIDEO_MTR),
    "2bbdb22e9be980a6604b78d542217b7481892e72b79b0864fadb727411db10d7": ("question", _VIDEO_MTR),
    "72ee91c25d285f4a85817080522f8b2c41018422b422a427856268ac4e6411bb": ("refusal", _VIDEO_MTR),
    "4d0b9b29b44a3d4f62c7f08b451dd5cbabe324f7595461382618b698dd61745f": ("system", _PARAVT),
    "6865db385f7c9a491eb6d092784158d5f339c206aeb4fa458b666f87b2e1a953": ("reply", _PARAVT),
    "e5eea6818e225c0c5249f1ddcd760ac07869e86b85b3d8dd23b6e1d94b949742": ("reply", _VIDEO_ZOOMER),
    "85a8d89a5a830494003c0db62d28317bfc3990205a7822086ebc7fd1ee0418d2": ("refusal", _VIDEO_ZOOMER),
    "637cc5b72b8c55eda6f2d56cce1fbf7811ae5b73ae9f7b8dda10064a1ad2d728": ("unreadable", _VIDEO_ZOOMER),
    "c2c3375df80f4503ce3e7db9a67ad1a80cc1540d5ad231b52410b277974c59da": ("last_instruction", _VIDEO_ZOOMER),
    "89f86daf269fa178ef251721393305728f8b3b9740cb62f1d44cf81bca8f0eed": ("system", _EVA),
}
_ALIKE = {"reply": "question", "unreadable": "refusal"}  # published as one text


def sha256(text: str) -> str:
    """Of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def compared(prompt: Prompt) -> list[str]:
    """A line for every text of a prompt: its SHA-256, and whose published text it is, if it is one.

    The texts of `PUBLISHED` are those that could be read. Another text may be published all the same.
    """
    lines = []
    for name, text in prompt.texts.items():
        digest = sha256(text)
        field, owner = PUBLISHED.get(digest, ("", ""))
        is_known = field in (name, _ALIKE.get(name, name))
        known = f"{owner} published text" if is_known else "no published text known here"
        lines.append(f"{name}: {known}, SHA-256 {digest}")
    return lines
