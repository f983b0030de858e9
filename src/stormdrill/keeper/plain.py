"""Plain files in a folder that others write too, a container among them: nothing here follows a link, waits for a pipe
or reads without end. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

LIMIT_BYTES = 1 << 20
"""What is longer is none of the files that are restored."""


class Plain(NamedTuple):
    data: bytes
    mode: int
    owner: tuple[int, int]


@contextlib.contextmanager
def folder(path: str, inside: int | None = None) -> Iterator[int]:
    """A descriptor of the folder. Raises OSError, also when the path leads through a link."""
    if inside is None and os.path.realpath(path) != path:
        raise OSError(errno.ELOOP, "a link leads elsewhere")
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    try:
        yield fd
    finally:
        os.close(fd)


def read(inside: int, name: str) -> Plain | None:
    """None when nothing is there. Raises OSError, also for what is no plain file."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link") from None
        raise
    with open(fd, "rb") as file:  # noqa: PTH123
        told = os.fstat(fd)
        if not stat.S_ISREG(told.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {LIMIT_BYTES} bytes")
    return Plain(data, stat.S_IMODE(told.st_mode), (told.st_uid, told.st_gid))


def write(inside: int, name: str, new: Plain, part: str, beside: int | None = None) -> None:
    """Atomically, and on the disk when it returns. `part`: its name until then, in `beside` or in the same folder."""
    there = inside if beside is None else beside
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part, dir_fd=there)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(part, flags, 0o600, dir_fd=there)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123
            file.write(new.data)
            with contextlib.suppress(PermissionError):
                os.fchown(fd, *new.owner)
            os.fchmod(fd, new.mode)
            file.flush()
            os.fsync(fd)
        os.replace(part, name, src_dir_fd=there, dst_dir_fd=inside)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=there)
    os.fsync(inside)
