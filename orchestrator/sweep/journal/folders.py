"""Where the sweeps of a folder or bucket are, and what follows from it: stores, URIs and the options of commands.

A sweep goes on where it was found, whatever its recorded configuration says of `storage`: it may have been copied or
moved, its folder may be named from elsewhere, and its bucket may be reached by another address.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.config import apply_overrides, flatten
from orchestrator.config.models import RunConfig, StorageConfig
from orchestrator.config.uris import absolute_path
from orchestrator.errors import NotFoundError
from orchestrator.storage import ENDPOINT_VARIABLES, Store, open_store
from orchestrator.text import command_text

DEFAULT_RUNS = "runs"
LOCATIONS = ("data.source", "data.cache_dir", "train.init_from", "tracking.uri", "sweep.warm_start")
"""Settings beside `storage.uri` that may name a file or a folder."""
_WORDS = ("scenes", "databricks", "uc")
"""What such a setting may say that is no path."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """A folder or `s3://` prefix of sweeps, as it was given; the endpoint counts for a bucket alone."""

    uri: str = DEFAULT_RUNS
    endpoint_url: str | None = None

    @classmethod
    def of(cls, storage: StorageConfig) -> Runs:
        """Where a configuration keeps its sweeps."""
        return cls(uri=storage.uri, endpoint_url=storage.endpoint_url)

    @property
    def is_bucket(self) -> bool:
        """Whether the sweeps are objects and not files."""
        return self.uri.startswith("s3://")

    @property
    def root(self) -> str:
        """The URI, absolute."""
        uri = self.uri if "://" in self.uri else str(absolute_path(self.uri))
        return uri.rstrip("/") or uri

    @property
    def local_folder(self) -> Path:
        """The folder that MLflow's default store and the spool lie in; of a bucket `runs`, as they are files."""
        if self.is_bucket:
            return Path(DEFAULT_RUNS).resolve()
        path = unquote(urlsplit(self.uri).path) if self.uri.startswith("file:") else self.uri
        return absolute_path(path)

    def sweep_uri(self, sweep_id: str) -> str:
        """A sweep's folder, absolute."""
        return f"{self.root.rstrip('/')}/{sweep_id}"

    def store(self) -> Store:
        """The store of all sweeps."""
        return self.store_with(StorageConfig(endpoint_url=self.endpoint_url))

    def store_with(self, storage: StorageConfig) -> Store:
        """The same, reached as a configuration says."""
        return open_store(self.root, storage)

    def sweep_store(self, sweep_id: str) -> Store:
        """The store of a sweep's folder."""
        return self.store().child(sweep_id)

    def options(self) -> tuple[str, ...]:
        """The options by which other commands find the sweeps; none where they look by themselves."""
        words: tuple[str, ...] = () if self.uri.rstrip("/") == DEFAULT_RUNS else ("--runs", self.uri)
        if self.is_bucket and self.endpoint_url is not None:
            words += ("--endpoint-url", self.endpoint_url)
        return words

    def command(self, *words: str, then: tuple[str, ...] = ()) -> str:
        """A command on these sweeps, to be printed; `then` follows the options that find them."""
        return command_text(*words, *self.options(), *then)

    def missing(self, sweep_id: str) -> NotFoundError:
        """The error for a sweep that is not there."""
        return NotFoundError(
            f"{self.sweep_uri(sweep_id)}: there is no sweep; `{self.command('ls')}` lists those there are"
        )

    def placed(self, config: RunConfig, folder: str = "") -> RunConfig:
        """A recorded configuration whose sweep was found here, read as it was meant in the folder it was started in."""
        values: dict[str, object] = {"storage.uri": self.uri}
        if self.is_bucket:
            values["storage.endpoint_url"] = self._endpoint_for(config)
        if folder and folder != os.getcwd() and Path(folder).is_dir():
            values |= absolute_uris(config, folder)
        given = flatten(config)
        changed = {key: value for key, value in values.items() if given.get(key) != value}
        return apply_overrides(config, changed) if changed else config

    def _endpoint_for(self, config: RunConfig) -> str | None:
        """How the bucket was reached, which a recorded address may not be from here."""
        recorded = config.storage.endpoint_url
        if self.endpoint_url is not None or recorded is None:
            return self.endpoint_url
        return next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)


def absolute_uris(config: RunConfig, folder: str) -> dict[str, str]:
    """The relative paths of a configuration, by dotted key, as seen from a folder."""
    given = flatten(config)
    paths = {key: _absolute(given.get(key), folder, is_name=key == "sweep.warm_start") for key in LOCATIONS}
    return {key: path for key, path in paths.items() if path is not None}


def _absolute(value: object, folder: str, *, is_name: bool) -> str | None:
    """A relative path, absolute; None for whatever is none."""
    if not isinstance(value, str) or value in _WORDS or (is_name and "/" not in value):
        return None
    scheme, path = (
        ("sqlite:///", value.removeprefix("sqlite:///")) if value.startswith("sqlite:///") else ("", value)
    )
    if "://" in path or path.startswith(("/", "~", "file:", "pipe:")):
        return None
    return f"{scheme}{os.path.normpath(os.path.join(folder, path))}"
