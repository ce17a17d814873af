"""How the suite is dealt out to the workers of pytest-xdist."""

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
