import dataclasses
import json
import typing

import pytest

from hmhi.config import Config, ConfigError, config_from_dict, config_to_dict, load_config, save_config
from hmhi.settings import upgraded


def write(path, text):
    path.write_text(text)
    return path


def test_defaults_are_the_papers():
    config = load_config()
    assert (config.model.backbone, config.model.memory_frames, config.model.memory_interval) == (
        "mit_b1",
        5,
        1,
    )
    assert (config.model.memory_stages, config.data.image_size, config.data.clip_frames) == (
        [2, 4],
        [512, 512],
        5,
    )
    assert (config.train.lr, config.train.epochs) == (6e-5, 150)


def test_file_then_overrides(tmp_path):
    path = write(tmp_path / "a.yaml", "train: {lr: 6e-5, epochs: 3}\ndata: {root: /sets}\n")
    config = load_config(path, ["train.lr=1e-4", "data.image_size=[64,96]", "train.grad_clip=null"])
    assert config.train.lr == 1e-4
    assert config.train.epochs == 3
    assert config.data.root == "/sets"
    assert config.data.image_size == [64, 96]
    assert config.train.grad_clip is None


def test_base_is_overridden_key_by_key(tmp_path):
    write(tmp_path / "base.yaml", "train: {lr: 1e-3, epochs: 7}\ndata: {train: [davis16, fbms]}\n")
    (tmp_path / "more").mkdir()
    path = write(
        tmp_path / "more" / "own.yaml", "base: ../base.yaml\ntrain: {lr: 2e-3}\ndata: {train: [fbms]}\n"
    )
    config = load_config(path)
    assert (config.train.lr, config.train.epochs, config.data.train) == (2e-3, 7, ["fbms"])


def test_base_in_a_circle(tmp_path):
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match="leads back"):
        load_config(tmp_path / "a.yaml")


def test_saved_config_is_read_back_equal(tmp_path):
    config = load_config(None, ["train.lr=6e-5", "model.memory_stages=[1,3]", "train.ema=0.99"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {lrr: 1}", "train.lrr.*Did you mean: 'lr'"),
        ("trian: {lr: 1}", "trian"),
        ("train: {lr: fast}", "train.lr.*fast"),
        ("train: {lr: 1}\ntrain: {lr: 2}", "duplicate"),
        ("train: {grad_clip: None}", "train.grad_clip.*None"),
        ("train: {lr: -1}", "train.lr must be above 0"),
        ("train: {min_lr: 1}", "train.min_lr .* above train.lr"),
        ("train: {ema: 1.5}", "train.ema"),
        ("train: {grad_clip: 0}", "train.grad_clip"),
        ("model: {memory_stages: [4, 2]}", "model.memory_stages"),
        ("model: {memory_stages: [2]}", "model.high_to_shallow.*two memory banks"),
        ("model: {memory_frames: 0}", "model.memory_frames must be at least 1, got 0"),
        ("model: {memory_stages: [0, 4]}", "model.memory_stages must be at least 1 and at most 4, got 0"),
        ("model: {drop_path: 1.0}", "model.drop_path must be at least 0 and below 1"),
        ("train: {min_lr: -1}", "train.min_lr must be at least 0"),
        ("train: {weight_decay: .inf}", "train.weight_decay must be at least 0, got inf"),
        ("train: {loss: {focal: 0, bce: 0, dice: 0}}", "train.loss: .* nothing to learn"),
        ("data: {image_size: {0: 64}}", "a list is given where a section is due"),
        ("model: {inputs: sound}", "model.inputs.*image\\+flow"),
        ("data: {image_size: [512]}", "data.image_size"),
        ("data: {train: []}", "data.train"),
        ("infer: {threshold: 1.5}", "infer.threshold"),
        ("data: {root: '${oc.env:HOME}'}", "interpolations"),
        ("- a\n- b", "mapping"),
        ("train: {lr: [", "a.yaml"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(ConfigError, match=f"(?s)a.yaml.*{message}|{message}"):
        load_config(path)


@pytest.mark.parametrize("override", ["train.lr", "--lr=3", "train.nothing=3", "nothing=3"])
def test_bad_overrides(override):
    with pytest.raises(ConfigError, match=r"lr|nothing"):
        load_config(None, [override])


def test_absent_file():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_config("nowhere.yaml")


def numeric_fields(section=None, prefix=""):
    for field in dataclasses.fields(section or Config()):
        value = getattr(section or Config(), field.name)
        if dataclasses.is_dataclass(value):
            yield from numeric_fields(value, f"{prefix}{field.name}.")
        elif {int, float} & {*typing.get_args(typing.get_type_hints(type(section))[field.name]), type(value)}:
            yield prefix + field.name, isinstance(value, list)


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf", "-.inf"])
def test_no_number_is_negative_or_endless(value):
    """The rule holds for every numeric field, also for those that come later."""
    fields = dict(numeric_fields())
    assert len(fields) > 30 and {"train.weight_decay", "train.loss.focal", "train.grad_clip"} <= set(fields)
    for key, many in fields.items():
        with pytest.raises(ConfigError, match=key.rsplit(".")[-1]):
            load_config(None, [f"{key}=[{value},{value}]" if many else f"{key}={value}"])


def test_a_loaded_config_does_not_change():
    config = load_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.train.load_from = "other.pt"


def test_settings_of_the_first_checkpoints_load(repository):
    """Written by the version that introduced the format; keys that are gone since are left out."""
    stored = json.loads((repository / "tests" / "formats" / "hmhi-1.json").read_text())
    assert stored["config"]["train"]["betas"] and stored["config"]["train"]["save_every"]
    assert config_from_dict(stored["config"]) == Config()


def test_settings_that_are_gone_are_named(tmp_path, caplog):
    """The config.yaml of an older run still trains."""
    path = write(tmp_path / "config.yaml", "train: {betas: [0.9, 0.99], save_every: 2, lr: 1.0}")
    assert load_config(path).train.lr == 1.0
    assert "settings that are gone are ignored: train.betas, train.save_every" in caplog.text


def test_a_renamed_key_takes_its_value_along():
    former = {"train.rate": "train.lr", "model.depth": "model.size.depth", "train.gone": None}
    old = {"train": {"rate": 3, "gone": 1}, "model": {"depth": 2}}
    assert upgraded(old, former) == ({"train": {"lr": 3}, "model": {"size": {"depth": 2}}}, ["train.gone"])
    assert old["train"] == {"rate": 3, "gone": 1}


def test_every_field_is_explained():
    """Each field of the tree is followed by a docstring line, the reference that users read."""
    import ast
    import inspect

    import hmhi.config

    def sections(kind):
        yield kind
        for field in typing.get_type_hints(kind).values():
            if dataclasses.is_dataclass(field):
                yield from sections(field)

    names = {kind.__name__ for kind in sections(Config)}
    assert len(names) >= 7
    for node in ast.parse(inspect.getsource(hmhi.config)).body:
        if isinstance(node, ast.ClassDef) and node.name in names:
            for i, item in enumerate(node.body):
                if isinstance(item, ast.AnnAssign):
                    following = node.body[i + 1]
                    explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    assert explained, f"{node.name}.{item.target.id} has no explanation"
