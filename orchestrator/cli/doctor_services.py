"""Checks of what lies outside this machine: a Ray cluster, the bucket, the shards, the tracking store, the clock."""

from __future__ import annotations

import email.utils
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from orchestrator.cli.findings import ClusterAccess, Finding
from orchestrator.config import RunConfig
from orchestrator.config.uris import absolute_path, local_path
from orchestrator.errors import DataError, StorageError
from orchestrator.text import counted

_SLOW_MS = 500.0
_MAX_SKEW_S = 60.0
"""S3 refuses requests signed 15 minutes off; a minute is odd already."""


def ray_cluster(config: RunConfig, access: ClusterAccess | None) -> Iterator[Finding]:
    """A submission target's version and authentication, or what a local Ray would do."""
    if access is not None:
        from orchestrator.jobs import connect, warnings_of

        client = connect(
            access.address, token_file=access.token_file, ca_file=access.ca_file, allow_insecure=True
        )
        head = client.head
        yield Finding(
            name="ray", text=f"{head.url}: Ray {head.ray_version}, authentication: {head.auth_mode}"
        )
        for warning in warnings_of(head):
            yield Finding(name="ray", text=warning, warning=True)
        return
    from orchestrator.cluster import default_token_path, find_token, ignored_address, local_cluster
    from orchestrator.sweep.run import check_ray

    token, notes = find_token(), check_ray(config)
    there = local_cluster().text()
    yield Finding(name="ray", text=f"a sweep starts a Ray of its own on 127.0.0.1, with {there}")
    for note in notes:
        yield Finding(name="ray", text=note, warning=True)
    if ignored_address() and token is None:
        text = "that cluster may be open to anyone, no token was found; give it one (docs/cluster.md)"
        yield Finding(name="ray", text=text, warning=True)
    path = default_token_path()
    if path.exists() and path.stat().st_mode & 0o077:
        text = f"{path} can be read by others: chmod 600 {shlex.quote(str(path))}"
        yield Finding(name="token", text=text, warning=True)


def storage(config: RunConfig) -> Iterator[Finding]:
    """Write, list, read and delete one small object, and the latency of a read."""
    from orchestrator.storage import check_store
    from orchestrator.sweep.journal import Runs

    runs = Runs.of(config.storage)
    root, latency_ms = runs.root, check_store(runs.store_with(config.storage))
    slow = f"; over {_SLOW_MS:g} ms: is the bucket in this region?" if latency_ms > _SLOW_MS else ""
    text = f"{root}: write, list, read and delete work; a read takes {latency_ms:.1f} ms{slow}"
    yield Finding(name="storage", text=text, warning=bool(slow))


def plan(config: RunConfig) -> Iterator[Finding]:
    """What the configuration plans, and the earlier sweep and the file that it begins with."""
    from orchestrator.sweep.run import check_initial
    from orchestrator.sweep.search import read_warm_start
    from orchestrator.sweep.space import plan_sweep

    check_initial(config)
    read_warm_start(config)
    planned = plan_sweep(config)
    yield Finding(name="plan", text=f"known beforehand: {counted(len(planned.trials), 'trial')}")
    for note in planned.notes:
        yield Finding(name="plan", text=note)


def cache(config: RunConfig) -> Iterator[Finding]:
    """The node's cache folder."""
    from orchestrator.sweep.run import check_cache

    yield Finding(name="cache", text=f"{check_cache(config)} can be written")


def data(config: RunConfig) -> Iterator[Finding]:
    """The shards: labels, digest, and whether there are enough of them for the workers."""
    from orchestrator.data import open_shards, survey_source
    from orchestrator.data.format import check_losses
    from orchestrator.data.pack import split_pattern
    from orchestrator.sweep.run import check_shards, check_survey

    if config.data.source == "scenes":
        images = config.data.scenes_train_images + config.data.scenes_test_images
        yield Finding(name="data", text=f"embedded scenes, {counted(images, 'image')}, packed on first use")
        return
    local = local_path(config.data.source)
    is_folder = "://" not in config.data.source and split_pattern(config.data.source)[1] is None
    if is_folder and not local.exists():
        raise DataError(
            f"data.source: nothing at {absolute_path(str(local))}; give a folder, an s3:// prefix or `scenes`"
        )
    try:
        shards = open_shards(config.data.source, config.data, config.storage)
    except DataError as err:
        survey = survey_source(config)
        yield Finding(name="data", text=f"{survey.source}: no shards yet, packed on first use ({err})")
        remarks = (*survey.remarks, *(note.text() for note in survey.notes))
        yield from (Finding(name="data", text=remark, warning=True) for remark in remarks)
        check_losses(config.data.source, survey.notes, allow_loss=config.data.allow_loss)
        check_survey(config, survey)
        return
    labels = ", ".join(shards.labels) or "none, so that nothing is probed and no geometry can be ranked"
    text = f"{shards.uri}: labels {labels}; digest {shards.digest[:12]}"
    yield Finding(name="data", text=text, warning=not shards.labels)
    check_shards(config, shards)
    num_shards, num_workers = len(shards.splits.get(config.data.train_split, ())), config.train.num_workers
    if num_shards < num_workers:
        text = (
            f"{counted(num_shards, 'training shard')} for {counted(num_workers, 'worker')}: several nodes read each "
            "shard; pack smaller ones (`orchestrator shards pack`)"
        )
        yield Finding(name="shards", text=text, warning=True)


def tracking(config: RunConfig) -> Iterator[Finding]:
    """Whether the tracking store answers and takes a run; a sweep asks the same before it starts."""
    from orchestrator.sweep.journal import Runs
    from orchestrator.tracking import check_location, check_writable, find_location

    place = find_location(config.tracking, str(Runs.of(config.storage).local_folder))
    started_s = time.monotonic()
    if problem := check_location(place):
        text = f"{problem}; a sweep would be spooled until it answers"
        yield Finding(name="tracking", text=text, warning=True)
        return
    took_ms = 1000 * (time.monotonic() - started_s)
    if not place.remote:
        yield Finding(name="tracking", text=f"MLflow at {place.uri} can be written")
        return
    check_writable(place)
    yield Finding(name="tracking", text=f"MLflow at {place.uri} takes runs; it answered in {took_ms:.0f} ms")


def clock(config: RunConfig, access: ClusterAccess | None) -> Iterator[Finding]:
    """This machine's clock against the `Date` of the servers that a sweep talks to."""
    places = [config.storage.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"), config.tracking.uri]
    if access is not None:
        from orchestrator.jobs.head import head_url

        places.append(head_url(access.address))
    for url in places:
        if url is None or not url.startswith(("http://", "https://")):
            continue
        skew_s = _skew_s(url)
        if skew_s is None:
            continue
        if abs(skew_s) > _MAX_SKEW_S:
            text = f"this clock is {skew_s:+.0f} s off that of {url}: set it (NTP); S3 refuses signatures 900 s off"
            yield Finding(name="clock", text=text, exit_code=StorageError.exit_code)
        else:
            yield Finding(name="clock", text=f"within {max(1.0, abs(skew_s)):.0f} s of {url}")


def _skew_s(url: str) -> float | None:
    """Our clock minus the server's, in seconds; None when it does not say. Any HTTP answer carries a date."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as err:
        date = err.headers.get("Date")
    except (OSError, ValueError):
        return None
    parsed = email.utils.parsedate_to_datetime(date) if date else None
    return None if parsed is None else time.time() - parsed.timestamp()
