"""No two commands write to one folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"  # stays in the folder; that it is there says nothing


class FolderInUse(RuntimeError):
    """Another process works in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder if need be, and holds it. However the process ends, the system lets go of it.

    Raises FolderInUse at once if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUse(
            f"another process is writing to {folder}. Wait for its end, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()
