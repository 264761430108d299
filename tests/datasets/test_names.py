import pytest

from boneage_cli.datasets.names import image_stem, named_split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("boneage-training-dataset", "train"),
        ("RSNA_val", "validation"),
        ("Validation Dataset", "validation"),
        ("Bone Age Test Set", "test"),
        ("boneage_train", "train"),
        ("testimony", None),
        ("train_and_test", None),
        ("images", None),
    ],
)
def test_names_tell_their_split(name, split):
    assert named_split(name) == split


def test_only_image_suffixes_are_taken_off_an_id():
    assert image_stem("scans\\4360.PNG") == "4360"
    assert image_stem("la_dha_00000.v2") == "la_dha_00000.v2"
