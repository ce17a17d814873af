"""What travels: between a run and its driver, into a sweep's journal and out of it.

Frozen classes; those that are stored are turned to JSON in one place and read back in one. Plain Python: no torch, no
Ray, no pydantic, no I/O.

`point` is a point of a search space, `events` what a journal holds, `reports` what a run tells its driver and hears
back, `jobs` what a slot is given to run; `writing` turns them into JSON, `reading` reads it. `metrics` are the names of
a row's figures; `hours` and `intervals` are figures that say what they are.
"""
