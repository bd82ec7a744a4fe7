"""Commands as a hostile user types them: each line is one case, and some things hold for all of them.

No traceback, no hang, no process left behind, nothing changed outside the output, nothing half-written inside it.
"""

from pathlib import Path

import pytest
from sandbox import Case, Warm, complaints
from things import (
    bomb,
    checkpoint,
    checkpoint_bytes,
    checkpoint_with,
    config,
    document,
    evil_pickle,
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

NET = "--checkpoint small.pt --image-size 64"
CLIP = (checkpoint(), frames())
SEGMENT = f"segment {NET} --input clip --output out"
DRAW = "data synthetic --output out --videos 1 --frames 2 --size 32 32"

SEGMENTING = [
    Case(SEGMENT, CLIP, code=0),
    Case(f"segment {NET} --input clip.mp4 --output out --overlay", (checkpoint(), video()), code=0),
    Case(f"segment {NET} --input nowhere --output out", (checkpoint(),), says="nowhere"),
    Case(f"segment {NET} --input empty --output out", (checkpoint(), folder("empty")), says="empty"),
    Case("segment --checkpoint none.pt --input clip --output out", (frames(),), says="none.pt"),
    Case(f"segment {NET} --input clip --output clip/out", CLIP, says="clip", outputs=()),
    Case(SEGMENT, (*CLIP, put("out", "a file")), says="out", outputs=()),
    Case(SEGMENT, (*CLIP, link("out", "out")), says="out", outputs=()),
    Case(SEGMENT, (*CLIP, spoil("clip/1.png", half)), says="1.png"),
    Case(SEGMENT, (*CLIP, spoil("clip/1.png", nothing)), says="1.png"),
    Case(SEGMENT, (*CLIP, spoil("clip/1.png", text)), says="1.png"),
    Case(SEGMENT, (*CLIP, put("clip/1.png", bomb())), says="1.png"),
    Case(SEGMENT, (*CLIP, pipe("clip/2.png")), code=(0, 2), timeout=20),
    Case(SEGMENT, (*CLIP, link("clip/2.png", "/dev/zero")), code=(0, 2), timeout=20),
    Case(SEGMENT, (*CLIP, link("clip/2.png", "2.png")), code=(0, 2)),
    Case(SEGMENT, (checkpoint(), frames(), put("clip/2.png", picture(2, (56, 40)))), says="frame 2"),
    Case(SEGMENT, (frames(), checkpoint(), spoil("small.pt", half)), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint(), spoil("small.pt", nothing)), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint(), spoil("small.pt", text)), says="small.pt"),
    Case(SEGMENT, (frames(), put("small.pt", evil_pickle())), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint_with(config=[])), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint_with(config={"model": 3})), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint_with(model=None)), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint_with(model={"a": 1})), says="small.pt"),
    Case(SEGMENT, (frames(), checkpoint_with(flow=[1])), code=(0, 2)),
    Case(SEGMENT, (frames(), checkpoint_with(format="hmhi-99")), says="small.pt"),
    Case(f"{SEGMENT} --device banana", CLIP, says="banana"),
    Case(f"{SEGMENT} --device cuda:-1", CLIP, says="cuda:-1"),
    Case(f"{SEGMENT} --device meta", CLIP, says="meta"),
    Case(f"{SEGMENT} --start 9 --end 3", CLIP, says="9"),
    Case(f"{SEGMENT} --every 0", CLIP, says="every"),
    Case(f"{SEGMENT} --image-size 0", CLIP, says="0"),
    Case(f"{SEGMENT} --image-size 64x", CLIP, code=(0, 2)),
    Case(f"{SEGMENT} --fps nan", CLIP, code=(0, 2)),
    Case(f"{SEGMENT} infer.threshold=nan", CLIP, says="threshold"),
    Case(f"{SEGMENT} data.image_size.0=64", CLIP, code=(0, 2)),
    Case(f"{SEGMENT} model.no_such_key=1", CLIP, says="no_such_key"),
    Case(f"{SEGMENT} --memory-frames 99999999999", CLIP, code=(0, 2)),
    Case(f"segment {NET} --input camera:99 --output out", (checkpoint(),), says="camera"),
    Case(f"segment {NET} --input camera:-1 --output out", (checkpoint(),), says="camera"),
    Case(f"segment {NET} --input ..mp4 --output out", (checkpoint(), video("..mp4")), code=(0, 2)),
    Case(f"segment {NET} --input ...mp4 --output out", (checkpoint(), video("...mp4")), code=(0, 2)),
    Case(f"segment {NET} --input in --output out", (checkpoint(), pack("in/..zip", {"0.png": picture()})), code=(0, 2)),
    Case(
        f"segment {NET} --input evil.zip --output out",
        (checkpoint(), pack("evil.zip", {"../../owned/0.png": picture(), "/owned/1.png": picture(1)})),
        code=(0, 2),
    ),
    Case(f"segment {NET} --input bad.zip --output out", (checkpoint(), put("bad.zip", "PK")), says="bad.zip"),
    Case(f"segment {NET} --input clip.mp4 --output out", (checkpoint(), put("clip.mp4", "text")), says="clip.mp4"),
    Case(f"segment {NET} --input in --output out", (checkpoint(), frames("in/a"), rename("in/a", b"in/\xff\xfe")), code=(0, 2)),
    Case(f"segment {NET} --input in --output out", (checkpoint(), frames("in/a\x1b[31mb"), put("in/a\x1b[31mb/0.png", "x")), code=(0, 2)),
    Case(("segment", *NET.split(), "--input", "in", "--output", "out"), (checkpoint(), frames("in/ -x="), frames("in/\u4e2d")), code=0),
    Case(f"segment {NET} --input in --output out", (checkpoint(), video("in/http:127.0.0.1:9.mp4")), code=(0, 2)),
    Case(f"segment {NET} --input ** --output out", (checkpoint(), frames("in/a"), link("in/a/b", "../../in")), code=(0, 2), timeout=30),
    Case(SEGMENT, (*CLIP, put("out/sequences/clip.json", "{}")), code=(0, 2)),
    Case(SEGMENT, (*CLIP, put("out/infer.json", "[]")), code=(0, 2)),
    Case(f"{SEGMENT} --flow flow", (checkpoint(), frames(count=3), frames("flow", 1)), says="flow"),
    Case(f"{SEGMENT} --flow flow", (*CLIP, frames("flow", 2), put("flow/manifest.json", "[]")), code=(0, 2)),
    Case(f"{SEGMENT} --flow flow", (*CLIP, frames("flow", 2, (56, 40))), says="not the shape"),
    Case(SEGMENT, (*CLIP, put("elsewhere/clip/mine.txt", "mine"), link("out/.partial", "../elsewhere")), code=0),
    Case(SEGMENT, (*CLIP, put("elsewhere/mine.txt", "mine"), link("out/masks/clip", "../../elsewhere")), code=0),
    Case(f"segment {NET} --input c* --output clip/out", CLIP, says="inside the input", outputs=()),
    Case(f"segment {NET} --input camera:{10**30} --output out", (checkpoint(),), says="called by its number"),
    Case(f"{SEGMENT} --device cuda:1000", CLIP, says="cuda:1000"),
    Case(f"{SEGMENT} --device xpu", CLIP, says="xpu"),
    Case(SEGMENT, CLIP, file_limit=60),
]  # fmt: skip

SCORING = [
    Case("evaluate masks --pred pred --gt gt", (trees,), code=0),
    Case("evaluate masks --pred pred --gt gt --json out/s.json --csv out/s.csv --html out/s.html", (trees,), code=0),
    Case("evaluate maps --pred pred --gt gt", (trees,), code=0),
    Case("evaluate masks", says="infer"),
    Case("evaluate masks --pred pred --gt nowhere", (trees,), says="nowhere"),
    Case("evaluate masks --pred pred --gt gt --protocol x", (trees,), says="davis16"),
    Case("evaluate masks --pred pred --gt gt", (trees, spoil("pred/a/1.png", half)), says="a/1"),
    Case("evaluate masks --pred pred --gt gt", (trees, spoil("gt/a/1.png", text)), says="a/1"),
    Case("evaluate masks --pred pred --gt gt", (trees, put("pred/a/1.png", picture())), says="colour"),
    Case("evaluate masks --pred pred --gt gt", (trees, put("pred/a/1.png", mask_picture(0, (20, 20)))), says="20x20"),
    Case("evaluate masks --pred pred --gt gt", (trees, put("pred/a/9.png", mask_picture())), says="9"),
    Case("evaluate masks --pred pred --gt gt", (trees, pipe("pred/a/9.png")), code=(0, 2), timeout=20),
    Case("evaluate masks --pred pred --gt gt", (trees, link("pred/a/9.png", "9.png")), code=(0, 2)),
    Case("evaluate masks --pred pred --gt gt", (trees, link("pred/b", ".")), code=(0, 2)),
    Case("evaluate masks --pred pred --gt gt --json fifo", (trees, pipe("fifo")), says="fifo", timeout=20),
    Case("evaluate masks --pred pred --gt gt --json gt", (trees,), says="gt"),
    Case("evaluate masks --pred pred --gt gt --csv out/s.csv", (trees,), file_limit=200),
    Case("evaluate masks --pred pred --gt gt --jobs -1", (trees,), says="--jobs"),
    Case("evaluate masks --pred pred --gt gt --sequences list.txt", (trees, put("list.txt", b"\xff\xfe")), says="list.txt"),
    Case("evaluate masks --pred pred --gt gt --sequences list.txt", (trees, put("list.txt", "../a\n")), says="../a"),
    Case("evaluate masks", (put("outputs/x/infer.json", "[]"), folder("outputs/x/masks")), says="infer.json"),
    Case("evaluate masks", (put("outputs/x/infer.json", document({"gt": 3})), folder("outputs/x/masks")), says="infer.json"),
]  # fmt: skip

TRAINING = [
    Case("train --config tiny.yaml", (config(),), code=0),
    Case("train --config tiny.yaml --check", (config(),), code=0),
    Case("train --config nowhere.yaml", says="nowhere.yaml"),
    Case("train --config tiny.yaml", (config("a: [1"),), says="tiny.yaml"),
    Case("train --config tiny.yaml", (config("- 1\n"),), says="tiny.yaml"),
    Case("train --config tiny.yaml", (config("train: !!python/object/apply:os.system ['touch owned']\n"),), says="tiny.yaml"),
    Case("train --config tiny.yaml", (put("tiny.yaml", b"\xff\xfe\x00"),), says="tiny.yaml"),
    Case("train --config tiny.yaml train.lr=banana", (config(),), says="train.lr"),
    Case("train --config tiny.yaml train.lr=nan", (config(),), says="lr"),
    Case("train --config tiny.yaml train.lr=-1", (config(),), says="lr"),
    Case("train --config tiny.yaml train.weight_decay=inf", (config(),), says="weight_decay"),
    Case("train --config tiny.yaml train.min_lr=-1", (config(),), says="min_lr"),
    Case("train --config tiny.yaml data.image_size.0=64", (config(),), code=(0, 2)),
    Case("train --config tiny.yaml train..lr=1", (config(),), code=2),
    Case("train --config tiny.yaml =3", (config(),), code=2),
    Case("train --config tiny.yaml train.seed=\udcff", (config(),), says="train.seed"),
    Case("train --config tiny.yaml train.batch_size=0", (config(),), says="batch_size"),
    Case("train --config tiny.yaml data.train=[nothing]", (config(),), says="nothing"),
    Case("train --config tiny.yaml data.train=[davis16] data.root=nowhere", (config(),), says="nowhere"),
    Case("train --config tiny.yaml --resume none.pt", (config(),), says="none.pt"),
    Case("train --config tiny.yaml --load-from small.pt", (config(), put("small.pt", evil_pickle())), says="small.pt"),
    Case("train --config tiny.yaml --load-from small.pt", (config(), checkpoint(), spoil("small.pt", half)), says="small.pt"),
    Case("train --config tiny.yaml --resume auto", (config(), put("out/ckpt/last.pt", "text\n")), says="last.pt", code=(0, 2)),
    Case("train --config tiny.yaml --resume auto", (config(), put("out/ckpt/last.pt", checkpoint_bytes()[:5000])), says="last.pt", code=(0, 2)),
    Case("train --config tiny.yaml train.output=taken", (config(), put("taken", "x")), says="taken", outputs=()),
    Case("train --config tiny.yaml", (config(),), file_limit=30_000, code=(1, 2)),
]  # fmt: skip

FLOWING = [
    Case("flow --input clip --output out", (frames(),), code=0),
    Case("flow --input nowhere --output out", says="nowhere"),
    Case("flow --input clip --output clip/flow", (frames(),), says="clip/flow", outputs=()),
    Case("flow --input clip --output out", (frames(), spoil("clip/1.png", half)), says="1.png"),
    Case("flow --input clip --output out", (frames(), put("clip/1.png", picture(1, (20, 20)))), says="1.png"),
    Case("flow --input clip --output out", (frames(), put("out/manifest.json", "[]")), says="manifest.json"),
    Case("flow --input clip --output out", (frames(), put("out/manifest.json", "{")), says="manifest.json"),
    Case("flow --input clip --output out --method raft --weights w.pth", (frames(), put("w.pth", evil_pickle())), says="w.pth"),
    Case("flow --input clip --output out --method raft --weights w.pth", (frames(), put("w.pth", "text")), says="w.pth"),
    Case("flow --input clip --output out --batch-size -3", (frames(),), says="batch-size"),
    Case("flow --input clip --output out --direction both", (frames(),), says="--compensation"),
    Case("flow --input in --output out", (frames("in/a"), link("in/a/b", "../../in")), code=(0, 2), timeout=30),
    Case("flow --input in --output out", (frames("in"), pipe("in/9.png")), code=(0, 2), timeout=20),
    Case("flow --input in --output out", (frames("in"), link("in/9.png", "/dev/zero")), code=(0, 2), timeout=20),
    Case("flow --input clip --output out", (frames(),), file_limit=200),
]  # fmt: skip

BRINGING = [
    Case(DRAW, code=0),
    Case(f"{DRAW} --videos 0", says="videos"),
    Case(f"{DRAW} --videos -2", says="videos"),
    Case(f"{DRAW} --frames 0", says="frame"),
    Case(f"{DRAW} --seed -5", says="seed"),
    Case(f"{DRAW} --size 8 8", says="32"),
    Case(f"{DRAW} --size 8 banana", says="banana"),
    Case(DRAW, file_limit=200),
    Case("data check", says="data"),
    Case("data check davis-16", says="did you mean"),
    Case("data check davis16 --root x", (put("x", "file"),), says="x"),
    Case("data check davis16 --decode -1", code=(0, 2)),
    Case("data prepare davis16 --source nowhere --root out", says="nowhere"),
    Case("data prepare davis16 --source a.zip --root out", (put("a.zip", "PK"),), says="a.zip"),
    Case("data prepare davis16 --source a.zip --root out", (pack("a.zip", {"../../owned": b"x"}),)),
    Case("data prepare nothing --source a --root out", says="nothing"),
    Case("data prepare davis16 --source a --root out", (frames("a"), link("a/b", "../a")), timeout=30),
]

OTHERS = [
    Case("", says="COMMAND"),
    Case("sgment", says="sgment"),
    Case("benchmark nothing", says="nothing"),
    Case("reproduce --dry-run --paper hmhi --table 4 --seeds 9999999999 --output out", says="--seeds", timeout=20),
    Case("export weights --checkpoint small.pt --output out/w.safetensors", (checkpoint(),), code=0),
    Case("export weights --checkpoint small.pt --output out/w.pt", (checkpoint(),), says=".safetensors"),
    Case("export weights --checkpoint small.pt --output out/w.safetensors", (put("small.pt", evil_pickle()),), says="small.pt"),
    Case("export weights --checkpoint small.pt --output out/w.safetensors", (checkpoint(), spoil("small.pt", half)), says="small.pt"),
    Case("export weights --checkpoint small.pt --output out/w.safetensors model.x=1", (checkpoint(),), says="infer."),
    Case("export weights --checkpoint small.pt --output out/w.safetensors", (checkpoint(),), file_limit=5000),
    Case("draw_strip --images i --flows f --gt g --pred g --output out/s.png", (frames("i/a"), frames("f/a"), masks("g/a")), code=0),
    Case("draw_strip --images i --flows f --gt g --pred g --output out/s.png --frame 2", (frames("i/a"), frames("f/a"), masks("g/a")), says="--frame"),
    Case("draw_strip --images i --flows f --gt g --pred g --output out/s.png --frame nan", (frames("i/a"), frames("f/a"), masks("g/a")), says="--frame"),
    Case("draw_strip --images i --flows f --gt g --pred g --output out/s.xyz", (frames("i/a"), frames("f/a"), masks("g/a")), says="s.xyz"),
    Case("draw_strip --images i --flows f --gt no --pred g --output out/s.png", (frames("i/a"), frames("f/a"), masks("g/a")), says="no/a"),
    Case("make_baselines --flow f --output out", (frames("f/a"),), code=0),
    Case("make_baselines --flow f --output out", (frames("f/a"), spoil("f/a/0.png", flip)), code=(0, 2)),
    Case("compare_runs nowhere", says="nowhere"),
    Case("compare_runs run", (put("run/metrics.jsonl", "not json\n"),), says="metrics.jsonl"),
    Case("compare_runs run", (put("run/metrics.jsonl", "[1]\n"),), says="metrics.jsonl"),
    Case("compare_runs run", (put("run/metrics.jsonl", '{"val/a": "x"}\n'),), says="metrics.jsonl"),
]  # fmt: skip

CASES = [*SEGMENTING, *SCORING, *TRAINING, *FLOWING, *BRINGING, *OTHERS]
# Cases that load a network take a second each: two of three are left to the slow run.
SLOW = {id(case) for table in (SEGMENTING, TRAINING) for number, case in enumerate(table) if number % 3}


def name_of(case: Case) -> str:
    return " ".join(case.words).encode("ascii", "backslashreplace").decode()[:80]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (id(case) in SLOW), id=name_of(case)) for case in CASES],
)
def test_hostile_user(case: Case, warm: Warm, tmp_path: Path) -> None:
    assert complaints(case, warm, tmp_path / "sandbox") == []
