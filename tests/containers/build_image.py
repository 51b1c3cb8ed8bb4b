"""Builds the image of tests/containers/check_image.py, with the network that the check lacks."""

import os
import shutil
import sys
from pathlib import Path

from tests.containers.buildah import build_image, make_base

if __name__ == "__main__":
    if os.geteuid() or not all(map(shutil.which, ("buildah", "debootstrap"))):
        sys.exit("make image-check needs root, and `apt-get install buildah debootstrap`")
    make_base()
    build_image(Path(__file__).parents[2])
