"""Hostile command lines, each drawn from a seed: a command that works, and what a stranger does to it."""

from __future__ import annotations

import random
from collections.abc import Callable

from sandbox import Case, Maker
from things import (
    bomb,
    checkpoint,
    config,
    evil_pickle,
    finished_run,
    flip,
    folder,
    frames,
    half,
    link,
    mask_picture,
    masks,
    nothing,
    pack,
    picture,
    pipe,
    put,
    rename,
    spoil,
    text,
    trees,
    video,
)  # fmt: skip

NET = ("--checkpoint", "small.pt", "--image-size", "64")

# words, what they need, the files that can be spoiled, the options that can be added (with how many values)
TEMPLATES: list[tuple[tuple[str, ...], tuple[Maker, ...], tuple[str, ...], tuple[tuple[str, int], ...]]] = [
    (
        ("segment", *NET, "--input", "clip", "--output", "out"), (checkpoint(), frames()),
        ("small.pt", "clip/0.png", "clip/1.png"),
        (
            ("--start", 1), ("--end", 1), ("--every", 1), ("--fps", 1), ("--image-size", 1), ("--short-side", 1),
            ("--memory-frames", 1), ("--precision", 1), ("--device", 1), ("--attention", 2), ("--attention-frame", 1),
            ("--sequences", 1), ("--flow", 1), ("--checkpoint", 1), ("--save-prob", 0), ("--overlay", 0),
            ("--matte", 0), ("--strip", 0), ("--coco", 0), ("--scene-cuts", 0), ("--overwrite", 0),
        ),
    ),
    (
        ("segment", *NET, "--input", "in", "--output", "out"),
        (checkpoint(), frames("in/a"), video("in/b.mp4"), pack("in/c.zip", {"0.png": picture(), "1.png": picture(1)})),
        ("in/a/0.png", "in/b.mp4", "in/c.zip"), (("--start", 1), ("--sequences", 1), ("--coco", 0), ("--overlay", 0)),
    ),
    (
        ("evaluate", "masks", "--pred", "pred", "--gt", "gt"), (trees,), ("pred/a/0.png", "pred/a/1.png", "gt/a/1.png"),
        (
            ("--protocol", 1), ("--dataset", 1), ("--sequences", 1), ("--missing", 1), ("--extra", 1),
            ("--resize", 1), ("--jobs", 1), ("--json", 1), ("--csv", 1), ("--html", 1), ("--pred", 1), ("--gt", 1),
        ),
    ),
    (
        ("evaluate", "maps", "--pred", "pred", "--gt", "gt"), (trees,), ("pred/a/1.png", "gt/a/1.png"),
        (("--protocol", 1), ("--dataset", 1), ("--missing", 1), ("--resize", 1), ("--jobs", 1), ("--json", 1)),
    ),
    (
        ("train", "--config", "tiny.yaml", "--check"), (config(), checkpoint()), ("tiny.yaml",),
        (("--resume", 1), ("--load-from", 1), ("--force", 0)),
    ),
    (
        ("train", "--config", "tiny.yaml", "--load-from", "small.pt"), (config(), checkpoint()),
        ("small.pt", "tiny.yaml"), (("--resume", 1), ("--force", 0)),
    ),
    (
        ("flow", "--input", "clip", "--output", "out"), (frames(count=3),), ("clip/0.png", "clip/1.png", "clip/2.png"),
        (
            ("--method", 1), ("--direction", 1), ("--last", 1), ("--compensation", 1), ("--format", 1),
            ("--weights", 1), ("--device", 1), ("--batch-size", 1),
        ),
    ),
    (
        ("data", "synthetic", "--output", "out", "--videos", "1", "--frames", "1", "--size", "32", "32"), (), (),
        (("--videos", 1), ("--frames", 1), ("--size", 2), ("--seed", 1), ("--flow", 1), ("--split", 1)),
    ),
    (("data", "check", "davis16", "--root", "root"), (frames("root/DAVIS-16/Images/val/a"),), (), (("--decode", 1), ("--root", 1))),
    (("data", "prepare", "visal", "--source", "source", "--root", "out"),
     (frames("source/ViSal/a"), masks("source/GroundTruth/a")), ("source/ViSal/a/0.png", "source/GroundTruth/a/0.png"),
     (("--link", 0), ("--copy", 0), ("--source", 1))),
    (
        ("export", "weights", "--checkpoint", "small.pt", "--output", "out/w.safetensors"), (checkpoint(),),
        ("small.pt",), (("--precision", 1), ("--checkpoint", 1)),
    ),
    (
        ("draw_strip", "--images", "i", "--flows", "f", "--gt", "g", "--pred", "g", "--output", "out/s.png"),
        (frames("i/a"), frames("f/a"), masks("g/a")), ("i/a/1.png", "f/a/1.png", "g/a/1.png"),
        (("--frame", 1), ("--sequences", 1), ("--gt", 1)),
    ),
    (("make_baselines", "--flow", "f", "--output", "out"), (frames("f/a"),), ("f/a/0.png",), (("--compensation", 1),)),
    (
        ("export", "masks", "--from", "run", "--to", "coco", "--output", "out"), (finished_run,),
        ("run/masks/clip/0.png", "run/sequences/clip.json", "run/infer.json"),
        (("--to", 1), ("--images", 0), ("--category", 1), ("--from", 1)),
    ),
    (
        ("convert", "--to", "release", "small.pt", "out/w.pth"), (checkpoint(),), ("small.pt",),
        (("--to", 1), ("--backbone", 1)),
    ),
    (
        ("reproduce", "--dry-run", "--paper", "hmhi", "--table", "4", "--output", "out"), (), (),
        (("--paper", 1), ("--table", 1), ("--row", 1), ("--seeds", 1), ("--budget", 1), ("--tables", 1), ("--list", 0)),
    ),
    (
        ("evaluate", "objects", "--pred", "pred", "--gt", "gt"), (trees,), ("pred/a/1.png", "gt/a/0.png", "gt/a/1.png"),
        (("--protocol", 1), ("--meta", 1), ("--seen", 1), ("--missing", 1), ("--resize", 1), ("--sequences", 1)),
    ),
    (
        ("segment", "--list", "list.txt", "--output", "out", "--checkpoint", "small.pt", "--device", "cpu"),
        (checkpoint(), video(), put("list.txt", "clip.mp4")), ("list.txt", "clip.mp4", "small.pt"),
        (("--shard", 1), ("--time-limit", 1), ("--retry", 0), ("--image-size", 1), ("--flow", 1)),
    ),
    (("compare_runs", "run"), (put("run/metrics.jsonl", '{"val/a": 1}\n'),), ("run/metrics.jsonl",), ()),
]  # fmt: skip

VALUES = (
    "", "-1", "0", "1", "2", "3", "7", "-0.5", "0.5", "1e400", "nan", "inf", "9" * 25, "banana", "a b", "../gt", "nowhere",
    "clip", "gt", "small.pt", "tiny.yaml", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "loop", "fifo",
    "empty", "text.txt", "http://127.0.0.1:9/x.mp4", "ftp://127.0.0.1:9/", "camera:x", "-", "--", ".", "*", "**", "[", "{}",
    "%s", "=", "null", "~", "\x1b[31mred", "x" * 300, "y" * 5000, "\udcff\udcfe", "\u4e2d\u6587", "1x1", "64x0", "0s", "2.5s",
    "-3s", "1e3s", "fp16", "bf16", "cpu", "cuda", "cuda:7", "mps", "meta", "auto", "all-frames", "davis16", "dis", "raft",
)  # fmt: skip

KEYS = (
    "train.lr", "train.epochs", "train.batch_size", "train.weight_decay", "train.grad_clip", "train.min_lr", "train.output",
    "train.load_from", "train.log_every", "train.save_every", "train.seed", "train.precision", "data.root", "data.train",
    "data.val", "data.image_size", "data.image_size.0", "data.clip_frames", "data.workers", "data.flow", "data.synthetic",
    "data.synthetic.videos", "data.synthetic.size", "model", "model.backbone", "model.memory_frames", "model.memory_stages",
    "model.memory_topk", "model.drop_path", "model.inputs", "infer.threshold", "infer.precision", "infer.flow", "nothing",
    "train.", ".lr", "data..root", "train.lr.x",
)  # fmt: skip
OUTPUTS = ("--output", "--root", "--json", "--csv", "--html")
TAKE_OVERRIDES = ("segment", "train", "export")

SPOILERS: tuple[Callable[[bytes], bytes], ...] = (
    half, nothing, text, flip, lambda _: evil_pickle(), lambda _: bomb(9000), lambda _: picture(3, (20, 24)),
    lambda _: mask_picture(), lambda _: b"\0" * 1000, lambda content: content + b"trailing", lambda _: b"\xff\xd8\xff",
    lambda _: b"%!PS\n(%pipe%touch owned) (w) file\n", lambda content: content[100:], lambda _: b"[]", lambda _: b"{}",
)  # fmt: skip

ALWAYS = (folder("empty"), put("text.txt", "a\nb\n"), link("loop", "loop"), pipe("fifo"))


def draw(seed: int) -> Case:
    """The case of a seed: a template with one to three things done to it."""
    rng = random.Random(seed)
    words, made, files, options = TEMPLATES[seed % len(TEMPLATES)]
    line, makers = list(words), [*made, *ALWAYS]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        deed = rng.choice(("option", "option", "option", "file", "file", "place", "override", "drop", "name"))
        if deed == "option" and options:
            name, count = rng.choice(options)
            # A hostile user with root's rights could replace a device; the machine is not part of the sandbox.
            values = [value for value in VALUES if name not in OUTPUTS or may_be_output(value)]
            line += [name, *(rng.choice(values) for _ in range(count))]
        elif deed == "file" and files:
            makers.append(_once(rng.choice(files), rng.choice(SPOILERS)))
        elif deed == "place" and files:
            place = rng.choice(files)
            makers.append(
                _replace(
                    place,
                    rng.choice((link(place, "loop"), link(place, "/dev/zero"), pipe(place), folder(place))),
                )
            )
        elif deed == "override" and words[0] in TAKE_OVERRIDES:
            key, value = rng.choice(KEYS), rng.choice(VALUES)
            line.append(f"{key}={'' if key == 'train.output' and not may_be_output(value) else value}")
        elif deed == "drop" and len(line) > 2:
            place = rng.randrange(1, len(line))
            if line[place] != "--dry-run":  # without it, trainings begin
                del line[place]
        elif deed == "name" and files and "/" in (place := rng.choice(files)):
            makers.append(
                _once_renamed(
                    place,
                    rng.choice(
                        ("..png", "...png", "-x.png", "a=b.png", "\udcff.png", " .png", "\x1b[31m.png")
                    ),
                )
            )
    return Case(tuple(line), tuple(makers), code=(0, 2), outputs=_outputs(line), timeout=60)


def may_be_output(value: str) -> bool:
    """Whether it may be written there without harm to the machine and the inputs."""
    return value[:1] not in ("", "/", ".") and value not in ("clip", "gt", "small.pt", "tiny.yaml")


def _outputs(line: list[str]) -> tuple[str, ...]:
    """Where a line may write: its outputs, reports, and the default places."""
    named = [line[i + 1] for i, word in enumerate(line[:-1]) if word in OUTPUTS]
    named += [word.partition("=")[2] for word in line if word.startswith("train.output=")]
    return tuple({"out", "outputs", "runs", *filter(may_be_output, named)})


def _once(place: str, how: Callable[[bytes], bytes]) -> Maker:
    return lambda root: spoil(place, how)(root) if (root / place).is_file() else None


def _replace(place: str, maker: Maker) -> Maker:
    def make(root):
        if (root / place).is_file() and not (root / place).is_symlink():
            (root / place).unlink()
            maker(root)

    return make


def _once_renamed(place: str, name: str) -> Maker:
    to = place.rpartition("/")[0] + "/" + name
    return lambda root: rename(place, to)(root) if (root / place).is_file() else None
