"""How a process in a pod begins: told by the first line of its standard input what it is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stormdrill import __version__
from stormdrill.load.files import unpack
from stormdrill.load.locust.control import standard
from stormdrill.load.messages import Boot, Master, Worker, decode_boot

if TYPE_CHECKING:
    from stormdrill.load.locust.master import MasterProcess
    from stormdrill.load.locust.worker import WorkerProcess


def booted() -> MasterProcess | WorkerProcess:
    """Raises ValueError or MsgspecError when it is told something else, or nothing."""
    boot = decode_boot(standard().line())
    if boot.version != __version__:
        what = f"this image has stormdrill {__version__}, and the run is of {boot.version}"
        raise ValueError(f"{what}; name an image of the same version in the system file")
    if isinstance(boot.config, Worker):
        from stormdrill.load.locust.worker import WorkerProcess

        return WorkerProcess(boot.config)
    return _master(boot, boot.config)


def _master(boot: Boot, config: Master) -> MasterProcess:
    """It hands the files on, from its memory."""
    from stormdrill.load.locust.master import MasterProcess

    with tempfile.TemporaryDirectory(prefix="stormdrill-load-") as name:
        folder = Path(name)
        unpack(boot.files, folder)
        load = replace(config.load, locustfile=str(folder / config.load.locustfile))
        return MasterProcess(replace(config, directory=name, load=load))
