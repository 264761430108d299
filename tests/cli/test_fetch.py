import pytest
import typer
from typer.testing import CliRunner

from boneage_cli.cli import fetch
from boneage_cli.cli.commands import CommandGroup
from boneage_cli.datasets.source import read_source
from boneage_cli.locks import locked_folder

app = typer.Typer(cls=CommandGroup, rich_markup_mode="rich")
app.add_typer(fetch.app, name="fetch")


@app.callback()
def boneage() -> None:
    pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def invoke(line: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["fetch", *line.split()])
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    return invoke


@pytest.fixture
def radiographs(tmp_path):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    numbers = range(20)
    for number in numbers:
        (tmp_path / "mine" / "train" / f"{number}.png").write_bytes(b"x")
    rows = [f"{number},{number + 10},{'MF'[number % 2]}" for number in numbers]
    (tmp_path / "mine" / "train.csv").write_text(
        "id,boneage,sex\n" + "\n".join(rows) + "\n99,1,M\n"
    )


@pytest.mark.parametrize("command", ["demo", "rsna", "kaggle", "local"])
def test_every_help_has_examples_and_shows_where_the_data_goes(run, command):
    text = run(f"{command} --help")
    assert f"boneage fetch {command}" in text
    assert "--to" in text
    assert command in run("--help")


def test_the_summary_counts_what_was_found_and_says_what_comes_next(run, radiographs):
    text = run("local mine")
    assert "│ train │ 18 │ 18 │ 9 │ 9 │" in text
    assert "│ validation │ 2 │ 2 │ 1 │ 1 │" in text
    assert "one was made: 2 of 20 training radiographs" in text
    assert "warning: 1 × label without an image" in text
    assert "Ready in data/local" in text
    assert "Next: boneage check-data --data data/local" in text
    assert "Already complete in data/local" in run("local mine")


def test_two_fetches_do_not_write_into_one_folder(run, tmp_path):
    (tmp_path / "drawn").mkdir()
    with locked_folder(tmp_path / "drawn"):
        assert "drawn: another fetch is writing it" in run("demo --to drawn", status=2)
    assert not (tmp_path / "drawn" / "SOURCE.json").exists()


def test_a_table_of_tabs_is_a_table_too(run, radiographs, tmp_path):
    table = tmp_path / "mine" / "train.csv"
    table.with_suffix(".tsv").write_text(table.read_text().replace(",", "\t"))
    table.unlink()
    assert "│ train │ 18 │ 18 │ 9 │ 9 │" in run("local mine")


def test_options_reach_the_data_set(run, radiographs, tmp_path):
    run("local mine --to data/clinic --copy --validation-fraction 0.5 --seed 3")
    source = read_source(tmp_path / "data" / "clinic")
    assert source is not None
    assert source.options == {"copy": True, "validation_fraction": 0.5, "seed": 3}
    assert not (tmp_path / "data" / "clinic" / "train" / "0.png").is_symlink()
    assert source.splits["validation"]["images"] == 10


def test_bad_input_ends_in_one_line_and_status_2(run):
    text = run("local nowhere", status=2)
    assert text == "error: nowhere: no such file or folder; check the spelling"


def test_rsna_shows_size_terms_and_citation_and_asks_for_consent(run, tmp_path):
    text = run("rsna --split test", status=2)
    assert "Bone+Age+Test+Set.zip" in text
    assert "170 MB" in text
    assert "Training" not in text
    assert "no redistribution of the images" in text
    assert "Radiology 2019;290:498" in text
    assert "add --accept-terms" in text
    assert not (tmp_path / "data").exists()


def test_the_demo_is_drawn_once_and_drawn_anew_when_forced(run, tmp_path):
    line = "demo --train 6 --validation 2 --test 2"
    text = run(line)
    assert "│ train │ 6 │ 6 │ 3 │ 3 │" in text
    assert "Next: boneage train --model global --gender --data data/demo" in text
    source = read_source(tmp_path / "data" / "demo")
    assert source is not None
    assert "no patient" in source.terms
    image = next((tmp_path / "data" / "demo" / "train").iterdir())
    before = image.read_bytes()
    assert "Already complete" in run(line)
    image.write_bytes(b"damaged")
    assert "replace it with --force" in run("demo --train 4", status=2)
    run(f"{line} --force")
    assert image.read_bytes() == before
