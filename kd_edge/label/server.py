"""The page's server: loopback only, protected by a token, with a few routes over ``Labels`` and ``Frames``."""

from __future__ import annotations

import hmac
import json
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kd_edge.data.readers.files.rows import Row
from kd_edge.errors import ConfigError, DataError, KdEdgeError, printable
from kd_edge.label.edits import EditRequest, RevisionRequest
from kd_edge.label.frames import Contrast, Frames
from kd_edge.label.labels import ConflictError, Done, Labels, RefusedError, Track
from kd_edge.packages import import_extra

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
MOST_BODY_BYTES = 65_536
_MOST_DIGITS = 9  # of a recording's number
LENGTHS_AT_ONCE = 24
"""Maximum number of headers read for one response."""
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def listening(port: int) -> socket.socket:
    """A socket on the loopback address; port 0 takes a free port.

    Raises:
        ConfigError: It is taken, or not to be had.
    """
    own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind((HOST, port))
        own.listen()
    except (OSError, OverflowError) as error:
        own.close()
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"port {port} cannot be used ({why})", "a free port", "leave --port out, or choose another"
        ) from error
    return own


def serve(app: Starlette, own: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; running requests are finished.

    Raises:
        KeyboardInterrupt: After all is closed.
    """
    uvicorn = import_extra("uvicorn", "label")
    config = uvicorn.Config(
        app, log_config=None, log_level="critical", access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=2, timeout_keep_alive=30, ws="none", http="h11", loop="asyncio",
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[own])


def application(labels: Labels, frames: Frames, *, token: str, port: int) -> Starlette:
    """The application: the page and its requests.

    The page itself is for everybody on this machine and holds nothing; every answer about recordings, and every change,
    needs the token in the header ``X-Token``, which no page of another origin can send. The header ``Host`` must be
    this machine's, so that no name of the internet can be made to point here.

    Args:
        labels: Of the folder.
        frames: Its pictures.
        token: Secret of this run.
        port: Where it is served.
    """
    import_extra("starlette", "label")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Route

    routes = _Routes(labels, frames)
    return Starlette(
        routes=[
            *(Route(path, _page_file(*its), methods=["GET"]) for path, its in _PAGE.items()),
            Route("/api/state", routes.state, methods=["GET"]),
            Route("/api/lengths", routes.lengths, methods=["GET"]),
            Route("/api/recordings/{number}", routes.recording, methods=["GET"]),
            Route("/api/recordings/{number}/frame", routes.frame, methods=["GET"]),
            Route("/api/edit", routes.edit, methods=["POST"]),
            Route("/api/undo", routes.undo, methods=["POST"]),
            Route("/api/redo", routes.redo, methods=["POST"]),
            Route("/api/reload", routes.reload, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=token, hosts=frozenset((f"{HOST}:{port}", f"localhost:{port}")))],
        exception_handlers={KdEdgeError: _told, ValidationError: _told},
    )


class Guard:
    """Admits only requests of this page; others get an error of one line.

    Args:
        app: What is guarded.
        token: What the header ``X-Token`` of every request below ``/api`` must be.
        hosts: What the header ``Host`` may be.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: frozenset[str]) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        from starlette.responses import JSONResponse

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            await send(message)

        if scope["type"] != "http":  # beginning and end of the server; there are no other kinds of connections
            await self._app(scope, receive, send)
            return
        status, why = self._refused(scope)
        if why:
            await JSONResponse({"error": why}, status)(scope, receive, headed)
        else:
            await self._app(scope, receive, headed)

    def _refused(self, scope: Scope) -> tuple[int, str]:
        """Status and message for a refused request; an empty message if it is admitted."""
        headers = dict(scope["headers"])
        if headers.get(b"host", b"").decode("latin-1").lower() not in self._hosts:
            return 403, f"this page is at {min(self._hosts)} only"
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.removeprefix("http://") not in self._hosts:
            return 403, "another page may not ask this one"
        if scope["path"].startswith("/api/") and not hmac.compare_digest(headers.get(b"x-token", b""), self._token):
            return 403, "the address lacks its token: open the one that kd-edge label has printed"
        return 0, ""


class _Routes:
    """The routes; they run in threads, except for reading request bodies, so that a slow disk blocks nobody."""

    def __init__(self, labels: Labels, frames: Frames) -> None:
        self._labels, self._frames = labels, frames

    def state(self, request: Request) -> Response:
        """Everything except the pieces."""
        return _json(self._state())

    def lengths(self, request: Request) -> Response:
        """Durations and labelled times of some recordings, starting at ``from``."""
        first, count = int(_number(request, "from", 0.0)), len(self._labels.recordings)
        some = range(first, min(count, first + LENGTHS_AT_ONCE))
        found = {k: {"seconds": self._labels.seconds(k), "labelled_s": self._labels.labelled_s(k)} for k in some}
        return _json({"lengths": found, "next": some.stop if some and some.stop < count else None})

    def recording(self, request: Request) -> Response:
        """One recording: its pictures and its pieces."""
        number = self._known(request)
        recording, tracks = self._labels.recordings[number], self._labels.tracks(number)
        return _json(
            {
                "number": number,
                "name": recording.name,
                "seconds": self._labels.seconds(number),
                "labelled_s": self._labels.labelled_s(number),
                "subject": recording.subject,
                "view": recording.rows[0].view,
                "revision": self._labels.revision,
                "tracks": [self._track(track) for track in tracks],
                "pieces": [_piece(row) for row in recording.pieces],
            }
        )

    def frame(self, request: Request) -> Response:
        """A picture of a recording: ``modality``, ``t`` (s of the recording), ``nearest``, ``low`` and ``high``."""
        from starlette.responses import Response

        number, name = self._known(request), request.query_params.get("modality", "")
        track = next((track for track in self._labels.tracks(number) if track.modality == name), None)
        if track is None:
            raise RefusedError(f"no pictures of '{name[:80]}'", "a modality of the recording", "reload the page")
        seconds = _number(request, "t", 0.0) - track.late_s
        limits = [request.query_params.get(key) for key in ("low", "high")]
        contrast = None if None in limits else Contrast(_number(request, "low", 0.0), _number(request, "high", 0.0))
        nearest = request.query_params.get("nearest") == "1"
        media = self._labels.media(name)
        shown = self._frames.picture(track.path, media, seconds, nearest=nearest, contrast=contrast)
        following = "" if shown.next_s is None else f"{shown.next_s + track.late_s:.9f}"
        stamps = {"x-frame-s": f"{shown.since_s + track.late_s:.9f}", "x-next-s": following}
        return Response(shown.jpeg, media_type="image/jpeg", headers=stamps)

    async def edit(self, request: Request) -> Response:
        """Apply an edit."""
        asked = EditRequest.model_validate_json(await _body(request))
        return await self._changed(lambda: self._labels.apply(asked.edit, asked.revision))

    async def undo(self, request: Request) -> Response:
        """Undo the last change."""
        asked = RevisionRequest.model_validate_json(await _body(request))
        return await self._changed(
            lambda: self._labels.undo(asked.revision) or Done("nothing to undo: these are the labels as they were read")
        )

    async def redo(self, request: Request) -> Response:
        """Redo the change undone last."""
        asked = RevisionRequest.model_validate_json(await _body(request))
        return await self._changed(
            lambda: (
                self._labels.redo(asked.revision) or Done("nothing to redo: no change was undone since the last one")
            )
        )

    async def reload(self, request: Request) -> Response:
        """Reload from disk."""
        await _body(request)
        self._frames.close()
        return await self._changed(self._labels.reload)

    async def _changed(self, change: Callable[[], Done]) -> Response:
        from starlette.concurrency import run_in_threadpool

        done = await run_in_threadpool(change)
        return _json({"said": done.said, "recording": done.recording, **self._state()})

    def _state(self) -> dict[str, Any]:
        labels = self._labels
        return {
            "revision": labels.revision,
            "folder": printable(str(labels.root)),
            "file": labels.file.name,
            "classes": labels.classes,
            "undo": labels.undoable,
            "redo": labels.redoable,
            "recordings": [
                {"name": one.name, "subject": one.subject, "pieces": sum(bool(row.label) for row in one.rows)}
                for one in labels.recordings
            ],
        }

    def _track(self, track: Track) -> dict[str, Any]:
        media = self._labels.media(track.modality)
        known: dict[str, Any] = {"modality": track.modality, "file": printable(track.path.name), "late_s": track.late_s}
        try:
            header = self._labels.header(track.modality, track.path)
            contrast = self._frames.contrast(track.path, media, header.seconds)
        except DataError as error:
            return known | {"error": str(error)}
        return known | {
            "seconds": header.seconds,
            "fps": header.fps,
            "size": header.size,
            "dtype": header.dtype,
            "contrast": contrast,
        }

    def _known(self, request: Request) -> int:
        text = request.path_params["number"]
        number = int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else math.inf
        if number >= len(self._labels.recordings):
            raise _AbsentError(f"no recording of number {text[:40]}", "one of the list", "reload the page")
        return int(number)


class _AbsentError(RefusedError):
    """The requested item does not exist."""


class _TooLongError(RefusedError):
    """The request is too long."""


def _page_file(name: str, kind: str) -> Callable[[Request], Response]:
    from starlette.responses import Response

    content = (Path(__file__).parent / "page" / name).read_bytes()
    return lambda _: Response(content, headers={"content-type": kind})


def _json(values: dict[str, Any]) -> Response:
    """A JSON response in ASCII: file names may contain bytes that are not UTF-8, which JSON escapes."""
    from starlette.responses import Response

    return Response(json.dumps(values, allow_nan=False), media_type="application/json")


async def _body(request: Request) -> bytes:
    """The request's JSON; a body that is too long is not read to its end."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY_BYTES:
            raise _TooLongError(f"more than {MOST_BODY_BYTES} bytes", "one change", "reload the page")
    return bytes(content)


def _number(request: Request, name: str, usual: float) -> float:
    text = request.query_params.get(name, "")
    try:
        value = float(text) if text else usual
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e9:
        raise RefusedError(f"{name} is '{text[:40]}'", "a number", "reload the page")
    return value


def _piece(row: Row) -> dict[str, Any]:
    return {
        "id": row.id, "label": row.label, "start_s": row.start_s, "end_s": row.end_s, "subject": row.subject,
        "trial": row.trial,
    }  # fmt: skip


def _told(_: Request, error: Exception) -> Response:
    """Response with the error as one sentence, and the status of its kind."""
    from starlette.responses import JSONResponse

    kinds = ((ConflictError, 409), (_AbsentError, 404), (_TooLongError, 413), (RefusedError, 400), (DataError, 422))
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        sentence = f"the request is not understood ({where}: {first['msg']}): reload the page"
        return JSONResponse({"error": sentence[:1000]}, 400)
    status = next((number for kind, number in kinds if isinstance(error, kind)), 500)
    sentence = str(error)
    if isinstance(error, (ConflictError, RefusedError)):  # of the page, not of a file: what happened, and what to do
        sentence = printable(f"{error.found}. {error.fix[:1].upper()}{error.fix[1:]}.")
    return JSONResponse({"error": sentence, "conflict": getattr(error, "by", "")}, status)
