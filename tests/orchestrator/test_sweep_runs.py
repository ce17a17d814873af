"""A sweep goes on where it was found: copies, other folders, other endpoints; and the commands that are printed."""

import ast
import json
import re
import shlex
import shutil
import sqlite3
from pathlib import Path

import click
import pytest
from command_line import run_command
from sweep_records import sweep_config, sweep_events, write_journal

import orchestrator
from orchestrator.cli.main import app_with_commands
from orchestrator.cli.options import optional_config_argument, runs_option
from orchestrator.cli.sweep_commands import recorded_config
from orchestrator.config import apply_overrides, default_config, dump, parse_config
from orchestrator.config.models import StorageConfig
from orchestrator.errors import ConfigError
from orchestrator.report import load_sweep
from orchestrator.storage import open_store
from orchestrator.sweep.journal.folders import Runs
from orchestrator.sweep.journal.lease import driver_lease
from orchestrator.sweep.journal.requests import take_request
from orchestrator.sweep.journal.resume import check_same_sweep, check_something_left
from orchestrator.sweep.run.coordinator import Coordinator
from orchestrator.text import command_text, setting_words
from orchestrator.tracking import find_location, find_tracker
from orchestrator.tracking.client import open_client
from orchestrator.tracking.mlflow import MlflowTracker


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A finished sweep in `runs`, which its configuration names, and a copy of it in `my copy`."""
    monkeypatch.chdir(tmp_path)
    sweep_id = write_journal(tmp_path / "runs", sweep_events(stop_losers=True))
    (tmp_path / "runs" / sweep_id / "config.yaml").write_text(dump(sweep_config()))
    shutil.copytree(tmp_path / "runs", tmp_path / "my copy")
    return sweep_id


def test_a_sweep_goes_on_where_it_was_found(copied: str) -> None:
    before = contents(Path("runs"))
    config = recorded_config(copied, ("train.images=80000",), Runs(uri="my copy"))
    coordinator = Coordinator(Runs.of(config.storage).sweep_uri(copied), config, "", store=None)
    coordinator.go_on({}, str(Path.cwd()))
    assert load_sweep("my copy", copied)[1].lengths == [40000, 80000]
    assert contents(Path("runs")) == before


def test_going_on_at_another_place_is_refused(copied: str) -> None:
    with pytest.raises(ConfigError, match="goes on where it was found, in my copy"):
        recorded_config(copied, ("storage.uri=elsewhere",), Runs(uri="my copy"))


def test_a_request_and_a_report_reach_the_copy_alone(copied: str, monkeypatch, capsys) -> None:
    before, place = contents(Path("runs")), ("--runs", "my copy")
    with driver_lease(open_store(f"my copy/{copied}")):
        assert run_command(monkeypatch, capsys, "cancel", copied, *place).code == 0
        assert take_request(open_store(f"my copy/{copied}")) == "cancel"
    assert run_command(monkeypatch, capsys, "report", copied, *place).code == 0
    assert Path("my copy", copied, "report", "report.html").is_file()
    assert contents(Path("runs")) == before


def test_what_comes_of_a_sweep_is_kept_beside_it(copied: str, monkeypatch, capsys) -> None:
    for words in (("reproduce", f"{copied}/0", "--dry-run"), ("best", copied, "--yaml")):
        shown = run_command(monkeypatch, capsys, *words, "--runs", "my copy")
        assert parse_config(shown.out).storage.uri == "my copy", words
    longer = ("train", "--from-best", copied, "--dry-run", "--runs", "my copy")
    assert "at my copy" in run_command(monkeypatch, capsys, *longer).out
    assert "at other" in run_command(monkeypatch, capsys, *longer, "--set", "storage.uri=other").out


def test_relative_paths_are_meant_from_the_folder_in_which_the_sweep_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = sweep_events()
    config = apply_overrides(
        sweep_config(),
        {"data.source": "photos", "tracking.uri": "sqlite:///track/a.db", "data.cache_dir": "c"},
    )
    events[0] |= {"folder": str(tmp_path), "config": dump(config)}
    sweep_id = write_journal(tmp_path / "runs", events)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    found, record, _ = load_sweep(str(tmp_path / "runs"), sweep_id)
    assert found.data.source == f"{tmp_path}/photos"
    assert found.data.cache_dir == f"{tmp_path}/c"
    assert found.tracking.uri == f"sqlite:///{tmp_path}/track/a.db"
    check_same_sweep(found, record)


def test_a_copy_of_a_cancelled_sweep_has_nothing_left_either(copied: str) -> None:
    config, record, _ = load_sweep("my copy", copied)
    record.state = "cancelled"
    with pytest.raises(ConfigError, match="nothing is left"):
        check_something_left(config, record)


def test_a_copied_tracking_store_keeps_its_artifacts_beside_itself(tmp_path: Path, template_database) -> None:
    from orchestrator.config.models import TrackingConfig

    original, copy = tmp_path / "runs", tmp_path / "copy"
    original.mkdir()
    shutil.copy(template_database, original / "mlflow.db")
    first = MlflowTracker(find_location(TrackingConfig(), str(original)), "masks")
    first.start_sweep("s-1", "s-1", {}, {})
    # By hand: within one process MLflow remembers where the artifacts of a run are.
    kept = original / "mlartifacts" / "masks" / first.links().sweep_run_id / "artifacts" / "report"
    kept.mkdir(parents=True)
    (kept / "a.txt").write_text("first")
    shutil.copytree(original, copy)
    before = contents(original)
    again = find_tracker(TrackingConfig(), str(copy), "masks", "s-1")
    assert again is not None
    again.log_artifact(None, "report/b.txt", b"second")
    assert contents(original) == before
    client, run = open_client(find_location(TrackingConfig(), str(copy))), again.links().sweep_run_id
    assert {item.path for item in client.list_artifacts(run, "report")} == {"report/a.txt", "report/b.txt"}


def test_artifacts_that_were_put_elsewhere_on_purpose_stay_there(tmp_path: Path, template_database) -> None:
    from orchestrator.config.models import TrackingConfig

    chosen = tmp_path / "big disk" / "mlartifacts" / "mine"
    chosen.mkdir(parents=True)
    shutil.copy(template_database, tmp_path / "mlflow.db")
    client = open_client(find_location(TrackingConfig(), str(tmp_path)))
    client.create_experiment("mine", artifact_location=chosen.as_uri())
    open_client(find_location(TrackingConfig(), str(tmp_path)))
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        kept = connection.execute("SELECT artifact_location FROM experiments WHERE name = 'mine'").fetchone()
    assert kept == (chosen.as_uri(),)


def test_a_file_uri_keeps_its_tracking_store_beside_it(tmp_path: Path) -> None:
    assert Runs(uri=f"file://{tmp_path}/a%20b").local_folder == tmp_path / "a b"


@pytest.mark.parametrize(
    ("given", "recorded", "variable", "used"),
    [
        ("http://a:1", None, None, "http://a:1"),
        ("http://a:1", "http://b:2", "http://c:3", "http://a:1"),
        (None, "http://b:2", "http://c:3", "http://c:3"),
        (None, "http://b:2", None, None),
        (None, None, "http://c:3", None),
    ],
)
def test_a_bucket_is_reached_as_it_was_found(given, recorded, variable, used, monkeypatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", variable)
    config = default_config()
    if recorded is not None:
        config = apply_overrides(config, {"storage.endpoint_url": recorded})
    placed = Runs(uri="s3://bucket/x", endpoint_url=given).placed(config)
    assert (placed.storage.uri, placed.storage.endpoint_url) == ("s3://bucket/x", used)


@pytest.mark.parametrize(
    ("words", "endpoint"),
    [
        ([], None),
        (["--set", "storage.endpoint_url=http://a:1"], "http://a:1"),
        (["--set", "storage.endpoint_url=http://a:1", "--endpoint-url", "http://b:2"], "http://b:2"),
    ],
)
def test_an_endpoint_that_is_set_counts_unless_the_option_names_another(words, endpoint) -> None:
    found: list[Runs] = []
    command = runs_option(lambda file, overrides, runs: found.append(runs))
    click.command()(optional_config_argument(command)).main(words, standalone_mode=False)
    assert found == [Runs(endpoint_url=endpoint)]


def test_every_command_that_takes_runs_takes_an_endpoint() -> None:
    options = {
        name: {word for option in command.params for word in option.opts}
        for name, command in app_with_commands().commands.items()
    }
    taking = {name for name, words in options.items() if "--runs" in words} - {"ui"}
    assert {"best", "ls", "pause", "report", "resume", "status"} <= taking
    assert {name for name in taking if "--endpoint-url" not in options[name]} == set()


def test_a_sweep_in_a_bucket_is_found_by_its_endpoint(s3_server, s3_bucket, monkeypatch, capsys) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    endpoint = ("--endpoint-url", s3_server.endpoint_url)
    store = open_store(f"{s3_bucket}/runs", StorageConfig(endpoint_url=s3_server.endpoint_url))
    for number, event in enumerate(sweep_events()[:3]):
        store.write(f"masks-1/journal/{number:08d}.json", json.dumps(event).encode())
    place = ("--runs", f"{s3_bucket}/runs")
    assert run_command(monkeypatch, capsys, "status", "masks-1", *place, *endpoint).code == 0
    missing = run_command(monkeypatch, capsys, "best", "masks-2", *place, *endpoint)
    assert f"orchestrator ls {shlex.join((*place, *endpoint))}" in missing.err


def test_a_bucket_that_is_not_found_says_whom_it_asked(s3_server, s3_bucket, monkeypatch, capsys) -> None:
    del s3_bucket  # it sets the credentials
    missing = run_command(monkeypatch, capsys, "ls", "--runs", "s3://no-such-bucket-here/x")
    assert f"no such bucket at {s3_server.endpoint_url}" in missing.err
    assert "--endpoint-url, storage.endpoint_url or AWS_ENDPOINT_URL" in missing.err


def test_a_printed_command_can_be_pasted() -> None:
    runs = Runs(uri="my 'runs' $x")
    assert shlex.split(runs.command("resume", "s-1")) == ["orchestrator", "resume", "s-1", "--runs", runs.uri]
    assert Runs().command("resume", "s-1") == "orchestrator resume s-1"
    bucket = Runs(uri="s3://b/x", endpoint_url="http://h:1")
    assert bucket.command("ls") == "orchestrator ls --runs s3://b/x --endpoint-url http://h:1"


@pytest.mark.parametrize(
    "text", ["/a/my runs", "a: b", "a #b", "{x}", "[y", "'q'", "12", "true", "*z", "s3://bucket/x", "x/y:"]
)
def test_a_printed_setting_is_read_as_it_was(text: str) -> None:
    _, setting = shlex.split(shlex.join(setting_words("storage.uri", text)))
    assert default_config([setting]).storage.uri == text


def test_no_command_is_printed_that_is_not_quoted() -> None:
    """Every f-string with one of our commands and a value behind it: `command_text` and `Runs.command` quote."""
    names = "|".join(app_with_commands().commands)
    printed = re.compile(rf"orchestrator (?:{names})\b[^`\n]*\x00")
    found = []
    for file in Path(orchestrator.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values
                )
                found += [f"{file.name}:{node.lineno}"] if printed.search(text) else []
    assert found == []
    assert command_text("ls", "--runs", "a b") == "orchestrator ls --runs 'a b'"
