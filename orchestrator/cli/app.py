"""The root of the command line, to which each module of commands adds its own."""

from __future__ import annotations

from typing import Any

import click

from orchestrator import __version__
from orchestrator.cli.messages import show_log
from orchestrator.errors import StorageError

_EPILOG = (
    "Exit codes: 0 done, 1 unexpected, 2 configuration, 3 data, 4 storage, 5 tracking, 6 training, 7 cluster, "
    "130 interrupted, 141 nobody reads the output any more."
)


class Commands(click.Group):
    """A group that lists each command with its whole first paragraph; stock click cuts it at 45 characters."""

    group_class = type

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click takes any broken pipe, a server's too, for a reader of the output that left."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as err:
            raise StorageError(
                f"{err.filename or 'a connection'}: broken off ({err.strerror}); try again"
            ) from err

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list; long lines are wrapped."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="orchestrator")
@click.option("-v", "--verbose", is_flag=True, help="Show our whole log and the libraries' warnings.")
def app(verbose: bool) -> None:
    """Find the mask geometry with which I-JEPA learns the best features per GPU hour on your images."""
    show_log(verbose=verbose)
    if not verbose:
        import warnings

        warnings.filterwarnings("ignore")
