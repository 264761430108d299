"""Tests of the batches of an epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_cli.core.training.batches import EpochBatches, RadiographBatches

SIZES = st.integers(2, 300)
BATCHES = st.integers(3, 64)


@settings(deadline=None, max_examples=60)
@given(size=SIZES, batch=BATCHES, epoch=st.integers(0, 50))
def test_every_radiograph_is_seen_once_an_epoch(size: int, batch: int, epoch: int) -> None:
    batches = EpochBatches(size, batch, shuffle=True, seed=1)
    batches.set_epoch(epoch)
    drawn = list(batches)
    assert len(drawn) == len(batches)
    assert sorted(row for rows in drawn for row in rows) == list(range(size))
    assert max(map(len, drawn)) <= batch
    assert min(map(len, drawn)) > 1, "one image alone cannot be batch-normalised"


@settings(deadline=None, max_examples=60)
@given(size=SIZES, batch=BATCHES, processes=st.integers(2, 5))
def test_several_processes_validate_each_radiograph_once(
    size: int, batch: int, processes: int
) -> None:
    shares = [
        list(EpochBatches(size, batch, shuffle=False, seed=1, rank=rank, world_size=processes))
        for rank in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1, "all processes take as many steps"
    rows = [row for share in shares for batch_ in share for row in batch_ if row >= 0]
    assert sorted(rows) == list(range(size))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = EpochBatches(50, 8, shuffle=True, seed=seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


@settings(deadline=None, max_examples=60)
@given(size=SIZES, batch=BATCHES, epoch=st.integers(0, 50))
def test_worse_copies_stand_in_for_their_radiographs(size: int, batch: int, epoch: int) -> None:
    shares = {}
    for share in (0.0, 0.5, 1.0):
        batches = EpochBatches(size, batch, shuffle=True, seed=1, degraded=share)
        batches.set_epoch(epoch)
        rows = np.concatenate(list(batches))
        assert sorted(rows % size) == list(range(size)), "each child once, in one form"
        shares[share] = (rows >= size).mean()
    assert shares[0.0] == 0
    assert 0.5 - 2 / size**0.5 < shares[0.5] < 0.5 + 2 / size**0.5
    assert shares[1.0] == 1


@pytest.mark.parametrize("on_the_device", [False, True])
def test_a_worse_copy_has_the_sex_and_age_of_its_radiograph(on_the_device: bool) -> None:
    manifest = pd.DataFrame(
        {"boneage": [10.0, 20.0, 30.0], "male": pd.array([True, False, True], dtype="boolean")}
    )
    pixels = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None], (6, 4, 4))
    batches = RadiographBatches({"hand": pixels[:3]}, manifest, np.array([2, 0, 1]))
    batches.copies = {"hand": pixels[3:]}
    if on_the_device:
        batches.move_to(torch.device("cpu"), {})
    assert len(batches) == 3, "copies are no more children"
    batch = batches[[0, 3, 4]]
    assert batch["hand"][:, 0, 0, 0].tolist() == [2, 5, 3]
    assert batch["age"].tolist() == [10, 10, 20]
    assert batch["male"].tolist() == [1, 1, 0]


def test_sex_and_age_travel_with_their_image() -> None:
    count = 40
    manifest = pd.DataFrame(
        {
            "boneage": np.arange(count, dtype=float),
            "male": pd.array(np.arange(count) % 3 == 0, dtype="boolean"),
        }
    )
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 4, 4))
    batches = RadiographBatches({"hand": pixels}, manifest)
    for rows in EpochBatches(count, 7, shuffle=True, seed=3):
        batch = batches[rows]
        shown = batch["hand"][:, 0, 0, 0]
        assert batch["age"].tolist() == shown.tolist()
        assert batch["male"].tolist() == [float(image % 3 == 0) for image in shown]


def test_batches_that_lie_on_the_device_are_the_same() -> None:
    chance = np.random.default_rng(0)
    manifest = pd.DataFrame(
        {"boneage": chance.uniform(0, 200, 9), "male": pd.array([True, False, None] * 3, "boolean")}
    )
    views = {name: chance.integers(0, 256, (12, 4, 4), np.uint8) for name in ("hand", "carpal")}
    places = chance.permutation(12)[:9]
    here, there = (RadiographBatches(views, manifest, places) for _ in range(2))
    shared: dict[int, torch.Tensor] = {}
    there.move_to(torch.device("cpu"), shared)
    again = RadiographBatches(views, manifest, places[::-1].copy())
    again.move_to(torch.device("cpu"), shared)
    assert len(shared) == 2, "folds share the pixels"
    for rows in ([3, 0, 8], [2, -1]):
        plain, moved = here[rows], there[rows]
        assert plain.keys() == moved.keys()
        for name, values in plain.items():
            assert torch.equal(values.nan_to_num(), moved[name].nan_to_num())
    assert torch.equal(again[[8]]["hand"], here[[0]]["hand"])
    again.move_back()
    assert not again.resident
    assert torch.equal(again[[8]]["hand"], here[[0]]["hand"])


def test_padding_weighs_nothing() -> None:
    manifest = pd.DataFrame(
        {"boneage": [10.0, 20.0], "male": pd.array([True, False], dtype="boolean")}
    )
    batches = RadiographBatches({"hand": np.zeros((2, 4, 4), np.uint8)}, manifest)
    assert batches[[1, -1]]["weight"].tolist() == [1, 0]
