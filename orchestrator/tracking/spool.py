"""A tracker that never waits: calls are appended to a file and a background thread delivers them.

The file is append-only JSON lines, synced before a call returns, and a second file holds the offset up to
which the store has taken it. While the store is away calls pile up in the file; after a crash the next start
on the same folder delivers what is left. Delivery is at least once and in order; the trackers behind are
idempotent, so nothing is lost or doubled. A call that the store refuses for good is put aside in
`refused.jsonl` and does not hold up the rest. Why the rest waits is kept in `problem`, for whoever asks after the
process has ended (`read_delivery`). A full disk loses nothing while the process lives: calls wait in memory
until there is room. One process at a time owns a folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import TrackingError
from orchestrator.protocol.reports import Row
from orchestrator.tracking.base import (
    Dataset,
    Delivery,
    Links,
    ParameterValue,
    RunStatus,
    Tracker,
    UnavailableError,
)

logger = logging.getLogger(__name__)

_ROWS_PER_CALL = 200
_READ_BYTES = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_TRIES_WHILE_REACHABLE = 5
_BROKEN = "broken"
_CALLS, _ACKED, _REFUSED, _PROBLEM = "calls.jsonl", "acked", "refused.jsonl", "problem"


class Destination(Tracker, Protocol):
    """A tracker that a spool can deliver to: it can pick up a sweep that an earlier process started."""

    def select_sweep(self, sweep_id: str) -> None:
        """Go on with a sweep without touching it."""
        ...

    def reachable(self) -> bool:
        """Whether the store answers at all."""
        ...


@dataclass(frozen=True)
class _Pending:
    """One spooled call and the offset of the byte after its line."""

    call: dict[str, Any]
    end: int


class SpoolFile:
    """The append-only file of calls and the offset up to which they were taken.

    `put` and `settle` may be called from any thread, one at a time; `read`, `acknowledge` and `refuse` belong to the
    sender. A call for which the disk has no room is kept in memory, with all after it, until there is some.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise TrackingError(
                f"{folder}: calls to MLflow cannot be kept here ({error.strerror or error}); give write access, or "
                "run the command in a folder that can be written"
            ) from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise TrackingError(
                f"{folder}: another process is delivering this spool; wait until it has ended"
            ) from error
        self._path, self._acked_path = folder / _CALLS, folder / _ACKED
        _drop_torn_line(self._path)
        self._file = self._path.open("ab", buffering=0)
        self.end = self._file.tell()
        self.acked = min(_read_acked(folder), self.end)
        self.num_pending = _count_pending(self._path, self.acked)
        self._unwritten: deque[bytes] = deque()
        self._is_full = False

    def put(self, call: Mapping[str, Any]) -> None:
        """Append a call and sync it to disk, if there is room."""
        self._unwritten.append(json.dumps(call, separators=(",", ":")).encode() + b"\n")
        self.num_pending += 1
        self.settle()

    def settle(self) -> bool:
        """Write what is kept in memory; returns whether all of it is on disk."""
        while self._unwritten:
            line = self._unwritten[0]
            try:
                written = self._file.write(line)
                os.fsync(self._file.fileno())
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                self._file.truncate(self.end)  # half a line would spoil the ones that come after it
                if not self._is_full:
                    logger.warning(
                        "%s: %s; what MLflow is to be told is kept in memory until there is room",
                        self._path,
                        error.strerror or error,
                    )
                self._is_full = True
                return False
            self._unwritten.popleft()
            self.end += len(line)
            self._is_full = False
        return True

    def put_bytes(self, data: bytes) -> str:
        """Keep an artifact's bytes beside the calls; returns its file name."""
        name = f"artifact-{time.time_ns()}-{threading.get_ident() % 100000}"
        path = self.folder / name
        try:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return name

    def read(self) -> list[_Pending]:
        """The next calls not yet taken, about a megabyte of them, in order."""
        with self._path.open("rb") as file:
            file.seek(self.acked)
            data = file.read(min(_READ_BYTES, self.end - self.acked))
            if data and not data.endswith(b"\n"):
                data += file.readline()
        pending, offset = [], self.acked
        for line in data.splitlines(keepends=True):
            offset += len(line)
            pending.append(_Pending(_parse(line), offset))
        return pending

    def acknowledge(self, offset: int, num_calls: int) -> None:
        """Note that the next calls, up to an offset, were taken."""
        temporary = self._acked_path.with_suffix(".tmp")
        temporary.write_text(str(offset))
        temporary.replace(self._acked_path)
        self.acked = offset
        self.num_pending -= num_calls

    def refuse(self, call: Mapping[str, Any], reason: str) -> None:
        """Put a call aside."""
        with (self.folder / _REFUSED).open("a") as file:
            file.write(json.dumps({"reason": reason, "call": call}) + "\n")

    def note_problem(self, problem: str) -> None:
        """Keep, or with an empty text forget, why calls wait."""
        path = self.folder / _PROBLEM
        with contextlib.suppress(OSError):  # a full disk; the calls matter more
            if problem:
                path.write_text(problem)
            else:
                path.unlink(missing_ok=True)

    @property
    def num_unwritten(self) -> int:
        """How many calls are in memory alone."""
        return len(self._unwritten)

    def close(self) -> None:
        """Let the folder go."""
        self._file.close()
        self._lock_file.close()


def read_delivery(folder: Path) -> Delivery:
    """How the calls in a spool's folder stand, without owning it; none wait where there is no such folder."""
    path, refused = folder / _CALLS, folder / _REFUSED
    acked = min(_read_acked(folder), path.stat().st_size) if path.exists() else 0
    return Delivery(
        folder=folder,
        pending=_count_pending(path, acked) if path.exists() else 0,
        refused=_count_pending(refused, 0) if refused.exists() else 0,
        has_delivered=acked > 0,
        problem=(folder / _PROBLEM).read_text() if (folder / _PROBLEM).exists() else "",
    )


def _count_pending(path: Path, acked: int) -> int:
    with path.open("rb") as file:
        file.seek(acked)
        return sum(1 for _ in file)


def _read_acked(folder: Path) -> int:
    try:
        return int((folder / _ACKED).read_text())
    except (FileNotFoundError, ValueError):
        return 0  # everything is sent again, which has no effect where it was taken


class SpooledTracker:
    """Puts a blocking tracker behind a spool; no call waits for the store."""

    def __init__(self, make_destination: Callable[[], Destination], folder: Path, *, links: Links) -> None:
        self._make_destination, self._links = make_destination, links
        self._spool = SpoolFile(folder)
        self._destination: Destination | None = None
        self._sweep_id = self._problem = ""
        self._failures = self._num_flushes = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="tracking-spool", daemon=True)
        self._thread.start()

    def start_sweep(
        self,
        sweep_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Spool the start of the sweep."""
        self._sweep_id = sweep_id
        fields = {"sweep_id": sweep_id, "name": name, "params": dict(params), "tags": dict(tags)}
        self._put("start_sweep", fields, time_ms=time_ms or _now_ms())

    def start_trial(
        self,
        trial_id: str,
        name: str,
        params: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
        *,
        time_ms: int | None = None,
    ) -> None:
        """Spool the start of a trial."""
        fields = {"trial_id": trial_id, "name": name, "params": dict(params), "tags": dict(tags)}
        self._put("start_trial", fields, time_ms=time_ms or _now_ms())

    def log_rows(self, trial_id: str | None, rows: Sequence[Row]) -> None:
        """Spool metrics."""
        if rows:
            plain = [[row.images, row.timestamp_ms, _floats(row.metrics)] for row in rows]
            self._put("log_rows", {"trial_id": trial_id, "rows": plain})

    def log_artifact(self, trial_id: str | None, path: str, data: bytes) -> None:
        """Spool a file."""
        try:
            name = self._spool.put_bytes(data)
        except OSError as error:
            logger.warning("%s will be missing in MLflow: %s", path, error.strerror or error)
            return
        self._put("log_artifact", {"trial_id": trial_id, "path": path, "file": name})

    def set_tags(self, trial_id: str | None, tags: Mapping[str, str]) -> None:
        """Spool tags."""
        self._put("set_tags", {"trial_id": trial_id, "tags": dict(tags)})

    def log_dataset(self, trial_id: str | None, dataset: Dataset) -> None:
        """Spool a data set."""
        self._put("log_dataset", {"trial_id": trial_id, "dataset": asdict(dataset)})

    def register_model(self, trial_id: str, name: str, folder: str, tags: Mapping[str, str]) -> None:
        """Spool the registration of a model whose files were logged before."""
        fields = {"trial_id": trial_id, "name": name, "folder": folder, "tags": dict(tags)}
        self._put("register_model", fields)

    def finish_trial(self, trial_id: str, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Spool the end of a trial."""
        self._put("finish_trial", {"trial_id": trial_id, "status": status}, time_ms=time_ms or _now_ms())

    def finish_sweep(self, status: RunStatus, *, time_ms: int | None = None) -> None:
        """Spool the end of the sweep."""
        self._put("finish_sweep", {"status": status}, time_ms=time_ms or _now_ms())

    def links(self) -> Links:
        """Where to look, with ids as far as the store has given them."""
        with self._changed:
            sweep_id = self._links.sweep_id or self._sweep_id
            return replace(
                self._links, sweep_id=sweep_id, pending=self._spool.num_pending, problem=self._problem
            )

    def flush(self, timeout_s: float) -> bool:
        """Wait until the store has taken everything; returns whether it has."""
        with self._changed:
            self._num_flushes += 1
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._spool.num_pending == 0, timeout_s)

    def close(self, timeout_s: float = 30.0) -> None:
        """Deliver what can be delivered in time; the rest stays in the folder for the next start."""
        delivered = self.flush(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0 if delivered else 12.0)
        self._spool.note_problem("" if delivered else self._problem or "there was not enough time")
        if self._spool.num_unwritten:
            logger.warning(
                "%d of the calls to MLflow are lost: the disk of %s is full",
                self._spool.num_unwritten,
                self._spool.folder,
            )
        if not self._thread.is_alive():
            self._spool.close()

    def _put(self, method: str, fields: Mapping[str, Any], **options: Any) -> None:
        with self._changed:
            if self._closing or not self._sweep_id:
                why = "is closed" if self._closing else "has no sweep: start_sweep comes first"
                raise TrackingError(f"{method}: the tracker {why}")
            self._spool.put({"call": method, "sweep": self._sweep_id, **fields, **options})
            self._changed.notify_all()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._wait_for_calls():
            try:
                self._deliver()
                pause_s = _FIRST_PAUSE_S
                self._set_problem("")
            except Exception as error:  # whatever it is, training goes on and the call is kept
                if pause_s == _FIRST_PAUSE_S:
                    logger.warning("MLflow: %s; what it is to be told waits in %s", error, self._spool.folder)
                self._set_problem(str(error))
                self._pause(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _set_problem(self, problem: str) -> None:
        with self._changed:
            self._problem = problem

    def _pause(self, seconds: float) -> None:
        """Wait before the next try, unless someone flushes."""
        with self._changed:
            asked = self._num_flushes
            self._changed.wait_for(lambda: self._closing or self._num_flushes > asked, seconds)

    def _wait_for_calls(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._spool.num_pending > 0)
            return not self._closing

    def _deliver(self) -> None:
        with self._changed:
            is_settled = self._spool.settle()
        pending = self._spool.read()
        if not pending and not is_settled:
            raise UnavailableError(f"{self._spool.folder}: the disk is full; free some of it")
        for group in _grouped(pending):
            if self._closing:
                return
            call = group[0].call
            try:
                self._send(call, group)
                self._failures = 0
            except Exception as error:
                refused = isinstance(error, TrackingError) and not isinstance(error, UnavailableError)
                if not refused and not self._is_poison():
                    raise
                for item in group:
                    self._spool.refuse(item.call, str(error))
                logger.warning(
                    "MLflow will not take one of this sweep's calls, which is put aside in %s: %s",
                    self._spool.folder / _REFUSED,
                    error,
                )
                self._failures = 0
            self._taken(group)

    def _send(self, call: Mapping[str, Any], group: Sequence[_Pending]) -> None:
        if call["call"] == _BROKEN:
            raise TrackingError(f"{self._spool.folder}: a line of the spool cannot be read")
        if self._destination is None:
            self._destination = self._make_destination()
        destination = self._destination
        if call["call"] != "start_sweep":
            destination.select_sweep(call["sweep"])
        if call["call"] == "log_rows":
            rows = [_row(item) for pending in group for item in pending.call["rows"]]
            destination.log_rows(call["trial_id"], rows)
        elif call["call"] == "log_artifact":
            path = self._spool.folder / call["file"]
            if path.exists():  # gone: it was delivered, and the note of it was lost in a crash
                destination.log_artifact(call["trial_id"], call["path"], path.read_bytes())
        elif call["call"] == "log_dataset":
            destination.log_dataset(call["trial_id"], Dataset(**call["dataset"]))
        else:
            arguments = {key: value for key, value in call.items() if key not in ("call", "sweep")}
            if "status" in arguments:
                arguments["status"] = RunStatus(arguments["status"])
            getattr(destination, call["call"])(**arguments)

    def _taken(self, group: Sequence[_Pending]) -> None:
        destination = self._destination
        for item in group:
            if item.call["call"] == "log_artifact":
                (self._spool.folder / item.call["file"]).unlink(missing_ok=True)
        with self._changed:
            self._spool.acknowledge(group[-1].end, len(group))
            if destination is not None:
                self._links = destination.links()
            self._changed.notify_all()

    def _is_poison(self) -> bool:
        """Whether one call keeps failing while the store is well: it would hold up everything behind it."""
        self._failures += 1
        if self._failures < _TRIES_WHILE_REACHABLE or self._destination is None:
            return False
        return self._destination.reachable()


def _parse(line: bytes) -> dict[str, Any]:
    """A line's call; one that is broken, whatever broke it, is a call that will be refused."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return (
        found if isinstance(found, dict) and "call" in found else {"call": _BROKEN, "line": repr(line[:200])}
    )


def _grouped(pending: Sequence[_Pending]) -> list[list[_Pending]]:
    """Join neighbouring metric calls of one run, up to a number of rows, so that they travel in one batch."""
    groups: list[list[_Pending]] = []
    num_rows = 0
    for item in pending:
        call = item.call
        rows = len(call["rows"]) if call["call"] == "log_rows" else 0
        last = groups[-1][0].call if groups else {}
        same = rows and all(last.get(key) == call[key] for key in ("call", "sweep", "trial_id"))
        if same and num_rows + rows <= _ROWS_PER_CALL:
            groups[-1].append(item)
            num_rows += rows
        else:
            groups.append([item])
            num_rows = rows
    return groups


def _row(item: Sequence[Any]) -> Row:
    return Row(images=item[0], timestamp_ms=item[1], metrics=item[2])


def _floats(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items()}


def _now_ms() -> int:
    return int(time.time() * 1000)


def _drop_torn_line(path: Path) -> None:
    """Cut a last line that a crash left half-written."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position < size:
            file.truncate(position)
