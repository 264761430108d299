"""Tests of ``boneage ship``, which makes the package's own model."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.runs import SHIPPED_MODEL

runner = CliRunner()


def test_it_is_no_command_of_the_list_but_has_help() -> None:
    assert "ship " not in runner.invoke(app, ["--help"]).stdout
    result = runner.invoke(app, ["ship", "--help"])
    assert result.exit_code == 0
    assert "boneage ship --measure" in result.stdout


def test_what_is_no_run_is_told_in_one_line_and_the_model_stays(tmp_path: Path) -> None:
    before = SHIPPED_MODEL.stat()
    result = runner.invoke(app, ["ship", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "run.json: cannot be read" in result.stderr
    assert SHIPPED_MODEL.stat() == before
