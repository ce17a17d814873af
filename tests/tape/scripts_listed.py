"""Sweeps whose trials are known beforehand: grids, seeds, halving, longer and wider ones, plans."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from .cluster import Cluster, Failure
from .curves import METRIC, RATE, Curves, Point
from .play import Session
from .scripts_common import CURVES, SMALL, rates, rising, run_plainly

DEMO = {
    **SMALL,
    "name": "masks",
    "data.crop_scale": [0.5, 1.0],
    "encoder.name": "vit_tiny_patch16_224",
    "encoder.image_size_px": 48,
    "encoder.patch_size_px": 6,
    "encoder.width": 64,
    "encoder.depth": 4,
    "encoder.num_heads": 4,
    "predictor.width": 32,
    "predictor.depth": 2,
    "masks.num_target_blocks": 4,
    "masks.min_target_patches": 2,
    "masks.context_keep": 0.25,
    "optimizer.learning_rate": 2.0e-3,
    "ema.start_momentum": 0.99,
    "train.images": 24000,
    "train.batch_size": 48,
    "train.report_every_images": 4800,
    "train.checkpoint_every_images": 12000,
    "probe.every_images": 12000,
    "sweep.search": "grid",
    "sweep.metric": METRIC,
    "sweep.space": {
        "masks.target_scale": {"choices": [[0.08, 0.12], [0.15, 0.2], [0.22, 0.25]]},
        "masks.target_aspect_ratio": {"choices": [[0.75, 1.5], [2.0, 3.0]]},
    },
}
"""The demo's grid as it was when this was written; `sweeps/masks.yaml` may change."""


def by_rate(point: Point, seed: int, *, finals: Mapping[float, float], luck: float = 0.5) -> float:
    """Final accuracy given by learning rate; every further seed is a little above or below."""
    return finals[point[RATE]] + luck * (seed % 2) - luck * (seed == 2)


def demo_grid() -> Session:
    return run_plainly("demo_grid", DEMO, Curves(total_images=24000, images_per_s=400), gpus=0.0)


def three_seeds() -> Session:
    return run_plainly("three_seeds", rates(3, sweep__seeds=3))


def seeds_auto() -> Session:
    """Four geometries; two drop out, the others get a second and a third seed."""
    finals = {0.001: 44.0, 0.002: 58.0, 0.003: 60.0, 0.004: 50.0}
    curves = Curves(total_images=400, final=partial(by_rate, finals=finals))
    session = Session("seeds_auto", {"own": rates(4, sweep__seeds="auto", sweep__max_seeds=3)})
    cluster = Cluster(session, curves)
    cluster.submit(cluster.begin("own"), expect=None)
    cluster.on_idle = partial(more_seeds, cluster)
    cluster.finish()
    return session


def more_seeds(cluster: Cluster) -> bool:
    """What the driver does when nothing runs; whether there is more to do."""
    answer = cluster.session.send("next_seeds")
    if not answer["trials"]:
        cluster.session.send("expect", num_trials=0)
        return True
    trials = cluster.session.send("make_trials", trials=answer["trials"])
    cluster.submit(trials, expect=None)
    return True


def halving_stopping_brackets() -> Session:
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2, "brackets": 2}
    settings = rates(8, sweep__asha=asha)
    return run_plainly("halving_stopping_brackets", settings, Curves(total_images=400), num_slots=3)


def promotion_two_seeds() -> Session:
    asha = {"first_rung_images": 100, "reduction_factor": 2}
    return run_plainly("promotion_two_seeds", rates(4, sweep__asha=asha, sweep__seeds=2))


def promotion_killed_at_a_rung() -> Session:
    """The driver dies while trials wait at a rung, and its successor goes on."""
    asha = {"first_rung_images": 100, "reduction_factor": 3}
    session = Session("promotion_killed_at_a_rung", {"own": rates(6, sweep__asha=asha)})
    cluster = Cluster(session, CURVES)
    cluster.submit(cluster.begin("own"))
    cluster.start()
    cluster.run(lambda: len(cluster.checkpoints) == 4)
    cluster.play("own")
    return session


def extended_longer_and_wider() -> Session:
    """A finished sweep goes on with more images, more choices and one more seed, under halving."""
    asha = {"variant": "stopping", "first_rung_images": 100, "reduction_factor": 2}
    first = rates(3, sweep__asha=asha)
    longer = rates(3, sweep__asha=asha, train__images=600)
    wider = rates(4, sweep__asha=asha, train__images=600, sweep__seeds=2)
    session = Session("extended_longer_and_wider", {"first": first, "longer": longer, "wider": wider})
    cluster = Cluster(session, Curves(total_images=600, final=rising))
    for name in ("first", "longer", "wider"):
        if name != "first":
            session.send("check_resume", config=name)
        cluster.play(name)
    session.send("check_resume", config="first")
    return session


def wider_range_of_a_drawn_space() -> Session:
    """Random points stay when a range becomes wider and more are drawn."""
    base = {**SMALL, "sweep.search": "random"}
    first = {**base, "sweep.num_trials": 2, "sweep.space": {RATE: {"log_uniform": [1e-3, 1e-2]}}}
    wider = {**base, "sweep.num_trials": 4, "sweep.space": {RATE: {"log_uniform": [1e-4, 1e-1]}}}
    session = Session("wider_range_of_a_drawn_space", {"first": first, "wider": wider})
    cluster = Cluster(session, Curves(total_images=400))
    for name in ("first", "wider"):
        if name != "first":
            session.send("check_resume", config=name)
        cluster.play(name)
    return session


def changed_configuration() -> Session:
    """Interrupted, refused under other trials, and gone on with under other rules of health and retries."""
    first = rates(3)
    other = rates(3, encoder__depth=3, train__batch_size=20)
    fewer = rates(2)
    allowed = rates(3, train__max_failures=0, health__max_loss_ratio=5.0, train__report_every_images=200)
    configs = {"first": first, "other": other, "fewer": fewer, "allowed": allowed}
    session = Session("changed_configuration", configs)
    cluster = Cluster(session, CURVES)
    plan = cluster.begin("first")
    cluster.submit(plan)
    cluster.start()
    cluster.run(lambda: sum(cluster.checkpoints.values()) >= 400)
    session.send("stop_all", reason="interrupted")
    cluster.run()
    cluster.end("interrupted")
    for name in ("other", "fewer", "allowed"):
        session.send("check_resume", config=name)
    cluster.fails = lambda job, images: (
        Failure("out of memory") if job["trial_id"] == plan[1]["trial_id"] and images == 400 else None
    )
    cluster.play("allowed")
    return session


def plans() -> Session:
    """What is planned of random and Sobol draws, listed points, conditional and tied axes, equal geometries, a cap."""
    drawn = {"sweep.num_trials": 3, "sweep.search_seed": 5}
    masks = {
        "masks.target_scale": {"center": [0.1, 0.3], "width": 0.05},
        "masks.target_aspect_ratio": {"center_ratio": [0.5, 2.0], "spread": [1.1, 1.5]},
    }
    methods = {
        "objective.name": {"choices": ["ijepa", "mae"]},
        "objective.mask_fraction": {"uniform": [0.5, 0.9], "when": {"objective.name": "mae"}},
        "train.batch_size": {"choices": [64, 128], "also": {"optimizer.learning_rate": {"times": 1e-5}}},
    }
    equal = {"masks.target_scale": {"choices": [[0.15, 0.2], [0.151, 0.2], [0.3, 0.4]]}}
    listed = [
        {"name": "paper", "set": {"masks.num_target_blocks": 4}, "published": 67.1},
        {"name": "one", "set": {"masks.num_target_blocks": 1, "masks.target_scale": [0.3, 0.4]}},
    ]
    configs = {
        "random": {**SMALL, **drawn, "sweep.search": "random", "sweep.space": masks},
        "sobol": {**SMALL, **drawn, "sweep.search": "sobol", "sweep.space": masks, "sweep.seeds": 2},
        "conditional": {
            **SMALL,
            **drawn,
            "sweep.num_trials": 6,
            "sweep.search": "random",
            "sweep.space": methods,
        },
        "equal": {**SMALL, "sweep.space": equal},
        "capped": rates(5, sweep__num_trials=3),
        "listed": {**SMALL, "sweep.points": listed},
        "alone": dict(SMALL),
    }
    session = Session("plans", configs)
    for name in configs:
        session.send("plan", config=name)
    cluster = Cluster(session, CURVES)
    cluster.curves = Curves(total_images=400)
    cluster.play("listed")
    return session
