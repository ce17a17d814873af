"""How the suite is dealt out to the workers of pytest-xdist."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from parallel import group_of


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("tests/orchestrator/test_sweep_ray.py", "ray-test_sweep_ray"),
        ("tests/orchestrator/test_main_job.py", "ray-test_main_job"),
        ("tests/orchestrator/test_storage_stores.py", "s3"),
        ("tests/orchestrator/test_report_browser.py", "browser"),
        ("tests/orchestrator/test_tracking_mlflow.py", "mlflow"),
        ("tests/orchestrator/test_text.py", "test_text"),
    ],
)
def test_a_file_is_in_the_group_of_the_server_that_it_needs(file: str, group: str) -> None:
    assert group_of(file) == group


SUITE = {
    "conftest.py": """
        import sys
        from pathlib import Path

        sys.path.insert(0, {tests!r})
        import parallel

        parallel._ROOT = Path(__file__).parent

        def pytest_xdist_make_scheduler(config, log):
            return parallel.scheduler(config, log)
        """,
    "test_a.py": """
        import time
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_keeps_a_worker_busy(number):
            time.sleep(0.4)
        """,
    **{
        f"test_{name}.py": """
        def test_ends_before_the_crash():
            pass
        """
        for name in "bcdef"
    },
    "test_g.py": """
        import os
        from pathlib import Path

        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_crashes_once(number):
            mark = Path(__file__).with_name("crashed")
            if number == 3 and not mark.exists():
                mark.touch()
                os._exit(1)
        """,
    **{
        f"test_{name}.py": """
        import time
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_comes_after_the_crash(number):
            time.sleep(0.1)
        """
        for name in "hij"
    },
}
"""Several groups end on the worker that crashes: with the scheduling of pytest-xdist 3.8 this run never ends."""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [((), "1 failed, 36 passed"), (("--reruns", "1", "--max-suite-reruns", "3"), "37 passed, 1 rerun")],
)
def test_a_crashed_worker_costs_its_test_and_no_other(
    arguments: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    for name, text in SUITE.items():
        text = textwrap.dedent(text)
        (tmp_path / name).write_text(
            text.format(tests=str(Path(__file__).parent)) if "{tests" in text else text
        )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert line in done.stdout.splitlines()[-1], done.stdout
    assert done.stdout.count("node down") == 1
