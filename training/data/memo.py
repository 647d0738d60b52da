"""Small facts that are costly to find out, kept in a file between runs: hashes, sizes, captions."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

WAIT_S = 60.0
"""For other processes that write."""


@dataclass(frozen=True, kw_only=True)
class Memo:
    """Texts by keys in a SQLite file. What cannot be read is forgotten, since all of it can be found out again."""

    path: Path

    @contextlib.contextmanager
    def open(self) -> Generator[sqlite3.Connection, None, None]:
        """A connection; committed at the end. OSError when the disk is full or others write for too long."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS memo (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
                with connection:
                    yield connection
        except sqlite3.OperationalError as error:
            raise self.unusable(error) from error

    @contextlib.contextmanager
    def alone(self, what: str) -> Generator[None, None, None]:
        """While others find out the same things this waits for them, and then they are known. OSError as for `open`."""
        lock = FileLock(self.path.with_name(f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise self.unusable(error) from error
        try:
            yield
        finally:
            lock.release()
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)

    def unusable(self, error: Exception) -> OSError:
        """What to do about it."""
        return OSError(
            f"The cache's file {self.path} cannot be used: {error}. Free space, or set data.cache to a folder on "
            "another disk."
        )

    def read(self, key: str) -> str | None:
        """One text, or None."""
        return self.read_all([key]).get(key)

    def read_all(self, keys: list[str]) -> dict[str, str]:
        """Those of these that are known."""
        if not self.path.is_file():
            return {}
        try:
            with self.open() as connection:
                rows = ((key, connection.execute("SELECT value FROM memo WHERE key = ?", (key,))) for key in keys)
                return {key: found[0] for key, cursor in rows if (found := cursor.fetchone())}
        except sqlite3.DatabaseError:
            self.path.unlink(missing_ok=True)
            return {}

    def write(self, key: str, value: str) -> None:
        """Keep one text."""
        self.write_all({key: value})

    def write_all(self, values: Mapping[str, str]) -> None:
        """Keep some texts, all or none."""
        with self.open() as connection:
            connection.executemany("INSERT OR REPLACE INTO memo VALUES (?, ?)", values.items())
