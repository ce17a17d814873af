"""`orchestrator doctor`: every check, its remedy and its exit code, against real servers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_line import run_command

from orchestrator.cli import doctor, doctor_services
from orchestrator.config import apply_overrides, default_config


def config(**places):
    return apply_overrides(default_config(), {key.replace("__", "."): value for key, value in places.items()})


def texts(findings):
    return "\n".join(f"{finding.mark} {finding.name} {finding.text}" for finding in findings)


@pytest.fixture
def server():
    """An HTTP server whose `Date` header is `server.date`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(403)
            self.send_header("Date", self.server.date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def test_a_sound_machine_passes_every_check_and_leaves_nothing_behind(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = run_command(monkeypatch, capsys, "doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(done.out)}
    assert done.code == 0, done.out
    assert {"python", "cpu", "gpu", "disk runs", "ray", "storage", "data", "tracking"} <= set(found)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_teacher_that_lags_more_than_a_tenth_of_the_run_is_warned_of():
    short = {"train__images": 24_000, "train__batch_size": 48}
    found = texts(doctor._teacher(config(**short, ema__start_momentum=0.99)))
    assert found.startswith("warn teacher the target encoder, which probes read, lags 54 % of the run behind")
    assert texts(doctor._teacher(config(**short, ema__window=0.05))).startswith(
        "ok   teacher the target encoder lags 4.8 %"
    )
    assert list(doctor._teacher(config(**short, objective__name="vicreg"))) == []


def test_a_bucket_is_written_listed_and_read_with_its_latency(s3_bucket):
    found = texts(doctor_services.storage(config(storage__uri=f"{s3_bucket}/runs")))
    assert "write, list, read and delete work; a read takes" in found


def test_a_missing_bucket_is_a_storage_failure(s3_bucket, monkeypatch, capsys, tmp_path):
    (tmp_path / "f.yaml").write_text("storage: {uri: 's3://no-such-bucket-here/runs'}\n")
    done = run_command(monkeypatch, capsys, "doctor", str(tmp_path / "f.yaml"))
    assert done.code == 4
    assert "FAIL  storage" in done.out


def test_a_clock_that_is_off_is_named_with_its_error(server):
    server.date = "Tue, 01 Jan 2030 00:00:00 GMT"
    url = f"http://127.0.0.1:{server.server_port}"
    found = list(doctor_services.clock(config(storage__endpoint_url=url), None))
    assert [finding.exit_code for finding in found] == [4]
    assert "s off that of" in found[0].text


def test_a_clock_that_is_right_passes(server):
    from email.utils import formatdate

    server.date = formatdate(usegmt=True)
    url = f"http://127.0.0.1:{server.server_port}"
    assert "ok   clock within" in texts(doctor_services.clock(config(storage__endpoint_url=url), None))


def test_a_token_that_others_can_read_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("t" * 32)
    token.chmod(0o644)
    assert f"warn token {token} can be read by others" in texts(doctor_services.ray_cluster(config(), None))


def test_a_cluster_without_a_token_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert "may be open to anyone" in texts(doctor_services.ray_cluster(config(), None))


def test_an_unreachable_cluster_ends_with_7(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = run_command(monkeypatch, capsys, "doctor", "--address", "http://127.0.0.1:9")
    assert done.code == 7
    assert "cannot reach http://127.0.0.1:9" in done.out


def test_an_unreachable_tracking_server_is_a_warning(monkeypatch):
    found = list(doctor_services.tracking(config(tracking__uri="http://127.0.0.1:9")))
    assert [finding.warning for finding in found] == [True]
    assert "spooled until it answers" in found[0].text


def test_a_sweep_over_images_without_labels_fails_with_the_code_for_data(monkeypatch, capsys, tmp_path):
    from image_data import image_folder

    monkeypatch.chdir(tmp_path)
    folder = image_folder(tmp_path / "images") / "ant"
    space = "sweep: {space: {masks.num_target_blocks: {choices: [1, 2]}}}\n"
    (tmp_path / "f.yaml").write_text(f"data: {{source: {folder}}}\n{space}")
    done = run_command(monkeypatch, capsys, "doctor", "f.yaml")
    assert done.code == 3
    assert "the images have no labels" in done.out


def test_more_workers_than_shards_is_a_warning(tmp_path: Path):
    from image_data import image_folder

    from orchestrator.data import prepare_data

    image_folder(tmp_path / "data", images=20)
    small = config(
        data__source=str(tmp_path / "data"), data__cache_dir=str(tmp_path / "cache"), train__num_workers=4
    )
    shards = prepare_data(small)
    found = texts(doctor_services.data(apply_overrides(small, {"data.source": shards.uri})))
    assert "warn shards 1 training shard for 4 workers" in found
