from pathlib import Path

from orchestrator.config.models import StorageConfig
from orchestrator.protocol.events import TrialPlanned
from orchestrator.storage import open_store
from orchestrator.sweep.journal.log import Journal, read_events


def test_the_axes_of_a_point_keep_the_order_of_the_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), StorageConfig())
    point = {"masks.target_scale": [0.1, 0.2], "masks.context_keep": 0.5}
    planned = TrialPlanned(trial_id="t", index=0, point=point, seed=0, name="", total_images=1)
    Journal(store).append(planned)
    (entry,) = read_events(store)
    assert isinstance(entry.event, TrialPlanned)
    assert list(entry.event.point) == ["masks.target_scale", "masks.context_keep"]
