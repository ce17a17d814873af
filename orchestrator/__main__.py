"""`python -m orchestrator`: the command line, for places where no script is installed, such as a job's package."""

from orchestrator.cli import main

main()
