"""The study's file: every event of every run, appended in transactions to one SQLite database that many may read.

What a reader shows is the fold of these events, so a notebook that attaches late, a second one, the Panel app and
``paredown status`` all see the same.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast, get_args

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from paredown.errors import ParedownError
from paredown.specs import SCHEMA, Event, EventKind, Payload, Stage, from_json, to_json

FILE_NAME = "study.sqlite"
_APPLICATION_ID = 0x50415245  # "PARE", in the header of the file: tells our databases from foreign ones
_RETIRED = frozenset({"CurvatureEstimate"})
"""Payloads of development versions, which nothing reads any more: what they held is estimated again."""

_PAYLOADS: dict[str, type[Payload]] = {kind.__name__: kind for kind in get_args(Payload)}

Value = TypeVar("Value", bound=Payload)


class Store:
    """The events of one study. Any number of threads and processes may read; one run at a time writes."""

    def __init__(self, folder: str | Path, *, create: bool = False) -> None:
        """Open the store of a study folder.

        Args:
            folder: The study's folder.
            create: Make folder and file where they are missing.

        Raises:
            ParedownError: If there is no store, it is not one of ours, it is damaged, it was written by a newer version,
                or the folder can't be written although `create` asks for that.
        """
        self.folder = Path(folder)
        self.path = self.folder / FILE_NAME
        self._threads = threading.local()
        try:
            there = self.path.is_file()
        except OSError as error:
            raise ParedownError(
                f"{self.path} can't be read: {error.strerror}; make the folder readable, or choose another study"
            ) from error
        if not create and not there:
            raise ParedownError(
                f"expected a study in {self.folder}, but {self.path} does not exist; start one with `paredown run --study {self.folder}`"
            )
        if create:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.artifacts.mkdir(exist_ok=True)
            except OSError as error:
                raise ParedownError(f"the study folder {self.folder} can't be made: {error}; choose another with --study") from error
        with self._explained():
            if create and self._empty():
                self._create()
            self._check()

    @property
    def lock_file(self) -> Path:
        """What the one process that writes holds locked."""
        return self.folder / "study.lock"

    @property
    def artifacts(self) -> Path:
        """Folder of the arrays."""
        return self.folder / "artifacts"

    @property
    def busy(self) -> bool:
        """Whether a process works on the study now."""
        try:
            with FileLock(self.lock_file).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that can't be written: nobody works there
            return False

    def _empty(self) -> bool:
        """Whether nothing was made yet: no file, or that of a process which was killed before it had made anything."""
        return self._connect().execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0

    def _create(self) -> None:
        self._connect().execute("PRAGMA journal_mode=WAL")
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")  # all of it or nothing
            db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={SCHEMA}")
            db.execute(
                "CREATE TABLE IF NOT EXISTS events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, time REAL NOT NULL, stage TEXT NOT NULL,"
                " kind TEXT NOT NULL, layer TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL, message TEXT NOT NULL, payload TEXT NOT NULL)"
            )
            db.execute("CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, sequence)")

    def _check(self) -> None:
        db = self._connect()
        application, schema = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if application != _APPLICATION_ID:
            raise ParedownError(f"{self.path} is an SQLite file, but not a Paredown study; choose another folder")
        if schema > SCHEMA:
            raise ParedownError(
                f"{self.path} was written by a newer Paredown (schema {schema}, this one reads up to {SCHEMA}); upgrade Paredown to open it"
            )
        db.execute("SELECT count(*) FROM events").fetchone()

    def append(
        self,
        run: str,
        stage: Stage,
        kind: EventKind,
        *,
        layer: str = "",
        done: int = 0,
        total: int = 0,
        message: str = "",
        payload: Sequence[Payload] = (),
    ) -> Event:
        """Write one event, all of it or nothing; returns it with its place in the sequence.

        Raises:
            ParedownError: If the file can't be written (read-only folder, full disk) or a value is not finite.
        """
        now = time.time()
        stored = json.dumps([[type(value).__name__, json.loads(to_json(value))] for value in payload], allow_nan=False, ensure_ascii=False)
        with self._explained(), self._connection() as db:
            cursor = db.execute(
                "INSERT INTO events (run, time, stage, kind, layer, done, total, message, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (run, now, stage, kind, layer, done, total, message, stored),
            )
        return Event(run, cast(int, cursor.lastrowid), now, stage, kind, layer, done, total, message, tuple(payload))

    def events(self, *, after: int = 0, kinds: Sequence[EventKind] = ()) -> list[Event]:
        """The events behind the sequence number `after`, in order; only those of `kinds` where given."""
        query = "SELECT sequence, run, time, stage, kind, layer, done, total, message, payload FROM events WHERE sequence > ?"
        if kinds:
            query += f" AND kind IN ({', '.join('?' * len(kinds))})"
        with self._explained():
            rows = self._connect().execute(query + " ORDER BY sequence", (after, *kinds)).fetchall()
        return [
            Event(
                run,
                sequence,
                when,
                stage,
                kind,
                layer,
                done,
                total,
                message,
                tuple(self._read(name, value) for name, value in json.loads(payload) if name not in _RETIRED),
            )
            for sequence, run, when, stage, kind, layer, done, total, message, payload in rows
        ]

    def payloads(self, kind: type[Value]) -> list[Value]:
        """Every value of one type that any event brought, in order."""
        with self._explained():
            rows = (
                self._connect()
                .execute("SELECT payload FROM events WHERE instr(payload, ?) ORDER BY sequence", (f'["{kind.__name__}"',))
                .fetchall()
            )
        return [cast(Value, self._read(name, value)) for (payload,) in rows for name, value in json.loads(payload) if name == kind.__name__]

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays as ``artifacts/NAME.safetensors``; written beside and renamed into place, so that a reader never sees half a file.

        Raises:
            ParedownError: If the file can't be written.
        """
        final = self._artifact(name)
        beside = final.with_suffix(f".partial-{os.getpid()}")
        try:
            save_file(dict(arrays), beside)
            beside.replace(final)
        except (OSError, SafetensorError) as error:
            raise ParedownError(
                f"{final} can't be written: {error}; free some disk space or make the folder writable, then run the same command again"
            ) from error
        finally:
            beside.unlink(missing_ok=True)

    def load_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays that were kept under a name; None where there are none, or the file is damaged and they must be computed again."""
        try:
            return load_file(self._artifact(name))
        except (FileNotFoundError, SafetensorError):
            return None

    def _artifact(self, name: str) -> Path:
        return self.artifacts / f"{name}.safetensors"

    def close(self) -> None:
        """Close this thread's connection."""
        db = getattr(self._threads, "db", None)
        if db is not None:
            db.close()
            del self._threads.db

    def _read(self, name: str, value: object) -> Payload:
        if name not in _PAYLOADS:
            raise ParedownError(f"{self.path} holds a {name}, which this version of Paredown does not know; upgrade Paredown to open it")
        return from_json(_PAYLOADS[name], json.dumps(value))

    def _connect(self) -> sqlite3.Connection:
        """One connection a thread: SQLite's own are not to be shared."""
        db = getattr(self._threads, "db", None)
        if db is None:
            db = sqlite3.connect(self._address(), timeout=30.0, uri=True)
            db.execute("PRAGMA synchronous=NORMAL")  # with WAL this survives a killed process; only a power cut may lose the last commits
            self._threads.db = db
        return db

    def _address(self) -> str:
        """A log beside the file is SQLite's own need: in a folder that can't be written, a file without one is read as it is."""
        address = self.path.absolute().as_uri()
        writable = os.access(self.folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
        return address if writable or self.path.with_name(f"{FILE_NAME}-wal").exists() else f"{address}?immutable=1"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._connect() as db:
            yield db

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            cause = str(error)
            remedy = {
                "attempt to write a readonly database": "make the folder writable or choose another study",
                "database or disk is full": "free some disk space and run the same command again: it goes on where it was",
                "unable to open database file": "check that the folder exists and can be read and written",
            }.get(cause, "run the same command again: what was written is kept")
            raise ParedownError(f"{self.path}: {cause}; {remedy}") from error
        except sqlite3.DatabaseError as error:
            raise ParedownError(
                f"{self.path} is damaged or not an SQLite file ({error}); restore it from a copy, or start a new study in another folder"
            ) from error
