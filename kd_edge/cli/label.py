"""The verb label: cut and label pieces of long recordings in a local web page."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import counted, out
from kd_edge.errors import ConfigError, DataError, printable
from kd_edge.files import check_writable, expanded, held
from kd_edge.packages import EXTRA_OF, import_extra

app = typer.Typer()
LOCK, SHOWN = ".label.lock", 8


@app.command(
    epilog="Examples:  kd-edge label recordings  |  kd-edge label recordings --open  |  "
    "kd-edge label ~/night --fresh --port 8001"
)
def label(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of recordings: a manifest, or files in folders.")
    ],
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 for any free one.", show_default=True)
    ] = 0,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Without a manifest: ignore the classes in folder and file names."),
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Cut and label pieces of long recordings, in a web page that only this machine can open.

    Every change is saved immediately to DIR/manifest.csv, where train --data
    DIR reads it. Ctrl-C stops.
    """
    import secrets

    from kd_edge.label.frames import Frames
    from kd_edge.label.labels import Labels
    from kd_edge.label.server import application, listening, serve
    from kd_edge.runtime.signals import interrupt_on_termination

    for module in ("starlette", "uvicorn", "cv2", "av"):  # report missing packages now, not at the first picture
        import_extra(module, EXTRA_OF[module])
    root = expanded(folder)
    labels, frames, token = Labels(root, fresh=fresh), Frames(), secrets.token_urlsafe(24)
    check_writable(labels.file, DataError, option="DIR")
    with held(root / LOCK) as is_alone:
        if not is_alone:
            raise ConfigError(
                f"{root} is being labelled by another kd-edge label", "one at a time", "use its page, or stop it"
            )
        with listening(port) as own:
            number = own.getsockname()[1]
            page = application(labels, frames, token=token, port=number)
            address = f"http://127.0.0.1:{number}/#{token}"
            pieces = sum(bool(row.label) for recording in labels.recordings for row in recording.rows)
            count = f"{counted(len(labels.recordings), 'recording')}, {counted(pieces, 'labelled piece')}"
            out.print(escape(printable(f"{root}: {count}, kept in {labels.file.name}")), soft_wrap=True)
            out.print(f"{escape(address)}  (Ctrl-C ends)", soft_wrap=True)
            if labels.is_by_names:
                classes = ", ".join(labels.classes[:SHOWN]) + (" ..." if len(labels.classes) > SHOWN else "")
                note = f"classes from folder and file names: {classes}; --fresh ignores them"
                out.print(escape(printable(note)), soft_wrap=True)
            if open_:
                typer.launch(address)
            with suppress(KeyboardInterrupt), closing(frames), interrupt_on_termination():
                serve(page, own)
    out.print(escape(printable(f"every change is in {labels.file}; check: kd-edge data check files --data {folder}")))
