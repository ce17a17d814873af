"""`shards pack`, `shards ls`, `shards verify` and `shards quarantine`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import emit, json_option, runs_option, set_option
from orchestrator.cli.streams import outlive_reader
from orchestrator.text import counted

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.data import BadSample, ShardFault, ShardSet
    from orchestrator.sweep.journal import Runs

_MAX_LISTED = 50


place_option = set_option("Set a key of data or storage, e.g. --set storage.endpoint_url=http://host:9000.")
"""`--set` of the keys that say how data is read: `data.*` and `storage.*`."""


@app.group()
def shards() -> None:
    """Image shards: pack them, list them, check them."""


@shards.command()
@click.argument("source")
@click.argument("uri")
@click.option(
    "--shard-size-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=64.0,
    show_default=True,
    help="A shard holds at most this much, and at most 1,000 images.",
)
@click.option(
    "--reencode",
    type=click.IntRange(1, 100),
    metavar="QUALITY",
    help="Write images as JPEGs of this quality; they are written as they came by default.",
)
@click.option(
    "--shorter-side-px",
    type=click.IntRange(min=1),
    help="With --reencode, shrink images to this shorter side.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads that read and write; one a core by default."
)
@click.option(
    "--allow-loss",
    is_flag=True,
    help="Go on without samples that are known to be lost; the manifest names them.",
)
@place_option
@json_option
def pack(
    source: str,
    uri: str,
    shard_size_mb: float,
    reencode: int | None,
    shorter_side_px: int | None,
    workers: int | None,
    allow_loss: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write SOURCE as WebDataset shards with a manifest at URI, a folder or an `s3://` prefix.

    What is finished is kept when the command is interrupted; the same command goes on from there.

    SOURCE is a folder of images (one sub-folder a class), a folder with the idx files of MNIST or Fashion-MNIST,
    other WebDataset shards (a folder, prefix or pattern like `s3://bucket/train-{000..127}.tar` or `'s/*.tar'`), or
    `scenes`. Exits with 3 where samples of it are lost, unless --allow-loss.
    """
    from orchestrator.cli.progress import telling
    from orchestrator.data import PackSettings, Reencode, pack_dataset, survey_source

    if shorter_side_px is not None and reencode is None:
        raise click.UsageError("--shorter-side-px changes images: give --reencode QUALITY too")
    smaller = None if reencode is None else Reencode(shorter_side_px=shorter_side_px, quality=reencode)
    config, packed = _config(source, overrides, allow_loss=allow_loss), _config(uri, overrides)
    remarks = survey_source(config).remarks
    outlive_reader()
    with telling() as tell:
        pack_dataset(
            source,
            uri,
            data=config.data,
            storage=config.storage,
            settings=PackSettings(shard_size_mb=shard_size_mb, reencode=smaller, workers=workers),
            progress=tell,
        )
    _show(packed, each=False, as_json=as_json, remarks=remarks)


@shards.command()
@click.argument("uri")
@click.option("--each", is_flag=True, help="Also list every shard.")
@place_option
@json_option
def ls(uri: str, each: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what is at URI: splits, samples, labels and the digest; nothing is packed or downloaded."""
    _show(_config(uri, overrides), each=each, as_json=as_json)


@shards.command()
@click.argument("uri")
@click.option("--decode", is_flag=True, help="Also decode every image and read every label.")
@place_option
@json_option
def verify(uri: str, decode: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read every shard at URI afresh; exits with 3 when something is lost or is not what the manifest says."""
    from orchestrator.cli.progress import telling
    from orchestrator.data import verify_source

    with telling() as tell:
        found = verify_source(_config(uri, overrides), decode=decode, progress=tell)
    checked = "sizes, hashes, samples, images and labels" if decode else "sizes, hashes and samples"
    sound = (
        "all as the manifest says"
        if found.has_manifest
        else "all sound; there is no manifest to compare with"
    )
    if found.copy_uri:
        sound += f"; this is the packed copy at {found.copy_uri}, {uri} itself holds no shards"
    head = f"{counted(found.num_shards, 'shard')}, {counted(found.num_samples, 'sample')} checked: {checked}"
    verdict = counted(len(found.faults), "fault") if found.faults else sound
    data = {
        "num_shards": found.num_shards,
        "num_samples": found.num_samples,
        "faults": [_fault_json(fault) for fault in found.faults],
        "notes": [note.to_json() for note in found.notes],
    }
    lines = [
        *_fault_lines(found.faults),
        *(f"note: {note.text()}" for note in found.notes),
        f"{head}; {verdict}",
    ]
    if not decode:
        lines.append(
            "images were not decoded and labels not read: --decode names those that a run would leave out"
        )
    emit(as_json, data, "\n".join(lines))
    sys.exit(3 if found.faults else 0)


@shards.command()
@click.argument("uri", required=False)
@click.option("--ledger", is_flag=True, help="Read nothing: list what runs on this node have left out.")
@click.option("--sweep", metavar="SWEEP", help="Instead of URI: what a sweep left out, on all of its nodes.")
@runs_option
@place_option
@json_option
def quarantine(
    uri: str | None, ledger: bool, sweep: str | None, runs: Runs, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List the samples at URI that a run would leave out: shard, key, offset and reason.

    Exits with 3 when a split has more of them than a run bears, or a shard cannot be read.
    """
    if (uri is None) == (sweep is None):
        raise click.UsageError("name either the URI of shards or, with --sweep, a sweep")
    if sweep is not None:
        _show_sweep_ledger(sweep, runs, as_json=as_json)
        return
    assert uri is not None
    if ledger:
        _show_ledger(_config(uri, overrides, allow_loss=True), as_json=as_json)
        return
    from orchestrator.cli.progress import telling
    from orchestrator.data import verify_shards
    from orchestrator.data.read import bearable

    config = _config(uri, overrides, allow_loss=True)  # what is lost is looked at here, not spent on
    with telling() as tell:
        shard_set = _open(config, tell)
        faults = verify_shards(shard_set, decode=True, progress=tell).faults
    split_of = {info.name: info.split for info in shard_set.manifest.shards}
    samples, broken = [fault for fault in faults if fault.key], [fault for fault in faults if not fault.key]
    counts = {}
    for split in shard_set.splits:
        total = shard_set.manifest.num_samples(split)
        bad = sum(split_of[fault.shard] == split for fault in samples)
        counts[split] = {
            "bad_samples": bad,
            "samples": total,
            "borne": bearable(total, config.data.max_bad_fraction),
        }
    lines = _fault_lines(faults) + [
        f"{split}: {count['bad_samples']:,} of {counted(count['samples'], 'sample')} cannot be used; "
        f"a run bears {count['borne']:,}"
        for split, count in counts.items()
    ]
    data = {
        "splits": counts,
        "samples": [_fault_json(fault) for fault in samples],
        "shards": [_fault_json(fault) for fault in broken],
    }
    emit(as_json, data, "\n".join(lines))
    too_many = any(count["bad_samples"] > count["borne"] for count in counts.values())
    sys.exit(3 if too_many or broken else 0)


def _show_ledger(config: RunConfig, *, as_json: bool) -> None:
    from orchestrator.cli.progress import telling
    from orchestrator.data import read_ledger

    with telling() as tell:
        entries = read_ledger(_open(config, tell))
    _show_entries(entries, "by runs on this node", as_json=as_json)


def _show_sweep_ledger(sweep: str, runs: Runs, *, as_json: bool) -> None:
    from orchestrator.data import read_sweep_ledger
    from orchestrator.report import load_sweep
    from orchestrator.storage import open_store

    config, _, uri = load_sweep(runs, sweep)
    _show_entries(read_sweep_ledger(open_store(uri, config.storage)), f"by {sweep}", as_json=as_json)


def _show_entries(entries: Sequence[BadSample], who: str, *, as_json: bool) -> None:
    from orchestrator.data import ShardFault, count_samples

    faults = [
        ShardFault(shard=entry.shard, key=entry.key, offset=entry.offset, reason=entry.reason)
        for entry in entries
    ]
    total = count_samples(entries)
    data = {"num_samples": total, "entries": [_fault_json(fault) for fault in faults]}
    emit(
        as_json,
        data,
        "\n".join([*_fault_lines(faults), f"left out {who}: {counted(total, 'sample')}"]),
    )


def _config(source: str, overrides: tuple[str, ...], *, allow_loss: bool = False) -> RunConfig:
    """The defaults with a source and the keys that were set."""
    from orchestrator.config import apply_overrides, default_config

    values: dict[str, Any] = {"data.source": source, **({"data.allow_loss": True} if allow_loss else {})}
    return apply_overrides(default_config(overrides), values)


def _open(config: RunConfig, tell: Callable[[str], None]) -> ShardSet:
    """The shards at a source. Foreign ones are described on first use; what is no shards yet is refused."""
    from orchestrator.data import prepare_data, survey_source
    from orchestrator.errors import DataError

    survey = survey_source(config)
    if survey.shards is not None:
        return survey.shards
    if survey.kind != "tars":
        raise DataError(f"{survey.text()}; pack them with `orchestrator shards pack`")
    return prepare_data(config, progress=tell)


def _show(config: RunConfig, *, each: bool, as_json: bool, remarks: tuple[str, ...] = ()) -> None:
    """What is at a source; `remarks` are those of what it was packed from."""
    from orchestrator.data import survey_source

    survey = survey_source(config)
    remarks = (*remarks, *survey.remarks)
    notes = [f"note: {note.text()}" for note in survey.notes]
    lines, data = [survey.text(), *remarks, *notes], {**survey.to_json(), "remarks": list(remarks)}
    if survey.shards is not None:
        lines.append(f"digest {survey.shards.digest}")
    if survey.shards is not None and each:
        infos = survey.shards.manifest.shards
        width = max(len(info.name) for info in infos)
        lines += [
            f"{info.name:<{width}}  {info.num_samples:>9,} samples  {info.size_bytes / 1e6:>9,.1f} MB  "
            f"{info.sha256[:12]}"
            for info in infos
        ]
        data["shards"] = [
            {key: getattr(info, key) for key in ("name", "split", "num_samples", "size_bytes", "sha256")}
            for info in infos
        ]
    emit(as_json, data, "\n".join(lines))


def _fault_lines(faults: Iterable[ShardFault]) -> list[str]:
    lines = [
        f"{fault.shard}: " + (f"{fault.key} at byte {fault.offset}: " if fault.key else "") + fault.reason
        for fault in faults
    ]
    more = len(lines) - _MAX_LISTED
    return lines if more <= 0 else [*lines[:_MAX_LISTED], f"and {more:,} more; --json lists all"]


def _fault_json(fault: ShardFault) -> dict[str, Any]:
    return {"shard": fault.shard, "key": fault.key, "offset": fault.offset, "reason": fault.reason}
