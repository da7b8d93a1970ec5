"""``python -m videogym`` is the command ``videogym``."""

import sys

from videogym.cli import main

if __name__ == "__main__":
    sys.exit(main())
