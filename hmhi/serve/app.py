"""The page and its HTTP door. The page uses nothing that programs cannot use, too."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from hmhi.errors import UserError
from hmhi.media.av_out import has_av
from hmhi.runtime.worker import WorkerProcess
from hmhi.serve.guard import Guard, refusal
from hmhi.serve.jobs import Job, Jobs, ServerFullError
from hmhi.serve.settings import SAMPLES, SIZES, JobOptions, ServerSettings
from hmhi.serve.uploads import UploadError, receive
from hmhi.serve.work import DOWNLOADS, UPLOAD, Network, build
from hmhi.version import __version__

PAGE = Path(__file__).resolve().parent / "page"
_PAGE_FILES = {
    "app.js": "text/javascript", "player.js": "text/javascript", "api.js": "text/javascript", "style.css": "text/css",
}  # fmt: skip


def build_app(settings: ServerSettings) -> FastAPI:
    """The application; its jobs start with it and end with it."""
    network = Network(settings.checkpoint, settings.device)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.jobs = Jobs(settings.folder, settings.limits, WorkerProcess(build, network))
        yield
        app.state.jobs.close()

    app = FastAPI(
        title="hmhi", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Segment the salient object of a video.",
    )  # fmt: skip
    app.middleware("http")(Guard(settings))
    _add_errors(app)
    _add_page(app, settings)
    _add_jobs(app, settings)
    return app


def _add_errors(app: FastAPI) -> None:
    """Every error is ``{"error": text}``, and none tells of this machine."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return refusal(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def bad_request(request: Request, error: RequestValidationError) -> Response:
        fields = ", ".join(str(item["loc"][-1]) for item in error.errors())
        return refusal(400, f"not a valid value: {fields}")

    @app.exception_handler(Exception)
    async def own_fault(request: Request, error: Exception) -> Response:
        return refusal(500, "the server failed; its log says how")


def _add_page(app: FastAPI, settings: ServerSettings) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    @app.get("/docs", include_in_schema=False)
    def documentation() -> Response:
        return FileResponse(PAGE / "api.html", media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    def page_file(name: str) -> Response:
        if name not in _PAGE_FILES:
            raise HTTPException(404, "no such file")
        return FileResponse(PAGE / name, media_type=_PAGE_FILES[name], headers={"Cache-Control": "no-cache"})

    @app.get("/settings")
    def settings_of_server() -> dict[str, Any]:
        """Limits, and what a job may choose."""
        limits = settings.limits
        return {
            "version": __version__,
            "network": "bundled" if settings.checkpoint is None else settings.checkpoint.stem,
            "sizes": list(SIZES), "samples": list(SAMPLES), "alpha": has_av(),
            "limits": {
                "upload_bytes": limits.upload_bytes, "pixels": limits.pixels, "frames": limits.frames,
                "seconds": limits.seconds, "keep_seconds": limits.keep_seconds,
            },
        }  # fmt: skip


def _add_jobs(app: FastAPI, settings: ServerSettings) -> None:
    def jobs() -> Jobs:
        return app.state.jobs

    def find(identity: str) -> Job:
        job = jobs().get(identity)
        if job is None:
            raise HTTPException(404, "no such job; it may have been deleted")
        return job

    def begin(name: str, sample: str | None = None, **options: Any) -> Job:
        try:
            if options["alpha"] and not has_av():
                raise UserError("transparent video needs PyAV on the server: pip install 'hmhi[video]'")
            return jobs().begin(name, JobOptions(**options), sample)
        except ServerFullError as error:
            raise HTTPException(503, str(error)) from None
        except UserError as error:
            raise HTTPException(400, str(error)) from None

    @app.post("/jobs", status_code=201)
    async def create(
        request: Request,
        name: str = "",
        image_size: int | None = None,
        alpha: bool = False,
        refine: bool = True,
    ) -> dict[str, Any]:
        """Segment a video: the body is the file, or a form (multipart/form-data) with one file.

        `image_size` is the side of the network's input, `alpha` asks for a video with transparency, and `refine`
        lets masks follow the edges of the frame.
        """
        job = await run_in_threadpool(begin, name, image_size=image_size, alpha=alpha, refine=refine)
        try:
            given = await receive(request, jobs().folder(job) / UPLOAD, settings.limits)
            job.name = (name or given or "video")[:200]
        except UploadError as error:
            jobs().remove(job)
            raise HTTPException(error.status, str(error)) from None
        except BaseException:
            jobs().remove(job)
            raise
        jobs().submit(job)
        return jobs().describe(job)

    @app.post("/samples/{sample}", status_code=201)
    def create_sample(
        sample: str, image_size: int | None = None, alpha: bool = False, refine: bool = True
    ) -> dict[str, Any]:
        """Segment a synthetic video, drawn on the spot."""
        if sample not in SAMPLES:
            raise HTTPException(404, f"no such sample; there are {', '.join(SAMPLES)}")
        job = begin(sample, sample, image_size=image_size, alpha=alpha, refine=refine)
        jobs().submit(job)
        return jobs().describe(job)

    @app.get("/jobs/{identity}")
    def describe(identity: str) -> dict[str, Any]:
        """State (queued, running, done, failed), place in the queue, frames done, frames a second, time left."""
        return jobs().describe(find(identity))

    @app.delete("/jobs/{identity}", status_code=204)
    def cancel(identity: str) -> Response:
        """Cancel a job, and delete all of it."""
        jobs().remove(find(identity))
        return Response(status_code=204)

    @app.get("/jobs/{identity}/view/{number}.jpg")
    def view(identity: str, number: int) -> Response:
        """A small picture of frame, probability and flow, one below the other."""
        job = find(identity)
        path = jobs().folder(job) / "view" / f"{number}.jpg"
        if not path.is_file():
            raise HTTPException(404, "this frame is not there yet")
        return FileResponse(path, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/jobs/{identity}/{download}")
    def fetch(identity: str, download: str) -> Response:
        """masks.zip, overlay.mp4, coco.json, and alpha.webm where it was asked for."""
        job = find(identity)
        if download not in DOWNLOADS:
            raise HTTPException(404, f"no such download; there are {', '.join(DOWNLOADS)}")
        place, kind = DOWNLOADS[download]
        path = jobs().folder(job) / "out" / place
        if job.state != "done" or not path.is_file():
            raise HTTPException(404, "this is not there, or not yet")
        stem = re.sub(r"[^\w.-]+", "_", Path(job.name).stem)[:80] or "video"
        return FileResponse(
            path, media_type=kind, filename=f"{stem}-{download}", content_disposition_type="inline"
        )
