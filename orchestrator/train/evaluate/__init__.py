"""What features are worth: probes of an encoder and of the baselines (`probing`), and its health (`health`).

`evaluation` does one, `asynchronous` and `evaluator` do it while training goes on, and `data_cache` keeps
decoded images.
"""
