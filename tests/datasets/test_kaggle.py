from http import HTTPStatus

import kagglehub
import pytest
from kagglesdk import kaggle_env

from boneage_cli.datasets.kaggle import fetch_kaggle
from boneage_cli.errors import BoneageError


@pytest.fixture
def no_credentials(tmp_path, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def kaggle_site(server, no_credentials, monkeypatch):
    """A mock of Kaggle for kagglehub; it answers every request with 'status'."""
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, server.url.rstrip("/")
    )
    handler = server.RequestHandlerClass
    monkeypatch.setattr(
        handler, "do_POST", lambda self: self.send_error(server.status[0]), raising=False
    )
    return server


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_missing_credentials_are_told_with_the_way_to_get_them(kaggle_site, status, tmp_path):
    kaggle_site.status = [status]
    with pytest.raises(BoneageError, match=r"wants a log-in for kmader/rsna-bone-age") as caught:
        fetch_kaggle(tmp_path / "data")
    assert "~/.kaggle/kaggle.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_server_in_trouble_is_told_by_its_status(kaggle_site, tmp_path):
    kaggle_site.status = [HTTPStatus.SERVICE_UNAVAILABLE]
    with pytest.raises(BoneageError, match=r"ipythonx/rsna-bone-age: HTTP 503; try again later"):
        fetch_kaggle(tmp_path / "data", uploader="ipythonx")


def test_a_missing_network_is_told(no_credentials, monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, "http://127.0.0.1:9"
    )
    with pytest.raises(BoneageError, match=r"could not be reached .* check the network"):
        fetch_kaggle(tmp_path / "data")


def test_a_broken_credentials_file_is_named(no_credentials, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "kaggle.json").write_text("{}")
    with pytest.raises(BoneageError, match=r"kaggle\.json is missing 'username' key"):
        fetch_kaggle(tmp_path / "data")


def test_what_kagglehub_brings_becomes_a_data_set(png, monkeypatch, tmp_path):
    version = tmp_path / "cache" / "versions" / "2"
    for split, numbers in (("training", range(1377, 1397)), ("test", (4360, 4460))):
        folder = version / f"boneage-{split}-dataset" / f"boneage-{split}-dataset"
        folder.mkdir(parents=True)
        for number in numbers:
            (folder / f"{number}.png").write_bytes(png(number))
    rows = [f"{number},{number % 200},{number % 2 == 0}" for number in range(1377, 1397)]
    (version / "boneage-training-dataset.csv").write_text("id,boneage,male\n" + "\n".join(rows))
    (version / "boneage-test-dataset.csv").write_text("Case ID,Sex\n4360,M\n4460,F\n")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(version))

    fetched = fetch_kaggle(tmp_path / "data")
    assert fetched.manifest.groupby("split").size().to_dict() == {
        "test": 2,
        "train": 18,
        "validation": 2,
    }
    assert fetched.source.name == "kaggle"
    assert fetched.source.requested == "kmader/rsna-bone-age"
    assert fetched.source.label_version == "none"
    assert "no redistribution" in fetched.source.terms

    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: pytest.fail("asked again"))
    assert fetch_kaggle(tmp_path / "data").unchanged
