"""Serve the web page and its HTTP door; docs/SERVE.md says what it does and how it is kept safe.

hmhi serve
hmhi serve --host 0.0.0.0 --port 8000      # asks for a token, which it prints
"""

from __future__ import annotations

import argparse
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from hmhi.commands.errors import report_errors
from hmhi.errors import UserError


@report_errors
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    args = parse_arguments(arguments, prog)
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise UserError(f"the page needs {', '.join(missing)}: pip install 'hmhi[web]'")
    import uvicorn

    from hmhi.inference.base import EMBEDDED_OBJECTS, find_device
    from hmhi.models.weights import checkpoint_kind, load_state
    from hmhi.serve.app import build_app
    from hmhi.serve.guard import is_loopback
    from hmhi.serve.settings import Limits, ServerSettings

    limits = replace(
        Limits(),
        upload_bytes=round(args.upload_mb * 1e6),
        frames=args.frames,
        seconds=args.seconds,
        keep_seconds=args.keep_hours * 3600,
        disk_bytes=round(args.disk_gb * 1e9),
    )
    find_device(args.device)  # what every job would stumble over is said at once
    if args.checkpoint is not None:
        load_state(args.checkpoint)
    if args.objects_checkpoint is not None and checkpoint_kind(args.objects_checkpoint) == "hmhi":
        raise UserError(
            f"--objects-checkpoint {args.objects_checkpoint} holds HMHI-Net, which takes no masks"
        )
    args.folder.mkdir(parents=True, exist_ok=True)
    token = args.token or (None if is_loopback(args.host) else secrets.token_urlsafe(24))
    follower = args.objects_checkpoint or EMBEDDED_OBJECTS
    settings = ServerSettings(
        args.folder.resolve(), args.host, token, args.checkpoint, follower, args.device, limits
    )
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    with socket.create_server((args.host, args.port), family=family) as listener:
        query = f"?token={token}" if token else ""
        shown = f"[{args.host}]" if ":" in args.host else args.host
        port = listener.getsockname()[1]
        print(
            f"open http://{shown}:{port}/{query}   (Ctrl-C ends it; jobs lie in {settings.folder})",
            flush=True,
        )
        config = uvicorn.Config(build_app(settings), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog, description="Serve the web page and its HTTP door.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: this machine alone"
    )
    parser.add_argument("--port", type=port, default=8000, help="default 8000; 0 takes any that is free")
    parser.add_argument(
        "--token", help="asked of every request; beyond this machine one is made up and printed"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/serve"), help="of the jobs")
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled network")
    parser.add_argument(
        "--objects-checkpoint", type=Path, metavar="FILE",
        help="HMMN or STMA, which follows painted objects; default: the bundled HMMN",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:0")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--upload-mb", type=positive, default=500, metavar="MB", help="largest upload; default 500"
    )
    limits.add_argument("--frames", type=count, default=3000, help="of a video; default 3000")
    limits.add_argument("--seconds", type=positive, default=3600, help="of work on a video; default 3600")
    limits.add_argument(
        "--keep-hours", type=positive, default=24, metavar="H", help="then a job is deleted; default 24"
    )
    limits.add_argument(
        "--disk-gb",
        type=positive,
        default=10,
        metavar="GB",
        help="of all jobs; beyond, old ones go; default 10",
    )
    return parser.parse_args(arguments)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**16:
        raise ValueError
    return value
