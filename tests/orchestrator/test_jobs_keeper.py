import os
import signal
import subprocess
import sys
import time

import pytest

from orchestrator.jobs.keeper import restart_delay_s

COUNT = "import sys; open(sys.argv[1], 'a').write('x'); "


def keep(code, log, *, restarts=1):
    command = [sys.executable, "-m", "orchestrator.jobs.keeper", "--restarts", str(restarts), "--"]
    return subprocess.Popen([*command, sys.executable, "-c", COUNT + code, str(log)], stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("exit_code", "num_restarts", "delay_s"),
    [
        (0, 0, None),
        (1, 0, None),
        (6, 0, None),
        (4, 0, 1.0),
        (-9, 0, 1.0),
        (-11, 1, 5.0),
        (7, 4, 60.0),
        (-9, 5, None),
        (130, 0, None),
    ],
)
def test_a_killed_driver_and_a_lost_cluster_are_tried_again_within_limits(exit_code, num_restarts, delay_s):
    assert restart_delay_s(exit_code, num_restarts, 5) == delay_s


def test_a_driver_that_ends_by_itself_is_believed(tmp_path):
    assert keep("sys.exit(6)", tmp_path / "log").wait() == 6
    assert (tmp_path / "log").read_text() == "x"


def test_a_killed_driver_is_started_again(tmp_path):
    code = "import os; len(open(sys.argv[1]).read()) > 1 or os.kill(os.getpid(), 9)"
    assert keep(code, tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text() == "xx"


def test_restarts_are_bounded(tmp_path):
    assert keep("import os; os.kill(os.getpid(), 9)", tmp_path / "log").wait() == 137
    assert (tmp_path / "log").read_text() == "xx"


def test_a_driver_that_was_asked_to_stop_is_not_started_again(tmp_path):
    process = keep("import time; time.sleep(60)", tmp_path / "log", restarts=5)
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        time.sleep(0.05)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    for pid in (process.pid, *map(int, children.stdout.split())):
        os.kill(pid, signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert (tmp_path / "log").read_text() == "x"
