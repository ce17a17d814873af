"""Training one configuration: the loop, its evaluations, and the Ray Train workers that run both.

`loop` knows nothing of Ray's worker groups, `evaluate` measures features, `ray` runs a trial on the workers of a slot.
What a worker and the coordinator tell each other is `protocol.jobs` and `protocol.reports`.
"""
