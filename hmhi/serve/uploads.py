"""Receive a video piece by piece, as the body itself or as a form's file, never more than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from python_multipart.multipart import MultipartParseError, MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from hmhi.media.video_in import HEAD, is_container
from hmhi.serve.settings import Limits

PNG = b"\x89PNG\r\n\x1a\n"
"""How such a file begins."""


class UploadError(Exception):
    """The upload is refused.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def receive(request: Request, path: Path, limits: Limits) -> str | None:
    """Write the video of a request to a file.

    Args:
        request: Its body is the video, or a form with one file.
        path: File to write.
        limits: Of size and of silence.

    Returns:
        The file's name as the client calls it, if it does.

    Raises:
        UploadError: Too large, too slow, not a video by its first bytes, or broken off.
    """
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > limits.upload_bytes + 65536:
        raise _too_large(limits)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    try:
        with path.open("wb") as stream:
            if kind == b"multipart/form-data":
                return await _receive_form(
                    request, options.get(b"boundary", b""), _Sink(stream, limits), limits
                )
            sink = _Sink(stream, limits)
            async for chunk in _chunks(request, limits):
                sink.write(chunk)
            sink.finish()
            return None
    except ClientDisconnect:
        raise UploadError(400, "the upload broke off") from None


async def receive_mask(request: Request, path: Path, limits: Limits) -> None:
    """Write the painted mask of a request to a file.

    Args:
        request: Its body is a PNG.
        path: File to write.
        limits: Of size and of silence.

    Raises:
        UploadError: Too large, too slow, not a PNG by its first bytes, or broken off.
    """
    content = b""
    try:
        async for chunk in _chunks(request, limits):
            content += chunk
            if len(content) > limits.mask_bytes:
                raise UploadError(413, f"the mask is too large; at most {limits.mask_bytes / 1e6:.0f} MB")
    except ClientDisconnect:
        raise UploadError(400, "the upload broke off") from None
    if not content.startswith(PNG):
        raise UploadError(415, "this is not a mask: send a PNG")
    path.write_bytes(content)


class _Sink:
    """Writes what passes the limits."""

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream, self._limits = stream, limits
        self._head = b""
        self._size = 0

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limits.upload_bytes:
            raise _too_large(self._limits)
        if len(self._head) < HEAD:
            self._head += chunk[:HEAD]
            if len(self._head) >= HEAD:
                self._check()
        self._stream.write(chunk)

    def finish(self) -> None:
        if self._size == 0:
            raise UploadError(400, "no video was sent")
        self._check()

    def _check(self) -> None:
        if not is_container(self._head):
            raise UploadError(415, "this is not a video: send MP4, MOV, WebM, MKV or AVI")


async def _receive_form(request: Request, boundary: bytes, sink: _Sink, limits: Limits) -> str | None:
    part = _FilePart(sink)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": part.begin, "on_header_field": part.field, "on_header_value": part.value,
                "on_header_end": part.header_end, "on_headers_finished": part.headers_finished,
                "on_part_data": part.data,
            },
        )  # fmt: skip
        async for chunk in _chunks(request, limits):
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError:
        raise UploadError(400, "the form is damaged") from None
    sink.finish()
    return part.name


class _FilePart:
    """Hands the first file of a form on, and passes over all else."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self.name: str | None = None
        self._is_file = self._done = False
        self._header, self._content = b"", b""

    def begin(self) -> None:
        self._done = self._done or self._is_file
        self._is_file = False
        self._header = self._content = b""

    def field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if len(self._header) + len(self._content) > 8192:
            raise UploadError(400, "the form is damaged")

    def header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._content)
            if b"filename" in options and not self._done:
                self._is_file = True
                self.name = options[b"filename"].decode("utf-8", "replace")
        self._header = self._content = b""

    def headers_finished(self) -> None:
        pass

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file and not self._done:
            self._sink.write(data[start:end])


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body, given up where nothing comes for too long."""
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), limits.silence_seconds)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UploadError(408, "the upload stood still for too long") from None
        yield chunk


def _too_large(limits: Limits) -> UploadError:
    return UploadError(413, f"the file is too large; at most {limits.upload_bytes / 1e6:.0f} MB")
