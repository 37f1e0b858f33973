"""The viewer as a web application: one page, and three addresses that it asks.

`/scene` is the maze or the robot, `/plan` one plan with the history of its denoising, `/drive` an episode, in lines of JSON as
it is driven.
Plans are made in threads, a few at a time. What cannot be answered gets status 400 and a sentence that the page shows.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dfplan.viewer.questions import Question
from dfplan.viewer.robots import RobotScene
from dfplan.viewer.scene import Scene

LONGEST_BODY = 65_536
"""Bytes of a question."""
MOST_WAITING = 16
"""Requests that wait for a thread; further ones are refused."""
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
"""The page loads nothing from elsewhere, and the browser holds it to that."""


class BusyError(RuntimeError):
    """More questions than wait in line."""


def application(scene: Scene | RobotScene, threads: int = 2, hosts: tuple[str, ...] = ("*",)) -> Starlette:
    """The viewer of a scene, which makes up to `threads` plans at once and answers requests to these `hosts` only."""
    html = resources.files("dfplan.viewer").joinpath("page.html").read_text(encoding="utf-8")
    limit = anyio.CapacityLimiter(threads)

    async def in_thread(function: Any, *arguments: Any) -> Any:
        if limit.statistics().tasks_waiting >= MOST_WAITING:
            raise BusyError("too many plans are being made at once: try again in a moment")
        return await anyio.to_thread.run_sync(function, *arguments, limiter=limit)

    async def page(request: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})

    async def show(request: Request) -> Response:
        return JSONResponse(scene.to_json())

    async def plan(request: Request) -> Response:
        question = await _question(request)
        return JSONResponse(await in_thread(scene.plan, question))

    async def drive(request: Request) -> Response:
        parts = scene.drive(await _question(request))
        first = await in_thread(next, parts)  # so that a refusal has its status

        async def lines() -> AsyncIterator[str]:
            part = first
            while part is not None:
                yield json.dumps(part) + "\n"
                try:
                    # No thread is held while a slow client reads.
                    part = await in_thread(_following, parts)
                except (ValueError, BusyError) as error:
                    part = None
                    yield json.dumps({"error": str(error)}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return Starlette(
        routes=[
            Route("/", page),
            Route("/scene", show),
            Route("/plan", plan, methods=["POST"]),
            Route("/drive", drive, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        exception_handlers={ValueError: _refuse, BusyError: _refuse},
    )


def _following(parts: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    return next(parts, None)


async def _question(request: Request) -> Question:
    """The question in a request's body. Raises ValueError, with one sentence, for one that is too long or none."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise ValueError(f"a question has at most {LONGEST_BODY:,} bytes")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("a question is JSON with options, and a start and a goal or a task") from None
    return Question.read(values)


async def _refuse(request: Request, error: Exception) -> Response:
    """A sentence for the page."""
    status = 503 if isinstance(error, BusyError) else 400
    return JSONResponse({"error": str(error)}, status_code=status)
