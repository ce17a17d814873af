"""Training one configuration: a pure plan and loop, and the Ray Train workers that run it."""
