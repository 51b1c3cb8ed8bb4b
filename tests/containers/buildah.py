"""An image built and run without a daemon and without a registry: buildah, and debootstrap.

Needs root. Isolation is chroot alone: containers share the network and the processes of the caller.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: Images and layers; kept between runs, so that the base is made once.
STORE = Path(os.environ.get("IMAGE_STORE", "/var/tmp/leadloop-image"))
BASE, IMAGE = "localhost/debian:trixie-slim", "localhost/leadloop:check"
_SUITE = BASE.rpartition(":")[2].partition("-")[0]
# What Debian's slim image is without.
_NOT_SLIM = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache", "var/lib/apt/lists")
_LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUILDAH = (
    "buildah",
    *("--root", str(STORE / "storage"), "--runroot", str(STORE / "run")),
    *("--storage-driver", "vfs"),
)


def call_buildah(*arguments: str | Path) -> str:
    """Run a command of buildah; return what it prints on stdout."""
    command = [*_BUILDAH, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_base() -> None:
    """Make an image like Debian's slim one from Debian's packages, unless an earlier run has.

    It trusts the certificate authorities that were added to this machine, such as a proxy's.
    """
    if call_buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        return
    container = call_buildah("from", "scratch")
    root = Path(call_buildah("mount", container))
    subprocess.run(["debootstrap", "--variant=minbase", _SUITE, root], check=True)
    for file in (file for folder in _NOT_SLIM for file in (root / folder).rglob("*")):
        if not file.is_dir():
            file.unlink()
    if _LOCAL_CERTIFICATES.is_dir():
        shutil.copytree(
            _LOCAL_CERTIFICATES, root / _LOCAL_CERTIFICATES.relative_to("/"), dirs_exist_ok=True
        )
    call_buildah("umount", container)
    call_buildah("commit", "--rm", container, BASE)


def build_image(checkout: Path) -> None:
    """Build the Dockerfile of a checkout on the base; prints what the build prints."""
    options = ("--isolation", "chroot", "--pull=never", "--format", "docker")
    arguments = ("--build-arg", f"BASE={BASE}", "--tag", IMAGE, str(checkout))
    subprocess.run([*_BUILDAH, "build", *options, *arguments], check=True)


def inspect_image() -> dict[str, Any]:
    """Return the image's configuration, as Docker names its parts."""
    config: dict[str, Any] = json.loads(call_buildah("inspect", "--type", "image", IMAGE))
    docker: dict[str, Any] = config["Docker"]["config"]
    return docker


def measure_files(root: Path) -> int:
    """Return the bytes of a container's files."""
    return sum(file.lstat().st_size for file in root.rglob("*") if not file.is_dir())


def run_command(
    container: str,
    command: Iterable[str],
    environment: Mapping[str, str],
    volumes: Mapping[Path, str],
) -> list[str]:
    """Return the command line that runs a command in a container, as the image's user."""
    options = [f"--env={name}={value}" for name, value in environment.items()]
    options += [f"--volume={source}:{target}" for source, target in volumes.items()]
    # Hosts without a mount: the end of one command would take those of others away.
    options += ["--isolation", "chroot", "--no-hosts"]
    return [*_BUILDAH, "run", *options, container, "--", *command]
