"""The best checkpoint of a run: the weights of its highest probe since warm-up, beside the newest ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sweeps import tiny_config

from orchestrator.config.models import StorageConfig
from orchestrator.data import prepare_data
from orchestrator.errors import CheckpointError, NotFoundError
from orchestrator.protocol.jobs import Inheritance, TrialJob
from orchestrator.protocol.reports import BestCheckpoint, TrialReport
from orchestrator.storage import Store, open_store
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.asynchronous import Snapshot
from orchestrator.train.evaluate.evaluation import Evaluation
from orchestrator.train.loop.best import BestKeeper, find_best, first_best_step, take_checkpoint
from orchestrator.train.loop.checkpoint import list_checkpoints, load_checkpoint, load_latest, save_checkpoint
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import ListReporter
from orchestrator.train.stores import checkpoint_store

METRIC = "probe/linear/mean"
NAN = float("nan")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "checkpoints"), StorageConfig())


def _keeper(store: Store, tmp_path: Path, **overrides: object) -> BestKeeper:
    config = tiny_config(tmp_path, optimizer__warmup_fraction=0.2, **overrides)
    keeper = BestKeeper(store, config, total_steps=20)
    keeper.find()
    return keeper


def _probe(keeper: BestKeeper, *probes: tuple[int, float]) -> list[int]:
    """Hand probes to a keeper; returns the steps whose weights it kept."""
    kept = []
    for step, value in probes:
        if keeper.is_better(step, {METRIC: value}):
            keeper.keep(step, {METRIC: value}, {"w": np.full(2, value, dtype=np.float32)})
            kept.append(step)
    return kept


@pytest.mark.parametrize(
    ("probes", "kept"),
    [
        (((4, 10.0), (8, 30.0), (12, 20.0), (20, 25.0)), [4, 8]),
        (((2, 90.0), (3, 80.0), (4, 10.0)), [4]),  # before and in the warm-up, which ends with step 4
        (((8, 30.0), (12, 30.0)), [8, 12]),  # of equal ones the later
        (((8, NAN), (12, float("inf")), (16, 5.0)), [16]),
    ],
)
def test_the_highest_finite_probe_since_warm_up_is_kept_alone(store, tmp_path, probes, kept):
    keeper = _keeper(store, tmp_path)
    assert _probe(keeper, *probes) == kept
    assert list_checkpoints(store.child("best")) == [f"step-{kept[-1]:010d}"]
    value = dict(probes)[kept[-1]]
    assert find_best(store) == BestCheckpoint(
        name=f"best/step-{kept[-1]:010d}", images=32 * kept[-1], value=value
    )
    assert load_checkpoint(store, find_best(store).name).tensors["objective/w"].tolist() == [value, value]


@pytest.mark.parametrize(("fraction", "first"), [(0.0, 1), (0.15, 3), (1.0, 20)])
def test_the_end_of_a_run_counts_however_long_its_warm_up(fraction, first):
    assert first_best_step(fraction, 20) == first


def test_the_metric_is_the_one_that_ranks(store, tmp_path):
    keeper = _keeper(store, tmp_path, sweep__metric="probe/linear_context/mean", probe__encoder="both")
    assert not keeper.is_better(8, {METRIC: 50.0})
    assert keeper.is_better(8, {METRIC: 50.0, "probe/linear_context/mean": 20.0})


def test_a_kill_before_the_deletion_leaves_two_whole_and_the_higher_is_the_best(store, tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    keeper = _keeper(store, tmp_path)
    _probe(keeper, (8, 30.0))
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.storage.local.LocalStore.delete", die)
        with pytest.raises(KeyboardInterrupt):
            _probe(keeper, (12, 40.0))
    assert list_checkpoints(store.child("best")) == ["step-0000000012", "step-0000000008"]
    assert take_checkpoint(store).best.value == 40.0
    again = _keeper(store, tmp_path)
    assert _probe(again, (14, 35.0), (16, 50.0)) == [16]
    assert list_checkpoints(store.child("best")) == ["step-0000000016"]


def _with_both(store: Store, tmp_path: Path) -> None:
    save_checkpoint(store, step=20, tensors={"objective/w": torch.zeros(2)}, meta={}, keep=2)
    _probe(_keeper(store, tmp_path), (8, 30.0))


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (None, "best/step-0000000008"),
        ("best", "best/step-0000000008"),
        ("best/step-0000000008", "best/step-0000000008"),
        ("last", "step-0000000020"),
        ("step-0000000020", "step-0000000020"),
    ],
)
def test_the_best_is_taken_unless_another_is_asked_for(store, tmp_path, wanted, name):
    _with_both(store, tmp_path)
    taken = take_checkpoint(store, wanted)
    assert (taken.name, taken.note) == (name, "")
    assert (taken.best is not None) == name.startswith("best/")


def test_going_on_never_takes_the_best(store, tmp_path):
    _with_both(store, tmp_path)
    _probe(_keeper(store, tmp_path), (24, 40.0))
    assert load_latest(store).step == 20


@pytest.mark.parametrize(
    ("file", "said"), [("state.safetensors", "cannot be read"), ("manifest.json", "no best")]
)
def test_where_the_best_is_damaged_the_newest_is_taken_and_it_is_said(store, tmp_path, caplog, file, said):
    _with_both(store, tmp_path)
    store.write(f"best/step-0000000008/{file}", b"damaged")
    with caplog.at_level("WARNING"):
        taken = take_checkpoint(store)
    assert taken.name == "step-0000000020"
    assert said in taken.note
    assert ("damaged best checkpoint" in caplog.text) == (file == "manifest.json")
    with pytest.raises((CheckpointError, NotFoundError)):
        take_checkpoint(store, "best")


def test_without_a_best_one_the_newest_is_taken_and_asking_for_it_is_an_error(store):
    save_checkpoint(store, step=20, tensors={"objective/w": torch.zeros(2)}, meta={}, keep=2)
    assert "no best one is kept" in take_checkpoint(store).note
    with pytest.raises(NotFoundError, match=r"not probed since the learning rate's warm-up.*take `last`"):
        take_checkpoint(store, "best")
    with pytest.raises(NotFoundError, match=r"no checkpoint 'step-1'.*there are: step-0000000020"):
        take_checkpoint(store, "step-1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("best")


def _job(folder: Path, trial_id: str, **overrides: object) -> TrialJob:
    """A run of 20 steps, probed after each second one and checkpointed after each eighth."""
    overrides = {"train__checkpoint_every_images": 256, "probe__every_images": 64} | overrides
    config = tiny_config(folder, optimizer__warmup_fraction=0.1, **overrides)
    uri, runs = prepare_data(config).uri, str(folder / "runs/s")
    return TrialJob(trial_id=trial_id, config=config, shards_uri=uri, run_uri=runs)


class Scripted:
    """Evaluates beside training, and finds what is written down for the images of a snapshot."""

    num_cpus, num_gpus = 1.0, 0.0

    def __init__(self, values: dict[int, float]) -> None:
        self.values = values

    def evaluate(self, snapshot: Snapshot) -> Evaluation:
        return Evaluation(metrics={METRIC: self.values.get(snapshot.images, 1.0)})

    def cancel(self) -> None:
        return


def _curve(reports: list[TrialReport]) -> dict[int, float]:
    rows = [row for report in reports for row in report.rows if row.images and METRIC in row.metrics]
    return {row.images: row.metrics[METRIC] for row in rows}


def _train(job: TrialJob, reporter: ListReporter | None = None, **beside: object) -> list[TrialReport]:
    reporter = reporter or ListReporter()
    Run(job, reporter, Rank(), **beside).train()  # type: ignore[arg-type]
    return reporter.reports


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[TrialReport]:
    return _train(_job(folder, "whole"))


def _same_weights(ours: TrialJob, theirs: TrialJob) -> None:
    first, second = (take_checkpoint(checkpoint_store(job), "best") for job in (ours, theirs))
    assert first.best == second.best
    for name, value in first.checkpoint.tensors.items():
        assert torch.equal(value, second.checkpoint.tensors[name]), name


def test_a_run_keeps_the_highest_of_its_probes_wherever_its_checkpoints_are(folder, whole):
    curve = _curve(whole)
    peak = max(curve, key=lambda images: (curve[images], images))
    best = whole[-1].best
    assert (best.images, best.value) == (peak, curve[peak])
    assert list(curve) == [*range(64, 640, 64), 640]
    store = checkpoint_store(_job(folder, "whole"))
    assert find_best(store) == best
    assert list_checkpoints(store) == ["step-0000000020", "step-0000000016"]


def test_every_report_says_which_is_the_best_so_far(whole):
    curve = _curve(whole)
    for report in whole:
        seen = {images: value for images, value in curve.items() if images <= report.images}
        assert (report.best is None) == (not seen)
        assert report.best is None or report.best.value == max(seen.values())
        assert TrialReport.from_json(report.to_json()) == report


def test_its_weights_are_those_of_a_run_that_ended_a_step_there(folder, whole):
    images = whole[-1].best.images
    stopped = _job(folder, "stopped")
    _train(stopped, ListReporter(stop_at_images=images))
    there = load_latest(checkpoint_store(stopped))
    kept = take_checkpoint(checkpoint_store(_job(folder, "whole")), "best").checkpoint
    assert there.step * 32 == images
    assert kept.tensors.keys() == {name for name in there.tensors if name.startswith("objective/")}
    assert all(torch.equal(value, there.tensors[name]) for name, value in kept.tensors.items())


def test_a_run_that_died_between_checkpoints_ends_with_the_same_best_and_newest(folder, whole):
    class Dying(ListReporter):
        def report(self, report):
            if report.images == 448:
                raise KeyboardInterrupt
            return super().report(report)

    job = _job(folder, "died")
    with pytest.raises(KeyboardInterrupt):
        _train(job, Dying())
    rest = _train(job)
    assert rest[0].images == 256
    assert rest[-1].best == whole[-1].best
    _same_weights(job, _job(folder, "whole"))
    ours, theirs = (load_latest(checkpoint_store(_job(folder, name))) for name in ("died", "whole"))
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())


def test_a_run_goes_on_from_its_newest_checkpoint_though_its_best_is_earlier(folder):
    values, beside = {128: 99.0}, {"probe__beside": {"cpus": 1.0}}
    job = _job(folder, "goes-on", **beside)
    _train(job, ListReporter(stop_at_images=256), evaluator=Scripted(values))
    rest = _train(job, evaluator=Scripted(values))
    assert rest[0].images == 256
    assert {report.best.images for report in rest} == {128}
    assert take_checkpoint(checkpoint_store(job)).best == BestCheckpoint(
        name="best/step-0000000004", images=128, value=99.0
    )


def test_a_result_that_comes_late_keeps_the_weights_that_were_evaluated(folder):
    job = _job(folder, "beside", probe__beside={"cpus": 1.0})
    _train(job, evaluator=Scripted({320: 99.0}))
    stopped = _job(folder, "stopped-at-320")
    _train(stopped, ListReporter(stop_at_images=320))
    kept, there = take_checkpoint(checkpoint_store(job), "best"), load_latest(checkpoint_store(stopped))
    assert kept.best.images == 320
    assert all(torch.equal(value, there.tensors[name]) for name, value in kept.checkpoint.tensors.items())


def test_who_takes_over_weights_begins_to_look_anew(folder):
    parent, heir = _job(folder, "parent"), _job(folder, "heir")
    _train(parent, ListReporter(stop_at_images=256))
    _train(heir, ListReporter(stop_at_images=256))
    assert find_best(checkpoint_store(heir)) is not None
    inherits = Inheritance(trial_id="parent", step=8, config=parent.config)
    reports = _train(replace(heir, inherits=inherits))
    assert reports[0].best is not None
    assert reports[0].best.images > 256


def test_a_report_of_an_earlier_version_has_no_best(whole):
    told = {key: value for key, value in whole[-1].to_json().items() if key != "best"}
    assert TrialReport.from_json(told).best is None
