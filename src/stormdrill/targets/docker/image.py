"""The image of stormdrill and its reference platform: built from any base with Python, once for each content.

What goes in is what runs here: this stormdrill with what it ships and all that it depends on, taken from this
environment where base and host have the same Python, else downloaded by their hashes. Containers run the platform and
the proxy from it, clusters the watchdog and the load too. The image carries the fingerprint of all that, so that
building it again is one question to the engine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import quote

from msgspec import Struct
from msgspec import json as msgjson

import stormdrill
from stormdrill.errors import Refused, Unreachable
from stormdrill.spec import catalogue
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.here import remembered_in

BASE_VARIABLE = "STORMDRILL_BASE_IMAGE"
MADE_HERE = "stormdrill-base:bookworm"
"""What `make base-image` makes."""
USUAL = "python:3.12-slim"
FINGERPRINT = "stormdrill.content"
KEPT = 4
"""Images of ours that are kept, the newest ones: a plan may still mean one of them."""
OURS_TAG = "stormdrill-platform"
SELF = "stormdrill"
SHIPPED = ("experiments", "loadgen", "runbooks", "reviews/templates", "policy.yaml")
"""Of a checkout: what a wheel carries as the catalogue."""
HELP = "make one from Debian packages: make base-image; or name one with Python 3.11 or newer in $STORMDRILL_BASE_IMAGE"


class Base(Struct, frozen=True):
    """What is known of a base image, found out once for each id."""

    name: str
    id: str
    python: str
    """3.11"""
    iptables: bool


class Image(Struct, frozen=True):
    tag: str
    id: str
    """sha256:…"""
    base: Base
    took_s: float
    built: bool
    """False: it was there already."""


def base_image(engine: Engine) -> Base:
    """The base that is named, the one made here, or the usual one. Raises Refused, saying what would help."""
    named = os.environ.get(BASE_VARIABLE, "")
    for name in [named] if named else [MADE_HERE, USUAL]:
        id = image_id(engine, name)
        if id:
            return _known(engine, name, id)
    what = f"there is no image {named}" if named else f"neither {MADE_HERE} nor {USUAL} is here"
    raise Refused(f"target docker: {what}; {HELP}, or pull it: docker pull {named or USUAL}")


def image_id(engine: Engine, name: str) -> str:
    """Empty when it isn't there. Raises Unreachable."""
    found = cast("dict[str, object] | None", engine.get(f"/images/{quote(name, safe='/:@')}/json"))
    return str(found["Id"]) if found else ""


def build(engine: Engine, tag: str, folder: Path) -> Image:
    """The image, built when its content has changed. Raises Refused."""
    began_s = time.monotonic()
    base = base_image(engine)
    dockerfile = (folder / "Dockerfile").read_bytes()
    packages = _packages()
    wanted = _fingerprint(base, dockerfile, packages)
    name = f"{tag.partition(':')[0]}:{wanted[:12]}"
    found = image_id(engine, name)
    there = bool(found)
    if not found:
        _make(name, wanted, base, dockerfile, packages)
        found = image_id(engine, name)
        _forget_old(engine)
    return Image(name, found, base, round(time.monotonic() - began_s, 3), built=not there)


def main() -> int:
    """`make image`: build it ahead of the first run, and name it `latest` too, as `platform manifests` does."""
    engine = Engine()
    try:
        made = build(engine, OURS_TAG, catalogue.root())
        engine.act("POST", f"/images/{made.tag}/tag?repo={OURS_TAG}&tag=latest")
    except (Refused, Unreachable) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    word = "built" if made.built else "is there already"
    sys.stdout.write(f"{made.tag} from {made.base.name}, {word} ({made.took_s:.1f} s)\n")
    return 0


def _make(
    name: str, fingerprint: str, base: Base, dockerfile: bytes, packages: Sequence[importlib.metadata.Distribution]
) -> None:
    from stormdrill.targets.docker.starting import build_image

    with tempfile.TemporaryDirectory(prefix="stormdrill-image-") as place:
        context = Path(place)
        (context / "Dockerfile").write_bytes(dockerfile)
        site = context / "site"
        site.mkdir()
        if base.python == _own_python():
            for package in packages:
                _copy(package, site)
        else:
            _download(packages, base, site)
        for source, inside in _own_files():
            copy = context / "own" / SELF / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        readable(context)
        build_image(context, name, {"BASE": base.name}, {FINGERPRINT: fingerprint})


def readable(context: Path) -> None:
    """By everybody, whatever the builder's umask is: pods run it as nobody, who can't read what is root's alone."""
    for path in context.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _forget_old(engine: Engine) -> None:
    """Every change of the platform makes a new image. Those in use are refused by the engine, and stay."""
    filters = quote(json.dumps({"label": [FINGERPRINT]}))
    listed = cast("list[dict[str, object]]", engine.get(f"/images/json?filters={filters}") or [])
    for item in sorted(listed, key=lambda one: cast("int", one["Created"]), reverse=True)[KEPT:]:
        for tag in cast("list[str]", item.get("RepoTags") or []):
            engine.call("DELETE", f"/images/{quote(tag, safe='/:')}")


def _packages() -> list[importlib.metadata.Distribution]:
    """What is needed, with all that it needs in turn, as installed here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = _required(SELF)
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed by other Pythons or systems only
        wanted += _required(name)
    return [found[name] for name in sorted(found)]


def _required(name: str) -> list[str]:
    """What a package asks for by itself, without its extras."""
    lines = importlib.metadata.distribution(name).requires or []
    return [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


def _fingerprint(base: Base, dockerfile: bytes, packages: Sequence[importlib.metadata.Distribution]) -> str:
    said = hashlib.sha256(f"{base.id}\n{[(item.name, item.version) for item in packages]}\n".encode())
    said.update(dockerfile)
    for source, inside in _own_files():
        said.update(f"{inside}\n".encode() + source.read_bytes())
    return said.hexdigest()


def _own_files() -> list[tuple[Path, Path]]:
    """Each with its path in the package, the catalogue's among them."""
    package, shipped = Path(stormdrill.__file__).parent, catalogue.root()
    files = [(path, path.relative_to(package)) for path in _files(package)]
    if not shipped.is_relative_to(package):
        for name in SHIPPED:
            files += [(path, Path("catalogue") / path.relative_to(shipped)) for path in _files(shipped / name)]
    return sorted(files, key=lambda item: item[1])


def _files(place: Path) -> list[Path]:
    found = [place] if place.is_file() else place.rglob("*")
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def _copy(package: importlib.metadata.Distribution, site: Path) -> None:
    """The files that the package's own record names."""
    for file in package.files or []:
        if file.suffix != ".pyc" and ".." not in file.parts:
            place = site / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(package.locate_file(file)), place)


def _download(packages: Sequence[importlib.metadata.Distribution], base: Base, site: Path) -> None:
    """The same versions for another Python, by the hashes of the lock. Raises Refused."""
    lock = catalogue.root() / "requirements.lock"
    blocks = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")) if lock.is_file() else []
    wanted = {re.sub(r"[-_.]+", "-", item.name).lower() for item in packages}
    chosen = [block for block in blocks if block.partition("==")[0].lower() in wanted]
    asked = site.parent / "wanted.txt"
    asked.write_text("\n".join(block.strip() for block in chosen) + "\n", encoding="utf-8")
    machine = platform.machine()
    argv = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    argv += ["--require-hashes", "--only-binary=:all:", "--implementation", "cp", "--python-version", base.python]
    for tag in (f"manylinux2014_{machine}", f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}", "any"):
        argv += ["--platform", tag]
    done = subprocess.run(
        [*argv, "--target", str(site), "-r", str(asked)], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        here = f"{base.name} has Python {base.python}, this environment {_own_python()}"
        raise Refused(f"target docker: {here}, and its packages could not be fetched ({why}); {HELP}")


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _known(engine: Engine, name: str, id: str) -> Base:
    """What the base offers, asked of it once and kept by its id."""
    kept = remembered_in(id)
    try:
        return msgjson.decode(kept.read_bytes(), type=Base)
    except (OSError, ValueError):
        pass
    from stormdrill.targets.docker.starting import ask_image

    script = (
        "import json,shutil,sys;"
        "print(json.dumps([f'{sys.version_info[0]}.{sys.version_info[1]}', bool(shutil.which('iptables'))]))"
    )
    said = ask_image(name, ["python3", "-c", script])
    try:
        python, iptables = json.loads(said)
    except ValueError:
        raise Refused(f"target docker: the base {name} has no python3 that answers ({said[-200:]}); {HELP}") from None
    base = Base(name, id, str(python), bool(iptables))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(msgjson.encode(base))
    return base


if __name__ == "__main__":
    sys.exit(main())
