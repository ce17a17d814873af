"""What is said of a sweep: the verdict, the winner, and every sentence of the report.

`summary` gathers it; the command line and the page print it.
"""
