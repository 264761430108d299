import pandas as pd
import pytest

from boneage_cli.datasets.label_version import label_version


def labelled(**months) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [name[1:] for name in months], "boneage": pd.Series(months.values(), dtype=float)}
    )


@pytest.mark.parametrize(
    ("test", "version"),
    [
        (labelled(), "none"),
        (labelled(_4360=None, _4361=None), "none"),
        (labelled(_4360=168.93, _4361=50), "official-decimal"),
        (labelled(_4361=50.5), "decimal"),
        (labelled(_4360=168.93, _4361=50, _4362=61), "decimal"),
        (labelled(_4360=164, _4361=50), "integer"),
        (labelled(_4360=164, _4361=50.5), "decimal"),
        (labelled(_1=50.5, _2=60), "decimal"),
        (labelled(_1=50, _2=60), "integer"),
        (labelled(_4360=168.93, _la_dha=60.5), "official-decimal"),
    ],
)
def test_the_version_of_test_labels_is_told_by_their_values(test, version):
    assert label_version(test) == version
