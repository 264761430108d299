"""Tests of the networks and batch sizes that are benchmarked."""

from __future__ import annotations

import pytest

from boneage_cli.core.bench.networks import parse_batch_sizes
from boneage_cli.errors import BoneageError


def test_batch_sizes_are_sorted_and_each_is_taken_once() -> None:
    assert parse_batch_sizes("8, 1,4,8") == [1, 4, 8]


@pytest.mark.parametrize("text", ["", "0,1", "1,-4", "one", "1.5"])
def test_what_is_no_batch_size_is_refused(text: str) -> None:
    with pytest.raises(BoneageError, match="--batch-sizes"):
        parse_batch_sizes(text)
