"""The command line; ``main`` is the entry point."""

from modelbeam.cli.main import main, run

__all__ = ["main", "run"]
