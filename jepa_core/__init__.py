"""The I-JEPA training step: masks, encoders, predictor, objective, schedules, probes.

Owns everything that is arithmetic on tensors. Imports torch, timm, numpy and the standard library only, so that it
runs alone on a bare GPU image. Leaves out data, files, processes and configuration files: `orchestrator` owns those.
"""
