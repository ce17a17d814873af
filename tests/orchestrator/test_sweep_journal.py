from pathlib import Path

from orchestrator.config.models import StorageConfig
from orchestrator.storage import open_store
from orchestrator.sweep.journal.log import Journal, read_events


def test_the_axes_of_a_point_keep_the_order_of_the_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), StorageConfig())
    Journal(store).append(
        "trial_planned", point={"masks.target_scale": [0.1, 0.2], "masks.context_keep": 0.5}
    )
    (event,) = read_events(store)
    assert list(event["point"]) == ["masks.target_scale", "masks.context_keep"]
