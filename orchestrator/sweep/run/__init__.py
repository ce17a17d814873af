"""A sweep on a cluster: the driver, the coordinator that its trials report to, and the slots that run them.

`checks` and `labels` refuse a sweep before anything is spent; `elastic` says how many workers a slot has.
"""
