"""Tests of the training benchmark; none depends on the machine's speed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from boneage_cli.core.bench.arithmetic import flops_of_step
from boneage_cli.core.bench.step_timing import STEP_PARTS, StepSplit, time_shares
from boneage_cli.core.bench.synthetic_data import KINDS, kind_of, synthetic_batch
from boneage_cli.core.bench.training import (
    TRAINING_RECORD,
    _Epochs,
    earlier_measurements,
    share_out,
    side_by_side,
)
from boneage_cli.errors import BoneageError
from boneage_cli.models.network import Network


def views(images: int) -> dict[str, torch.Tensor]:
    return {"hand": torch.randint(0, 256, (images, 1, 64, 48), dtype=torch.uint8)}


@pytest.mark.parametrize("backbone", ["small_cnn", "mobilenetv3_small_050"])
def test_a_step_has_two_to_three_times_the_arithmetic_of_a_pass(backbone: str) -> None:
    # Each convolution has two gradients except the first, whose input is the image. MobileNet's
    # depthwise convolutions contribute little, backward as forward.
    network = Network(["hand"], backbone=backbone, sex_fusion="embedding")
    male = torch.tensor([0.0, 1.0])
    with FlopCounterMode(display=False) as counter:
        network(views(2), male)
    forward = counter.get_total_flops()
    step = flops_of_step(network, views(2), male)
    assert 2 * forward <= step < 3 * forward
    assert flops_of_step(network, views(4), male.repeat(2)) == 2 * step
    assert all(weight.grad is None for weight in network.parameters())


def test_the_arithmetic_of_a_convolution_is_what_its_sizes_say() -> None:
    network = Network(["hand"], backbone="small_cnn", channels=(4,), normalisation="unit")
    first, second = (2 * 2 * 64 * 48 * 4 * channels * 3 * 3 for channels in (1, 4))
    # The image has no gradient; the second convolution and the head of 4 features have two each.
    assert flops_of_step(network, views(2), None) == 2 * first + 3 * second + 3 * 2 * 2 * 4


def test_synthetic_tensors_are_like_the_real_ones() -> None:
    real = {
        "carpal": torch.zeros(3, 1, 40, 32, dtype=torch.uint8),
        "hand": torch.zeros(3, 1, 64, 48, dtype=torch.uint8),
        "male": torch.zeros(3),
        "age": torch.zeros(3),
        "target": torch.zeros(3),
        "weight": torch.ones(3),
    }
    made = synthetic_batch(real, torch.device("cpu"))
    assert {name: (value.shape, value.dtype) for name, value in made.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }
    assert set(made["male"].tolist()) <= {0.0, 1.0}
    assert made["hand"].float().std() > 50


def test_all_the_time_of_an_epoch_goes_to_the_part_that_runs() -> None:
    split = StepSplit(torch.device("cpu"))
    begun = time.perf_counter()
    with split.profile("run_training_epoch"):
        with split.profile("[_TrainingEpochLoop].train_dataloader_next"):
            pass
        with (
            split.profile("[LightningModule]BoneAgeModule.optimizer_step"),
            split.profile("[Strategy]SingleDeviceStrategy.training_step"),
            split.profile("augmentation"),
        ):
            pass
        with split.profile("[Callback]RunRecorder.on_train_batch_end"):
            pass
    passed = time.perf_counter() - begun
    (parts,) = split.epochs
    assert tuple(parts) == STEP_PARTS
    assert {name for name, seconds in parts.items() if seconds} == {*STEP_PARTS} - {"backward"}
    assert 0 < sum(parts.values()) <= passed


@settings(deadline=None)
@given(
    st.lists(st.floats(0.1, 100), min_size=len(STEP_PARTS), max_size=len(STEP_PARTS)),
    st.floats(1, 1e12),
)
def test_the_shares_of_a_step_add_up_to_it(times: list[float], flops: float) -> None:
    split = dict(zip(STEP_PARTS, times, strict=True))
    shares = time_shares(split, flops, peak=1e10)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0
    expected = min(flops / 1e7, split["forward"] + split["backward"]) / sum(times)
    assert shares["arithmetic"] == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(0, 1e5), st.integers(1, 500))
def test_steps_are_dealt_out_to_at_least_three_epochs_of_each_kind(
    steps: float, longest: int
) -> None:
    each, rounds = share_out(steps, longest)
    assert 1 <= each <= longest
    assert rounds >= 3
    # Not more steps than there is time for, if there is time for the minimum.
    if steps >= 8:
        assert len(KINDS) * each * (rounds + 1) <= steps


def test_real_and_synthetic_epochs_come_in_pairs_and_neither_is_always_first() -> None:
    kinds = [kind_of(epoch) for epoch in range(8)]
    assert kinds == [*KINDS, *reversed(KINDS)] * 2


def test_epochs_are_compared_with_their_neighbours() -> None:
    # In the second pair the whole machine was half as fast; the ratio is unaffected.
    assert side_by_side([90, 45, 90], [100, 50, 100]) == [0.9, 0.9, 0.9]


def test_a_folder_without_measurements_has_none_and_a_damaged_one_is_told_of(
    tmp_path: Path,
) -> None:
    assert earlier_measurements(tmp_path) == []
    for text in ("{}", "[]", "nonsense", '{"measurements": [1]}'):
        (tmp_path / TRAINING_RECORD).write_text(text)
        with pytest.raises(BoneageError, match=r"train-bench\.json: .* --output"):
            earlier_measurements(tmp_path)


def test_the_first_epoch_of_each_kind_does_not_count() -> None:
    # Order: real, synthetic, synthetic, real, repeated; the first two epochs are warm-up.
    epochs = _Epochs(torch.device("cpu"))
    epochs.images = [60, 60, 60, 60, 60, 60, 60, 60]
    epochs.seconds = [1000, 2000, 1, 2, 3, 4, 5, 6]
    assert epochs.rates("real") == [30, 20, 10]
    assert epochs.rates("synthetic") == [60, 15, 12]
