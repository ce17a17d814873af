"""A tape of what a sweep decides: messages, clock and ids in; answers, events and what readers see out.

    python -m tests.tape.record            record every scenario again
    pytest tests/test_tape.py              play each one back and compare

`adapter` alone knows the modules and classes that are recorded. `scenarios` lists the scripts, which are in
`scripts_*`. `cluster` plays the workers, `curves` what they measure, `play` steps through messages, `form` compares and
stores. `journals` has whole ones that earlier versions wrote.
"""
