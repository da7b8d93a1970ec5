"""Videos that are drawn from an address: nothing on disk, every event known to the frame."""

from videogym.video.synthetic.address import Address, InvalidAddress
from videogym.video.synthetic.encoding import encode
from videogym.video.synthetic.script import Script, write_script
from videogym.video.synthetic.video import SyntheticVideo, open_synthetic

__all__ = [
    "Address",
    "InvalidAddress",
    "Script",
    "SyntheticVideo",
    "encode",
    "open_synthetic",
    "write_script",
]
