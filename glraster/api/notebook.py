"""What a notebook shows: a bar while a verb runs, and the picture of a map."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glraster.segmentation.write_map import Progress

_PICTURE_PX = 640


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def shown_progress(
    progress: Callable[[Progress], None] | None, title: str
) -> Iterator[Callable[[Progress], None] | None]:
    """Yield the callback, or in a notebook without one a bar that is removed at the end."""
    if progress is not None or not in_notebook():
        yield progress
        return
    from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]

    handle: Any = display(HTML(bar(title, "", 0, 1)), display_id=True)
    try:
        yield lambda now: handle.update(HTML(bar(title, now.phase, now.done, now.total)))
    finally:
        handle.update(HTML(""))


def bar(title: str, phase: str, done: int, total: int) -> str:
    """A bar as HTML."""
    share = done / max(1, total)
    text = f"{title} {phase} {share:.0%}".replace("  ", " ")
    return f'<progress value="{share:.4f}" max="1"></progress> {escape(text)}'


def picture(mask: Path) -> str:
    """A mask with its legend as HTML."""
    from glraster.reporting.preview import PreviewOptions, preview

    with TemporaryDirectory(prefix="glraster-") as folder:
        file = Path(folder) / "preview.png"
        preview(mask, file, PreviewOptions(size=_PICTURE_PX, title="Land cover"))
        encoded = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="Land-cover map with its legend" src="data:image/png;base64,{encoded}">'
