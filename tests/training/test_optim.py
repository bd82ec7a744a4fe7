"""Parameter groups and learning rates."""

import math

import pytest
import torch
from torch import nn

from hmhi.config import ConfigError, ModelConfig, TrainConfig
from hmhi.models.build import build_model
from hmhi.training.optim import (
    build_optimizer,
    gradient_norm,
    learning_rate,
    load_optimizer,
    parameter_groups,
    set_learning_rate,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(4, 1))
        self.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)


def test_everything_decays_by_default():
    net = Net()
    (group,) = parameter_groups(net, TrainConfig(weight_decay=0.1))
    assert group["weight_decay"] == 0.1
    assert len(group["params"]) == 5  # all but the frozen one


def test_norms_biases_and_position_tables_can_be_spared():
    net = Net()
    decayed, spared = parameter_groups(net, TrainConfig(weight_decay=0.1, decay_norms=False))
    assert decayed["params"] == [net.linear.weight]
    assert spared["weight_decay"] == 0
    expected = [net.relative_position_bias_table, net.linear.bias, net.norm.weight, net.norm.bias]
    assert {id(p) for p in spared["params"]} == {id(p) for p in expected}


def test_the_encoder_can_learn_more_slowly():
    net = nn.Sequential()
    net.encoder, net.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = build_optimizer(net, TrainConfig(lr_encoder=0.1, decay_norms=False))
    set_learning_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in net.parameters()] == [0.05, 0.05, 0.5, 0.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0, 5e-4, 0]


def test_layer_decay_goes_from_the_last_block_of_the_encoder_to_the_first():
    with torch.device("meta"):
        model = build_model(ModelConfig(backbone="mit_b0"))  # 2 blocks in each of 4 stages
    groups = parameter_groups(model, TrainConfig(layer_decay=0.5, lr_encoder=0.1))
    factors = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    of = {name: factors[id(p)] for name, p in model.named_parameters()}
    stages = "encoder.backbone.stages"
    assert of[f"{stages}.3.blocks.1.norm1.weight"] == of[f"{stages}.3.norm.weight"] == 0.1
    assert of[f"{stages}.3.blocks.0.norm1.weight"] == of[f"{stages}.2.norm.weight"] == pytest.approx(0.05)
    assert of[f"{stages}.0.embed.proj.weight"] == pytest.approx(0.1 * 0.5**7)
    assert {factor for name, factor in of.items() if not name.startswith("encoder.")} == {1.0}


def test_optimizers_follow_the_config():
    adamw = build_optimizer(Net(), TrainConfig(lr=2e-3, weight_decay=0.2))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.999)
    assert adamw.param_groups[0]["weight_decay"] == 0.2
    adam = build_optimizer(Net(), TrainConfig(optimizer="adam", weight_decay=0))
    assert isinstance(adam, torch.optim.Adam) and not isinstance(adam, torch.optim.AdamW)
    sgd = build_optimizer(Net(), TrainConfig(optimizer="sgd"))
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0]["momentum"] == 0.9


def test_averages_follow_their_parameters_into_other_groups():
    net, former = Net(), TrainConfig()
    old = build_optimizer(net, former)
    net.linear(torch.randn(4, 3)).square().sum().backward()
    old.step()
    new = build_optimizer(net, TrainConfig(decay_norms=False, weight_decay=0.5))
    load_optimizer(new, old.state_dict(), net, former)
    for parameter in net.linear.parameters():
        assert torch.equal(new.state[parameter]["exp_avg"], old.state[parameter]["exp_avg"])
    assert not new.state[net.norm.weight]  # had no gradient
    assert [group["weight_decay"] for group in new.param_groups] == [0.5, 0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]),
        ("poly", [1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0.0]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    config = TrainConfig(lr=1.0, schedule=schedule)
    assert [learning_rate(step, 8, config) for step in (0, 2, 4, 6, 8)] == pytest.approx(expected)


def test_schedules_end_at_the_minimum_and_never_leave_it():
    config = TrainConfig(lr=1.0, min_lr=0.2, schedule="cosine")
    assert learning_rate(50, 100, config) == pytest.approx(0.6)
    assert learning_rate(100, 100, config) == learning_rate(130, 100, config) == pytest.approx(0.2)


def test_warm_up_climbs_to_the_peak_before_the_schedule_starts():
    config = TrainConfig(lr=1.0, schedule="cosine", warmup_steps=4)
    rates = [learning_rate(step, 12, config) for step in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert learning_rate(8, 12, config) == pytest.approx(0.5)  # half way between step 4 and step 12


def test_warm_up_longer_than_the_run():
    assert learning_rate(3, 4, TrainConfig(lr=1.0, schedule="poly", warmup_steps=10)) == pytest.approx(0.4)


def test_gradient_norm_measures_and_clips():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])  # the third has none
    assert gradient_norm(parameters, None).item() == 5
    assert parameters[0].grad.item() == 3
    assert gradient_norm(parameters, 1.0).item() == 5
    assert parameters[0].grad.item() == pytest.approx(0.6, abs=1e-5)


def test_gradient_norm_shows_what_is_not_finite():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, math.inf])
    assert not gradient_norm([parameter], None).isfinite()


def test_steps_divide_the_learning_rate():
    config = TrainConfig(lr=1.0, schedule="step", lr_drops=[5, 8], warmup_steps=2)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    for wrong in ({"schedule": "step"}, {"lr_drops": [5]}):
        with pytest.raises(ConfigError, match=r"train\.lr_drops"):
            TrainConfig(**wrong)
