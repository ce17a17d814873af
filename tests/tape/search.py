"""The driver's side of a proposing search: asks for points, has them run, and tells what came of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .cluster import Cluster


@dataclass
class Searching:
    """Keeps `concurrency` proposals going until `num_trials` were asked for, those of an earlier driver among them."""

    cluster: Cluster
    num_trials: int
    concurrency: int
    tells_hours: bool = False
    is_last: bool = True
    num_heard: int = 0
    _left: int = 0
    _active: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Begin, with what is known of an earlier driver's proposals."""
        send = self.cluster.session.send
        known = send("start_search")
        self._left = self.num_trials - known["num_proposed"] + len(known["pending"])
        send("expect", num_trials=self._left if self.is_last else None)
        self.cluster.on_ended = self.hear
        self._fill()

    def hear(self, trial_id: str) -> None:
        """An attempt at a trial has ended: the search hears of it where it is done."""
        send = self.cluster.session.send
        value = send("outcome", trial_id=trial_id)
        proposal = self._active.get(trial_id)
        if value is None or proposal is None:
            return
        hours = send("hours", trial_id=trial_id) if self.tells_hours else 0.0
        send("heard", proposal=proposal, value=value, hours=hours)
        del self._active[trial_id]
        self.num_heard += 1
        self._fill()

    def _fill(self) -> None:
        send = self.cluster.session.send
        while self._left and len(self._active) < self.concurrency:
            proposal = self.cluster.session.fresh_id("p")
            trial = send("suggest", proposal=proposal)
            self._left -= 1
            self._active[trial["trial_id"]] = proposal
            self.cluster.points[trial["trial_id"]] = trial["point"], trial["seed"]
            send("submit", **trial, proposal=proposal)
