"""Sweeps: the search space, the scheduler, the journal, and the runner on Ray Tune."""
