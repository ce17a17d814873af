"""Submission to a real Ray head with token authentication, on loopback."""

import json
import sys
import time

import pytest
from command_line import run_command
from image_data import image_folder
from ray_head import run_ray_head
from tiny_sweeps import TINY

from orchestrator.errors import ClusterError
from orchestrator.jobs import connect
from orchestrator.jobs.package import build_package

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def head():
    with run_ray_head() as running:
        yield running


@pytest.fixture(scope="module")
def client(head):
    return connect(head.url, token_file=str(head.token_file))


def submit(client, job_id, code, **environment):
    return client.submit(
        job_id=job_id,
        sweep_id=job_id,
        name="test",
        entrypoint=f"{sys.executable} -c '{code}'",
        package=build_package("name: test\n", with_code=False).data,
        environment=environment,
    )


def wait_for(client, job_id, *statuses, limit_s=90):
    deadline = time.monotonic() + limit_s
    while (state := client.find(job_id)).status not in statuses:
        assert time.monotonic() < deadline, (state, client.logs(job_id))
        time.sleep(0.2)
    return state


def test_a_job_runs_beside_the_configuration_that_was_sent(client):
    assert submit(client, "reads", 'print(open("config.yaml").read())')
    state = wait_for(client, "reads", "SUCCEEDED")
    assert (state.exit_code, state.sweep_id, state.name) == (0, "reads", "test")
    assert "name: test" in client.logs("reads")


def test_the_same_id_twice_is_one_job(client):
    assert submit(client, "once", "pass")
    assert not submit(client, "once", "pass")
    assert len([state for state in client.jobs() if state.job_id == "once"]) == 1


def test_a_failed_driver_shows_its_exit_code_and_last_line(client):
    submit(client, "fails", 'import sys; print("error: the reason"); sys.exit(3)')
    state = wait_for(client, "fails", "FAILED")
    assert (state.exit_code, state.message) == (3, "error: the reason")


def test_following_a_job_hands_on_its_lines_until_it_ends(client):
    code = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.3)"
    submit(client, "talks", code)
    wait_for(client, "talks", "RUNNING", "SUCCEEDED")
    pieces = []
    client.follow("talks", pieces.append)
    assert "0\n1\n2\n" in "".join(pieces)
    assert client.find("talks").status == "SUCCEEDED"


def test_stopping_gives_the_driver_the_time_it_was_promised(client):
    code = (
        "import signal, time, sys\n"
        'def stop(*_): time.sleep(5); print("checkpoint written", flush=True); sys.exit(130)\n'
        'signal.signal(signal.SIGTERM, stop); print("ready", flush=True); time.sleep(60)'
    )
    submit(client, "stops", code, RAY_JOB_STOP_WAIT_TIME_S="60")
    while "ready" not in client.logs("stops"):
        time.sleep(0.2)
    client.stop("stops")
    wait_for(client, "stops", "STOPPED")
    assert "checkpoint written" in client.logs("stops")


def test_an_unknown_job_is_named_with_the_command_that_lists_them(client):
    with pytest.raises(ClusterError, match="knows no job or sweep absent; see `orchestrator jobs ls`"):
        client.find("absent")


def test_no_token_and_a_wrong_token_are_refused_by_the_real_head(head, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match="asks for a token and none was found"):
        connect(head.url)
    (tmp_path / "wrong").write_text("w" * 32)
    with pytest.raises(ClusterError, match="refuses the token"):
        connect(head.url, token_file=str(tmp_path / "wrong"))


def test_the_clients_address_wins_over_rays_variables(head, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert connect(head.url, token_file=str(head.token_file)).jobs() is not None


def test_the_token_is_in_no_record_and_no_log_of_a_job(head, client):
    submit(client, "quiet", "import os; print(sorted(os.environ))")
    wait_for(client, "quiet", "SUCCEEDED")
    texts = [client.logs("quiet"), repr(client._client.get_job_info("quiet"))]
    files = [
        path for path in (head.folder / "ray").rglob("*") if path.is_file() and path.stat().st_size < 10**8
    ]
    found = [path for path in files if head.token.encode() in path.read_bytes()]
    assert len(files) > 10
    assert (found, [text for text in texts if head.token in text]) == ([], [])


def test_doctor_says_the_clusters_version_and_authentication(head, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ("doctor", "--address", head.url, "--token-file", str(head.token_file))
    done = run_command(monkeypatch, capsys, *arguments)
    assert done.code == 0, done.out
    assert f"{head.url}: Ray 2.60.0, authentication: token" in done.out
    assert "clock" in done.out


def test_a_submitted_sweep_runs_to_its_end_and_the_same_file_again_is_the_same_sweep(
    head, monkeypatch, capsys, tmp_path
):
    image_folder(tmp_path / "data", images=24)
    places = {
        "data.source": str(tmp_path / "data"),
        "data.cache_dir": str(tmp_path / "cache"),
        "storage.uri": str(tmp_path / "runs"),
    }
    (tmp_path / "base.yaml").write_text(
        "sweep: {space: {optimizer.learning_rate: {choices: [0.001, 0.002]}}}\n"
    )
    settings = [word for key, value in {**TINY, **places}.items() for word in ("--set", f"{key}={value}")]
    access = ("--address", head.url, "--token-file", str(head.token_file))
    submit_it = ("submit", str(tmp_path / "base.yaml"), *settings, *access, "--shared-filesystem")
    first = run_command(monkeypatch, capsys, *submit_it, "--python", sys.executable, "--json")
    assert first.code == 0, first.err
    sweep_id = json.loads(first.out)["sweep_id"]
    client = connect(head.url, token_file=str(head.token_file))
    assert wait_for(client, sweep_id, "SUCCEEDED", "FAILED", limit_s=240).status == "SUCCEEDED"
    assert (tmp_path / "runs" / sweep_id / "journal" / "00000000.json").exists()
    again = run_command(monkeypatch, capsys, *submit_it)
    assert f"{sweep_id} is there already (succeeded)" in again.out
    shown = run_command(monkeypatch, capsys, "jobs", "status", sweep_id, *access)
    assert f"{sweep_id}: succeeded for" in shown.out
    logged = run_command(monkeypatch, capsys, "jobs", "logs", sweep_id, *access)
    assert "finished" in logged.out
