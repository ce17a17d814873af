"""The loop in one process: a run that goes on ends as one that was never stopped, with a slot's cache and without."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_data import image_folder
from tiny_sweeps import tiny_config

from orchestrator.data import prepare_data, read_sweep_ledger
from orchestrator.data.format.cache import file_lock
from orchestrator.data.pack.sources import is_held_out
from orchestrator.errors import CheckpointError
from orchestrator.protocol.jobs import TrialJob
from orchestrator.storage import MemoryStore, Store, open_store
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.baselines import Baselines, pixels_key, untrained_key
from orchestrator.train.evaluate.data_cache import DataCache
from orchestrator.train.loop.checkpoint import load_latest
from orchestrator.train.loop.run import Run
from orchestrator.train.reporting import Decision, ListReporter, TrialReport
from orchestrator.train.stores import checkpoint_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


def _job(folder: Path, trial_id: str, **overrides: object) -> TrialJob:
    config = tiny_config(folder, **overrides)
    return TrialJob(
        trial_id=trial_id, config=config, shards_uri=prepare_data(config).uri, run_uri=str(folder / "runs/s")
    )


def _final_weights(job: TrialJob) -> dict[str, torch.Tensor]:
    found = load_latest(checkpoint_store(job))
    assert found is not None
    return dict(found.tensors)


def _assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_a_run_stopped_at_a_checkpoint_ends_bit_identical(folder: Path) -> None:
    whole, parts = _job(folder, "whole"), _job(folder, "parts")
    Run(whole, ListReporter(), Rank()).train()
    Run(parts, ListReporter(stop_at_images=160), Rank()).train()
    rest = ListReporter()
    Run(parts, rest, Rank()).train()
    assert [report.images for report in rest.reports] == [160, 320, 480, 640]
    _assert_equal(_final_weights(parts), _final_weights(whole))


def test_a_trial_is_the_same_whatever_ran_before_it_in_the_process(folder: Path) -> None:
    alone, second = _job(folder, "alone"), _job(folder, "second")
    Run(alone, ListReporter(), Rank()).train()
    cache = DataCache()
    other = _job(folder, "first", masks__num_target_blocks=2, train__seed=7)
    Run(other, ListReporter(), Rank(), cache).train()
    Run(second, ListReporter(), Rank(), cache).train()
    _assert_equal(_final_weights(second), _final_weights(alone))


def test_probe_images_are_decoded_once_for_trials_that_share_them(folder: Path) -> None:
    cache = DataCache()
    first = Run(_job(folder, "a"), ListReporter(), Rank(), cache)
    second = Run(_job(folder, "b", train__seed=1), ListReporter(), Rank(), cache)
    other = Run(_job(folder, "c", probe__test_images=10), ListReporter(), Rank(), cache)
    assert second.probes is first.probes
    assert other.probes is not first.probes


def test_a_checkpoint_of_another_configuration_is_refused(folder: Path) -> None:
    job = _job(folder, "changed")
    Run(job, ListReporter(stop_at_images=160), Rank()).train()
    changed = replace(job, config=tiny_config(folder, masks__num_target_blocks=2))
    with pytest.raises(CheckpointError, match="another configuration"):
        Run(changed, ListReporter(), Rank()).train()


def test_a_checkpoint_of_another_precision_is_refused_with_both(folder: Path) -> None:
    job = _job(folder, "precise")
    Run(job, ListReporter(stop_at_images=160), Rank()).train()
    with pytest.raises(
        CheckpointError, match=r"computed in float32 .* go on in bfloat16 .*train.precision: auto"
    ):
        Run(job, ListReporter(), Rank(precision="bfloat16")).train()


def _probed(folder: Path, encoder: str, **overrides: object) -> tuple[dict[str, float], dict[str, str]]:
    """The last metrics of a trained run whose two encoders differ, and the hits that it reported."""
    job = _job(folder, f"probed-{encoder}", probe__encoder=encoder, train__seed=3, **overrides)
    reporter = ListReporter()
    Run(job, reporter, Rank()).train()
    return reporter.reports[-1].rows[-1].metrics, dict(reporter.reports[-1].correct)


def test_probes_read_the_encoder_that_is_named_and_both_beside_each_other(folder: Path) -> None:
    target, target_hits = _probed(folder, "target")
    context, _ = _probed(folder, "context")
    both, hits = _probed(folder, "both")
    names = [name for name in target if name.startswith("probe/")]
    assert names
    assert {name: both[name] for name in names} == {name: target[name] for name in names}
    beside = {name.replace("/", "_context/", 2).replace("_context", "", 1): context[name] for name in names}
    assert {name: both[name] for name in beside} == beside
    assert hits == target_hits
    assert both.keys() == target.keys() | beside.keys()


def test_both_encoders_stand_to_the_same_untrained_one(folder: Path) -> None:
    job, reporter = _job(folder, "both-untrained", probe__encoder="both"), ListReporter(stop_at_images=160)
    Run(job, reporter, Rank()).train()
    first = reporter.reports[0].rows[0].metrics
    for name in ("linear", "knn"):
        assert first[f"baseline/untrained/{name}_context/mean"] == first[f"baseline/untrained/{name}/mean"]
        assert first[f"probe/{name}_context/mean"] == first[f"probe/{name}/mean"]


def _baselines(run: Run, store: Store) -> Baselines:
    assert run.probes is not None
    return Baselines(
        untrained=lambda: run.state,
        shards=run.shards,
        probes=run.probes,
        config=run.config,
        rank=run.rank,
        store=store,
    )


def _untrained_lock(run: Run) -> Path:
    key = untrained_key(run.config, run.shards, run.rank)
    return run.shards.cache.folder / "locks" / f"baseline-{key}.lock"


def test_a_baseline_in_the_making_is_left_until_the_others_are_measured(folder: Path) -> None:
    run, store = Run(_job(folder, "waits", train__seed=5), ListReporter(), Rank()), MemoryStore()
    baselines = _baselines(run, store)
    with file_lock(_untrained_lock(run)):
        assert not baselines.find(wait=False)
        assert {name.split("/")[1] for name in baselines.figures} == {"pixels"}
        assert not baselines.look()
    assert baselines.find(wait=True)
    assert {name.split("/")[1] for name in baselines.figures} == {"untrained", "pixels"}


def test_a_trial_waits_for_the_one_that_measures_a_shared_baseline_and_reads_its_figures(
    folder: Path,
) -> None:
    run, store = Run(_job(folder, "waits", train__seed=5), ListReporter(), Rank()), MemoryStore()
    store.write(f"{pixels_key(run.config, run.shards)}.json", b'{"baseline/pixels/linear/mean": 20.0}')
    baselines = _baselines(run, store)
    waiting = threading.Thread(target=lambda: baselines.find(wait=True))
    with file_lock(_untrained_lock(run)):
        waiting.start()
        key = untrained_key(run.config, run.shards, run.rank)
        store.write(f"{key}.json", b'{"baseline/untrained/linear/mean": 12.5}')
    waiting.join()
    assert baselines.figures == {"baseline/untrained/linear/mean": 12.5, "baseline/pixels/linear/mean": 20.0}


class StepReporter(ListReporter):
    """Notes at which step of a run each of its reports came."""

    def __init__(self, stop_at_images: int | None = None) -> None:
        super().__init__(stop_at_images)
        self.run: Run | None = None
        self.steps: list[int] = []

    def report(self, report: TrialReport) -> Decision:
        assert self.run is not None
        self.steps.append(self.run.state.step)
        return super().report(report)


def _late_run(folder: Path, trial_id: str, seed: int, stop_at_images: int | None = None) -> StepReporter:
    """The reports of a run that finds its untrained baseline in the making until it has trained for two steps."""
    late = StepReporter(stop_at_images)
    late.run = run = Run(_job(folder, trial_id, train__seed=seed), late, Rank())
    training = threading.Thread(target=run.train)
    with file_lock(_untrained_lock(run)):
        training.start()
        while run.state.step < 2 and training.is_alive():
            time.sleep(0.01)
    training.join()
    return late


def test_a_trial_trains_while_another_measures_its_baseline_and_reports_what_it_would_have(
    folder: Path,
) -> None:
    usual, late = ListReporter(), _late_run(folder, "late", 11)
    job = replace(_job(folder, "usual", train__seed=11), run_uri=str(folder / "runs/alone"))
    Run(job, usual, Rank()).train()
    assert late.steps[0] >= 2
    for ours, theirs in zip(late.reports, usual.reports, strict=True):
        assert (ours.images, ours.correct) == (theirs.images, theirs.correct)
        for mine, other in zip(ours.rows, theirs.rows, strict=True):
            assert mine.metrics.keys() == other.metrics.keys()
            probed = [name for name in other.metrics if name.startswith(("probe/", "baseline/", "health/"))]
            assert {name: mine.metrics[name] for name in probed} == {
                name: other.metrics[name] for name in probed
            }


def test_a_trial_that_is_stopped_at_a_late_first_report_leaves_a_checkpoint(folder: Path) -> None:
    late = _late_run(folder, "late-stop", 12, stop_at_images=0)
    assert late.run is not None
    assert [report.images for report in late.reports] == [0]
    assert late.run.state.step == late.steps[0]
    found = load_latest(late.run.store)
    assert found is not None
    assert found.step == late.steps[0]


def test_pixels_are_probed_once_for_every_seed(folder: Path) -> None:
    runs = [Run(_job(folder, f"seed-{seed}", train__seed=seed), ListReporter(), Rank()) for seed in (3, 4)]
    store = open_store(str(folder / "baselines-of-two"))
    found = []
    for run in (runs[0], runs[0], runs[1], runs[1]):
        baselines = _baselines(run, store)
        baselines.find(wait=True)
        found.append(baselines.figures)
    assert len(list(store.list())) == 3  # one of pixels, and one of the untrained encoder for each seed
    assert found[0] == found[1]
    assert found[2] == found[3]
    pixels = [{name: value for name, value in each.items() if "/pixels/" in name} for each in found]
    assert pixels[0] == pixels[2]


def test_a_finished_run_says_its_last_report_again_and_trains_nothing(folder: Path) -> None:
    job = _job(folder, "done")
    Run(job, ListReporter(), Rank()).train()
    again = ListReporter()
    Run(job, again, Rank()).train()
    assert [report.final for report in again.reports] == [True]


@pytest.mark.parametrize("sampler", ["exact", "reference", "random", "block", "rasterized"])
def test_a_rectangular_encoder_trains_and_is_probed_on_its_own_grid(folder: Path, sampler: str) -> None:
    job = _job(
        folder,
        f"wide-{sampler}",
        encoder__image_size_px=[24, 40],
        masks__sampler=sampler,
        masks__num_target_blocks=3 if sampler == "rasterized" else 1,
        train__images=64,
    )
    reporter = ListReporter()
    run = Run(job, reporter, Rank())
    run.train()
    assert (run.grid.rows, run.grid.columns) == (6, 10)
    assert run.probes.train.images_uint8_NCHW.shape[2:] == (24, 40)
    assert "probe/linear/class" in reporter.reports[-1].rows[-1].metrics


def test_what_every_rank_could_not_use_is_kept_beside_the_trial(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images", images=40)
    (images / "ant" / "broken.png").write_bytes(b"no image")
    job = _job(tmp_path, "bad", data__source=str(images))
    Run(job, ListReporter(), Rank()).train()
    (entry,) = read_sweep_ledger(open_store(job.run_uri))
    assert (entry.key, entry.num_samples) == ("ant/broken", 1)


def test_a_resumed_run_removes_what_a_killed_attempt_was_writing(folder: Path) -> None:
    job = _job(folder, "killed")
    half = folder / "runs/s/trials/killed/checkpoints/step-0000000001/.orchestrator-tmp-1"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half a checkpoint")
    Run(job, ListReporter(), Rank()).train()
    assert not half.exists()


def test_one_worker_draws_the_masks_of_as_many_as_the_run_was_laid_out_for(folder: Path) -> None:
    """The published sampler cuts contexts to the smallest of a worker's share, so that shares are seen in its masks."""
    reported = {}
    for num_workers in (1, 2):
        reporter = ListReporter()
        job = _job(folder, f"for-{num_workers}", masks__sampler="reference", train__num_workers=num_workers)
        Run(job, reporter, Rank()).train()
        reported[num_workers] = reporter.reports[-1].rows[0].metrics
    context = {number: metrics["masks/context_patches"] for number, metrics in reported.items()}
    assert context[2] > context[1]
    assert reported[2]["train/loss"] == pytest.approx(reported[1]["train/loss"], rel=0.2)


@pytest.mark.parametrize(
    ("world_size", "num_workers", "shares"),
    [(1, 1, 1), (1, 4, 4), (2, 4, 2), (4, 4, 1), (3, 4, 1), (4, 2, 1)],
)
def test_a_process_does_its_part_of_the_shares_where_they_can_be_dealt_out(
    world_size: int, num_workers: int, shares: int
) -> None:
    assert Rank(world_size=world_size).shares_of(num_workers) == shares


def test_a_loss_over_the_whole_batch_is_not_cut_into_shares(folder: Path) -> None:
    job = _job(folder, "whole-batch", objective={"name": "vicreg"}, train__num_workers=2)
    assert Run(job, ListReporter(), Rank()).num_shares == 1


def test_what_only_the_probes_could_not_use_is_kept_and_counted(tmp_path: Path) -> None:
    images = image_folder(tmp_path / "images", images=40)
    held_out = next(
        path
        for path in sorted(images.rglob("*.png"))
        if is_held_out(path.relative_to(images).with_suffix("").as_posix())
    )
    held_out.write_bytes(b"no image")
    job, reporter = _job(tmp_path, "bad-probe", data__source=str(images)), ListReporter()
    Run(job, reporter, Rank()).train()
    (entry,) = read_sweep_ledger(open_store(job.run_uri))
    assert entry.key == held_out.relative_to(images).with_suffix("").as_posix()
    last = reporter.reports[-1].rows[-1].metrics
    assert (last["data/bad_probe_samples"], last["data/bad_samples"]) == (1, 0)
