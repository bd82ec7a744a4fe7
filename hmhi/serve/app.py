"""The page and its HTTP door. The page uses nothing that programs cannot use, too."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from hmhi.errors import UserError
from hmhi.media.av_out import has_av
from hmhi.media.masks import PALETTE
from hmhi.runtime.worker import WorkerProcess
from hmhi.serve.guard import Guard, refusal
from hmhi.serve.jobs import Job, Jobs, ServerFullError
from hmhi.serve.painting import check_painted, cut_box
from hmhi.serve.settings import SAMPLES, SIZES, JobOptions, ServerSettings
from hmhi.serve.uploads import UploadError, receive, receive_mask
from hmhi.serve.work import DOWNLOADS, UPLOAD, Network, build
from hmhi.version import __version__

PAGE = Path(__file__).resolve().parent / "page"
_PAGE_FILES = {
    "app.js": "text/javascript", "player.js": "text/javascript", "painter.js": "text/javascript",
    "api.js": "text/javascript", "style.css": "text/css",
}  # fmt: skip


def build_app(settings: ServerSettings) -> FastAPI:
    """The application; its jobs start with it and end with it."""
    network = Network(settings.checkpoint, settings.device, settings.objects_checkpoint)

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
    _add_painting(app, settings)
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
            "objects": limits.objects if settings.objects_checkpoint else 0,
            "palette": np.reshape(PALETTE, (-1, 3))[: limits.objects + 1].tolist(),
            "limits": {
                "upload_bytes": limits.upload_bytes, "pixels": limits.pixels, "frames": limits.frames,
                "seconds": limits.seconds, "keep_seconds": limits.keep_seconds,
            },
        }  # fmt: skip


def _find(app: FastAPI, identity: str) -> Job:
    job = app.state.jobs.get(identity)
    if job is None:
        raise HTTPException(404, "no such job; it may have been deleted")
    return job


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn what is wrong with a request into its status."""
    try:
        yield
    except ServerFullError as error:
        raise HTTPException(503, str(error)) from None
    except UploadError as error:
        raise HTTPException(error.status, str(error)) from None
    except UserError as error:
        raise HTTPException(400, str(error)) from None


def _options(**values: Any) -> JobOptions:
    if values["alpha"] and not has_av():
        raise UserError("transparent video needs PyAV on the server: pip install 'hmhi[video]'")
    return JobOptions(**values)


def _add_jobs(app: FastAPI, settings: ServerSettings) -> None:
    def jobs() -> Jobs:
        return app.state.jobs

    def find(identity: str) -> Job:
        return _find(app, identity)

    def begin(name: str, sample: str | None = None, **options: Any) -> Job:
        with _refusing():
            return jobs().begin(name, _options(**options), sample)

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
            with _refusing():
                given = await receive(request, jobs().folder(job) / UPLOAD, settings.limits)
            job.name = (name or given or "video")[:200]
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
        """A small picture of frame, probability and flow (or colours of objects), one below the other."""
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


def _add_painting(app: FastAPI, settings: ServerSettings) -> None:
    """Objects that a mask of one frame names, and the mask of what a box encloses."""

    def find_frame(identity: str, frame: int) -> tuple[Job, Path, tuple[int, int]]:
        """The job, the small picture of one of its frames, and the frame's (H, W)."""
        job = _find(app, identity)
        view = app.state.jobs.folder(job) / "view" / f"{frame}.jpg"
        if "height" not in job.facts or not view.is_file():
            raise HTTPException(404, "this frame is not there, or not yet")
        return job, view, (job.facts["height"], job.facts["width"])

    @app.post("/jobs/{identity}/objects", status_code=201)
    async def follow_objects(
        request: Request, identity: str, frame: int, alpha: bool = False
    ) -> dict[str, Any]:
        """Follow objects from `frame` on through the video of a job, as a new job.

        The body is a PNG of the frame's size: a picture of ids, or white on black for one object. Frames before are
        background.
        """
        parent, _, size = find_frame(identity, frame)
        jobs: Jobs = app.state.jobs
        with _refusing():
            if settings.objects_checkpoint is None:
                raise UserError("this server has no network that follows objects (--objects-checkpoint)")
            job = await run_in_threadpool(
                jobs.begin_following, parent, frame, _options(alpha=alpha, refine=False)
            )
            try:
                await receive_mask(request, jobs.painted(job), settings.limits)
                await run_in_threadpool(check_painted, jobs.painted(job), size, settings.limits.objects)
            except BaseException:
                jobs.remove(job)
                raise
        jobs.submit(job)
        return jobs.describe(job)

    @app.post("/jobs/{identity}/box", response_class=Response)
    def mask_of_box(identity: str, frame: int, x: int, y: int, width: int, height: int) -> Response:
        """The mask of what a box of `frame` encloses, in pixels of the frame, as a PNG of its size; by GrabCut."""
        _, view, size = find_frame(identity, frame)
        with _refusing():
            return Response(cut_box(view, (x, y, width, height), size), media_type="image/png")
