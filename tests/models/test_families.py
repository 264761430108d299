from __future__ import annotations

import pytest

from boneage_cli.models.families import resolve_family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("global", "global"),
        ("globalcnn", "global"),
        ("global_cnn", "global"),
        ("Global_CNN", "global"),
        ("roi", "roi"),
        ("ROICNN", "roi"),
        ("roi-cnn", "roi"),
        ("fusion", "fusion"),
        ("fusioncnn", "fusion"),
        ("Fusion_CNN ", "fusion"),
    ],
)
def test_a_family_answers_to_the_names_that_hda_project_gives_it(name: str, family: str) -> None:
    assert resolve_family(name) == family


def test_an_unknown_family_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"unknown model family 'fuson'; did you mean fusion\?"):
        resolve_family("fuson")


@pytest.mark.parametrize("name", ["", "cnn", "vgg"])
def test_a_name_like_no_family_is_refused_with_all_of_them(name: str) -> None:
    with pytest.raises(ValueError, match="global, carpal, metacarpal, roi, fusion"):
        resolve_family(name)
