from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.models.losses import LOSSES, build_loss

MONTHS = st.lists(st.tuples(st.floats(-24, 264), st.floats(0, 240)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("name", "options", "error", "age", "loss"),
    [
        ("mae", {}, -6, 100, 6),
        ("mse", {}, -6, 100, 36),
        ("huber", {}, 6, 100, 18),
        ("huber", {}, 30, 100, 250),
        ("huber", {"delta": 1}, 30, 100, 29.5),
        ("smooth_l1", {}, 0.5, 100, 0.125),
        ("smooth_l1", {"beta": 4}, 6, 100, 4),
        ("wing", {}, 4, 100, 10 * math.log(3)),
        ("wing", {}, -30, 100, 20 + 10 * math.log(6)),
        ("l1_l2", {}, 6, 100, 21),
        ("mae_relative", {}, 10, 100, 7.03),
        # The divisor is at least 12 months: BoneXage divides by the age, which diverges at birth.
        ("mae_relative", {}, 12, 0, 8.7),
        ("mae_relative", {"floor": 6}, 12, 0, 9.0),
    ],
)
def test_a_loss_has_its_published_value(
    name: str, options: dict[str, float], error: float, age: float, loss: float
) -> None:
    predicted, target = torch.tensor([age + float(error)]), torch.tensor([float(age)])
    assert float(build_loss(name, **options)(predicted, target)) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=40)
@given(ages=MONTHS)
def test_a_loss_and_its_gradient_are_finite_at_every_age(
    name: str, ages: list[tuple[float, float]]
) -> None:
    predicted = torch.tensor([pair[0] for pair in ages], requires_grad=True)
    target = torch.tensor([pair[1] for pair in ages])
    loss = build_loss(name)(predicted, target)
    loss.backward()
    assert loss.isfinite()
    assert loss >= 0
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert float(build_loss(name)(target, target)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_grows_with_the_error(name: str) -> None:
    target = torch.full((1,), 120.0)
    loss = build_loss(name)
    values = [float(loss(target + error, target)) for error in (0, 0.5, 3, 9.9, 10.1, 40, 120)]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_scale_counts_errors_in_standard_deviations() -> None:
    predicted, target = torch.tensor([100.0, 200.0]), torch.tensor([141.2, 117.6])
    assert float(build_loss("mae", scale=41.2)(predicted, target)) == pytest.approx(1.5)
    assert float(build_loss("huber", scale=41.2, delta=1)(predicted, target)) == pytest.approx(1.0)


def test_an_example_of_weight_zero_does_not_count() -> None:
    predicted, target = torch.tensor([10.0, 99.0]), torch.tensor([14.0, 5.0])
    loss = build_loss("mae")(predicted, target, torch.tensor([2.0, 0.0]))
    assert float(loss) == pytest.approx(4.0)


def test_half_precision_predictions_give_a_loss_in_full_precision() -> None:
    predicted = torch.tensor([100.0, 130.0], dtype=torch.bfloat16)
    assert build_loss("mae")(predicted, torch.tensor([100.5, 130.5])).dtype == torch.float32


def test_a_column_of_ages_is_not_paired_with_a_row() -> None:
    with pytest.raises(ValueError, match="do not pair"):
        build_loss("mae")(torch.zeros(4), torch.zeros(4, 1))


def test_an_unknown_loss_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'hubber'; did you mean huber\?"):
        build_loss("hubber")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("huber", {"detla": 3}, "did you mean delta"),
        ("mae", {"delta": 3}, "unknown option of loss mae 'delta'"),
        ("huber", {"delta": 0}, "delta must be positive"),
        ("huber", {"delta": math.nan}, "delta must be positive"),
        ("mae", {"scale": -1}, "scale must be positive"),
        ("mae_relative", {"share": 1.5}, "share must be at most 1"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    name: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss(name, **options)
