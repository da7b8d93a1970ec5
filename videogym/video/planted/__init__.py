"""Videos of one's own with something drawn into some of their frames while they are decoded."""

from videogym.video.planted.address import PlantedAddress
from videogym.video.planted.encoding import write_video
from videogym.video.planted.insertion import Insertion
from videogym.video.planted.video import PlantedVideo, open_planted

__all__ = ["Insertion", "PlantedAddress", "PlantedVideo", "open_planted", "write_video"]
