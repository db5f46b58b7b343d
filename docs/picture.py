"""Draw ``terminal.svg``: what a terminal really showed, captured with ``tmux capture-pane -e -p``.

``python docs/picture.py docs/terminal.svg FRAME.txt …`` puts the frames below each other.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main(target: str, *frames: str) -> None:
    """Write the picture of the frames."""
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
    for frame in frames:
        console.print(Text.from_ansi(Path(frame).read_text().rstrip() + "\n"))
    svg = console.export_svg(title="modelbeam predict")
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)  # nothing is fetched
    Path(target).write_text(re.sub(r"\n\s*\n", "\n", svg))


if __name__ == "__main__":
    main(*sys.argv[1:])
