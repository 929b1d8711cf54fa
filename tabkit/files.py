"""Writing whole or not at all, one writer at a time: what is interrupted leaves nothing half-written under its final name."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of ``path`` in one step once the block ends without an error.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with whole_file(place) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> place.read_text(), sorted(p.name for p in place.parent.iterdir())
    ('whole', ['a.txt'])
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _readable_by_others(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only where something stopped it


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, in place of what was there, whole or not at all; lines end in a line feed on every system."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes ``path``, which must not hold anything, once the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield temporary
        _readable_by_others(temporary, 0o755)
        if path.is_dir():
            path.rmdir()  # an empty folder may be there already; Windows replaces none
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_writer(path: Path) -> Iterator[bool]:
    """Hold ``path`` for this process, whether it exists or not; yield false if another process of this user holds it.

    Whoever holds it lets go when it ends, however it ends. Locks lie in the temporary folder, not beside the output.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    # A folder per user: nobody else may write into it.
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    folder = Path(tempfile.gettempdir()) / f"tabkit-locks{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _readable_by_others(path: Path, mode: int) -> None:
    # What tempfile makes is private; what a run leaves is there to be handed on, as far as the user's umask lets it.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask | 0o600)
