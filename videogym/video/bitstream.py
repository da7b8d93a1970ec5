"""What the first bytes of a packet say: whether it shows a picture, and whether one before it is missing.

Containers hold packets that show nothing (alternate references, samples of nothing but parameters), and
recordings lack packets that were lost on the way. Decoders pass over both, and show what they have in place
of a picture that they were never given. Here headers are read, nothing is decoded; what cannot be read
says nothing: a packet of damaged bytes was a picture, and is not passed over. Knows nothing of files and
times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# What is seen in a packet; none of them for most.
EMPTY = 1  # it holds no picture
HIDDEN = 2  # its picture is not shown
LOST = 4  # a picture that later ones refer to is missing before it
RESET = 8  # the same, unless the encoder has begun to count anew
SMEARED = 16  # its picture is not whole by itself, whatever the container says
ANCHOR = 32  # later pictures refer to it; told where LOST is seen one anchor late
AHEAD = 64  # it refers to a later picture than itself, which must have come already

Sense = Callable[[memoryview], int]

_DAMAGED = IndexError, ValueError, KeyError  # by bytes that are damaged, or not as the standard has it

# Their pictures do not count themselves, so that none tells whether one that it refers to is missing.
BLIND = (
    "vp8",
    "vp9",
    "av1",
    "mpeg4",
    "h263",
    "flv1",
    "theora",
    "vp6",
    "vp6f",
    "wmv1",
    "wmv2",
    "wmv3",
    "vc1",
)


def sense_of(codec: str, extradata: bytes | None) -> Sense:
    """Reads the packets of one stream, in decoding order.

    Args:
        codec: libav's name of it.
        extradata: the stream's header outside of its packets.

    Returns:
        From the bytes of a packet, what is seen in it.
    """
    reader = _READERS.get(codec)
    if reader is None:
        return lambda data: 0
    try:
        read: Sense = reader(extradata or b"").read
    except _DAMAGED:
        return lambda data: 0

    def sense(data: memoryview) -> int:
        try:
            return read(data)
        except _DAMAGED:
            return 0

    return sense


class _Bits:
    """Bits from the first on, as in H.264, 7.2 and 9.1."""

    def __init__(self, data: bytes) -> None:
        self._left = 8 * len(data)
        self._rest = int.from_bytes(data)

    def take(self, count: int) -> int:
        """The next bits as a number; ValueError where they end."""
        self._left -= count
        value = self._rest >> self._left
        self._rest -= value << self._left
        return value

    def golomb(self) -> int:
        """The next unsigned Exp-Golomb code."""
        zeros = self._left - self._rest.bit_length()
        return self.take(2 * zeros + 1) - 1


# --- H.264 and HEVC ------------------------------------------------------------------------------


def _nals(data: memoryview, length: int) -> Iterator[memoryview]:
    """Units of a packet: each after its length, or, where that has no bytes, after a start code."""
    place, end = 0, len(data)
    if length:
        while place + length < end:
            start = place + length
            place = start + int.from_bytes(data[place:start])
            yield data[start:place]
            if place > end:
                raise ValueError("a unit beyond the end of its packet")
        return
    whole = bytes(data)
    start = whole.find(b"\0\0\1") + 3
    while start > 2:
        place = whole.find(b"\0\0\1", start)
        yield data[start : place if place > 0 else end]
        start = place + 3


def _payload(unit: memoryview, count: int) -> bytes:
    """The first bytes of a unit, without those that only keep start codes apart."""
    return bytes(unit[:count]).replace(b"\0\0\3", b"\0\0")


class _H264:
    """Counts reference pictures by ``frame_num``, which the encoder raises by one for each."""

    _WHOLE = (2, 4, 7, 9)  # slice types I and SI
    _BESIDE = frozenset(
        {6, *range(7, 14), 15, 19, 20}
    )  # units of what is no picture of the first view (table 7-1)

    def __init__(self, extradata: bytes) -> None:
        self._counts: dict[int, tuple[int, bool, bool]] = {}  # by SPS: bits, gaps allowed, three planes
        self._sps_of: dict[int, int] = {}  # by PPS
        self._last: int | None = None  # frame_num of the last reference picture
        self._length = 0
        data = memoryview(extradata)
        if extradata[:1] == b"\1":  # avcC, ISO/IEC 14496-15, 5.3.3
            self._length = (extradata[4] & 3) + 1
            data = memoryview(b"".join(b"\0\0\1" + unit for unit in _avcc_units(extradata)))
        for unit in _nals(data, 0):
            self._note(unit)

    def _note(self, unit: memoryview) -> None:
        """Keep what a parameter set says of counting."""
        kind = unit[0] & 31 if len(unit) else 0
        if kind == 7:
            number, counting = _sps_counting(_Bits(_payload(unit[1:], 400)))
            self._counts[number] = counting
        elif kind == 8:
            bits = _Bits(_payload(unit[1:], 16))
            self._sps_of[bits.golomb()] = bits.golomb()

    def read(self, data: memoryview) -> int:
        kinds = set()
        for unit in _nals(data, self._length):
            kind = unit[0] & 31
            if kind in (1, 2, 5):
                return self._slice(unit, is_idr=kind == 5)
            if kind in (7, 8):
                self._note(unit)
            kinds.add(kind if unit[0] < 128 else None)
        return EMPTY if kinds and kinds <= self._BESIDE else 0

    def _slice(self, unit: memoryview, is_idr: bool) -> int:
        bits = _Bits(_payload(unit[1:], 24))
        bits.golomb()  # first macroblock
        seen = 0 if bits.golomb() in self._WHOLE else SMEARED
        size, gaps_allowed, three_planes = self._counts[self._sps_of[bits.golomb()]]
        bits.take(2 * three_planes)
        number, is_reference = bits.take(size), unit[0] >> 5 & 3
        if self._last is not None and not is_idr and not gaps_allowed:
            if (number - self._last) % (1 << size) > 1:
                # Counting may start again at 0 without a picture that says so (7.4.3, operation 5).
                seen |= RESET if number <= 1 else LOST
                self._last = number - 1
        if is_reference:
            self._last = number
        return seen


def _avcc_units(extradata: bytes) -> Iterator[bytes]:
    place = 5
    for mask in (31, 255):  # sequence, then picture parameter sets
        count = extradata[place] & mask
        place += 1
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2])
            yield extradata[place + 2 : place + 2 + size]
            place += 2 + size


def _sps_counting(bits: _Bits) -> tuple[int, tuple[int, bool, bool]]:
    """Number of a sequence parameter set; then bits of frame_num, whether it may jump, planes."""
    profile = bits.take(8)
    bits.take(16)
    number, three_planes = bits.golomb(), False
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.golomb()
        three_planes = chroma == 3 and bool(bits.take(1))
        bits.golomb(), bits.golomb(), bits.take(1)
        if bits.take(1):
            for i in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    size = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1), bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    return number, (size, bool(bits.take(1)), three_planes)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


class _HEVC:
    """Only tells packets without a picture: libav's decoder itself misses what a picture refers to."""

    _BESIDE = frozenset(range(32, 41))  # parameters, delimiters, ends, filler, messages (table 7-1)

    def __init__(self, extradata: bytes) -> None:
        self._length = (extradata[21] & 3) + 1 if extradata[:1] == b"\1" and len(extradata) > 21 else 0

    def read(self, data: memoryview) -> int:
        kinds = {unit[0] >> 1 for unit in _nals(data, self._length)}
        return EMPTY if kinds and kinds <= self._BESIDE else 0


# --- MPEG-2 and MPEG-4 Part 2 ---------------------------------------------------------------------


def _is_all(data: bytes, codes: frozenset[int]) -> bool:
    """Whether bytes begin with a start code, and have none but these."""
    found = [part[0] for part in data.split(b"\0\0\1")[1:] if part]
    return data[:3] == b"\0\0\1" and bool(found) and codes.issuperset(found)


class _MPEG2:
    """Counts pictures by ``temporal_reference``, which runs on in the order in which they are shown."""

    _BESIDE = frozenset({0xB2, 0xB3, 0xB5, 0xB7, 0xB8})  # start codes outside of pictures (table 6-1)

    def __init__(self, extradata: bytes) -> None:
        self._due: int | None = None  # number of the next picture to be shown; None: of any
        self._held: int | None = None  # number of the anchor that waits for those shown before it

    def read(self, data: memoryview) -> int:
        whole = bytes(data)
        picture = whole.find(b"\0\0\1\0")
        if picture < 0:
            return EMPTY if _is_all(whole, self._BESIDE) else 0
        seen = 0
        if 0 <= whole.find(b"\0\0\1\xb8") < picture:  # a group of pictures begins, and counting with it
            seen = LOST if self._due is not None and self._held != self._due else 0
            self._due = self._held = None
        bits = _Bits(whole[picture + 4 : picture + 8])
        number, is_anchor = bits.take(10), bits.take(3) != 3
        if self._misses(number, is_anchor):
            seen = LOST
        return seen | (ANCHOR if is_anchor else 0)

    def _misses(self, number: int, is_anchor: bool) -> bool:
        if number == self._held:  # the second field of an anchor
            return False
        due, held = self._due, self._held
        if is_anchor:
            self._held = number
            self._due = held if held is None else (held + 1) % 1024
            # Pictures that lead the first anchor may have been cut away.
            return due is not None and held != due
        self._due = (number + 1) % 1024
        if due is None:
            return held is None or 0 < (number - held) % 1024 < 512
        return number not in (due, (due - 1) % 1024)  # the latter: a second field


class _MPEG4:
    """Tells pictures that are not coded, and those that refer to one that is shown after them."""

    _SMALL = 19  # bytes, as in libav; a picture that is not coded is its header
    _BESIDE = frozenset({*range(0x30), *range(0xB0, 0xB6)})  # start codes of no picture (table 6-3)

    def __init__(self, extradata: bytes) -> None:
        self._time_bits = 0
        self._packed = False  # the last packet held a second picture, which the next one shows
        self._note(extradata)

    def _note(self, data: bytes) -> None:
        """Keep how many bits a picture's time has (ISO/IEC 14496-2, 6.2.3)."""
        layer = next((i for i in range(0x20, 0x30) if b"\0\0\1" + bytes([i]) in data), None)
        if layer is None:
            return
        place = data.index(b"\0\0\1" + bytes([layer])) + 4
        bits = _Bits(data[place : place + 40])
        bits.take(9)
        if bits.take(1):
            bits.take(7)
        if bits.take(4) == 15:
            bits.take(16)
        if bits.take(1):
            bits.take(3)
            if bits.take(1):
                bits.take(79)
        bits.take(3)
        self._time_bits = max(1, (bits.take(16) - 1).bit_length())

    def read(self, data: memoryview) -> int:
        whole = bytes(data)
        start = whole.find(b"\0\0\1\xb6")
        if start < 0:
            return EMPTY if len(whole) <= self._SMALL or _is_all(whole, self._BESIDE) else 0
        if start:
            self._note(whole[:start])
        bits = _Bits(whole[start + 4 : start + 24])
        kind = bits.take(2)
        while bits.take(1):
            pass
        bits.take(1 + self._time_bits + 1)
        is_coded = bits.take(1) or len(whole) - start > self._SMALL
        owed, self._packed = self._packed, whole.find(b"\0\0\1\xb6", start + 4) > 0
        if not is_coded:
            return 0 if owed else EMPTY
        return AHEAD if kind == 2 and not owed else 0


# --- VP8, VP9 and AV1 ------------------------------------------------------------------------------


class _VP8:
    """Alternate references come in packets of their own (RFC 6386, 9.1)."""

    def __init__(self, extradata: bytes) -> None:
        pass

    def read(self, data: memoryview) -> int:
        return 0 if data[0] >> 4 & 1 else HIDDEN


class _VP9:
    """Alternate references come before a shown frame in one packet, or alone (7.2 and annex B)."""

    def __init__(self, extradata: bytes) -> None:
        pass

    def read(self, data: memoryview) -> int:
        return 0 if any(map(self._shows, self._frames(data))) else HIDDEN

    @staticmethod
    def _shows(frame: memoryview) -> bool:
        bits = _Bits(bytes(frame[:2]))
        if bits.take(2) != 2:
            raise ValueError("not a frame")
        profile = bits.take(1) | bits.take(1) << 1
        bits.take(profile == 3)
        return bool(bits.take(1) or bits.take(2) & 1)  # an old frame, or, after its type, this one

    @staticmethod
    def _frames(data: memoryview) -> Iterator[memoryview]:
        mark = data[-1]
        count, size = (mark & 7) + 1, (mark >> 3 & 3) + 1
        index = len(data) - 2 - count * size
        if mark >> 5 != 6 or index < 0 or data[index] != mark:
            yield data
            return
        place = 0
        for i in range(index + 1, len(data) - 1, size):
            end = place + int.from_bytes(data[i : i + size], "little")
            if end > place:
                yield data[place:end]
            place = end


class _AV1:
    """A packet is a temporal unit, which shows one frame, or should (5.3 and 5.9)."""

    def __init__(self, extradata: bytes) -> None:
        self._still = False  # frames without a word on being shown
        self._units(memoryview(extradata[4:]))

    def read(self, data: memoryview) -> int:
        frames = self._units(data)
        return HIDDEN if frames and not any(frames) else 0

    def _units(self, data: memoryview) -> list[bool]:
        """Whether each frame of a packet is shown."""
        place, shown = 0, []
        while place < len(data):
            header = data[place]
            place += 2 if header & 4 else 1
            size = len(data) - place
            if header & 2:
                size, place = _leb128(data, place)
            kind, body = header >> 3 & 15, data[place : place + size]
            if kind == 1:
                self._still = bool(body[0] >> 3 & 1)
            elif kind in (3, 6):  # a frame's header, alone or before its tiles
                shows_old, shows_this = body[0] >> 7, body[0] >> 4 & 1
                shown.append(bool(self._still or shows_old or shows_this))
            place += size
        return shown


def _leb128(data: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for i in range(8):
        value |= (data[place + i] & 127) << 7 * i
        if data[place + i] < 128:
            return value, place + i + 1
    raise ValueError("no end")


_READERS: dict[str, Any] = {
    "h264": _H264,
    "hevc": _HEVC,
    "mpeg2video": _MPEG2,
    "mpeg1video": _MPEG2,
    "mpeg4": _MPEG4,
    "vp8": _VP8,
    "vp9": _VP9,
    "av1": _AV1,
}
