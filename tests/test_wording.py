"""Tests of the wording of messages."""

from __future__ import annotations

import pytest

from boneage_cli.wording import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 girls"), (1, "1 girl"), (2, "2 girls"), (12611, "12,611 girls")]
)
def test_one_of_a_thing_is_singular(number: int, text: str) -> None:
    assert counted(number, "girl") == text
