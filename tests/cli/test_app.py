"""Tests of the command line as a whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from boneage_cli import __version__
from boneage_cli.cli.app import COMMANDS as SUMMARIES
from boneage_cli.cli.app import app
from boneage_cli.cli.commands import CommandGroup

COMMANDS = (
    "fetch",
    "check-data",
    "clahe",
    "locate-rois",
    "train",
    "sweep",
    "compare",
    "train-landmarks",
    "evaluate",
    "predict",
    "recalibrate",
    "export",
    "bench",
)
HEAVY = ("torch", "lightning", "pandas", "cv2", "numpy", "matplotlib", "timm")

runner = CliRunner()


def test_help_names_every_command_and_that_this_is_no_medical_device() -> None:
    shown = runner.invoke(app, ["--help"]).stdout
    assert all(f" {command} " in shown for command in COMMANDS)
    assert "not a medical device" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"boneage {command}" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(command: str) -> None:
    wide = {"COLUMNS": "200"}
    own = runner.invoke(app, [command, "--help"], env=wide).stdout
    assert SUMMARIES[command] in " ".join(own.split())
    assert SUMMARIES[command] in runner.invoke(app, ["--help"], env=wide).stdout


def test_the_list_of_commands_loads_none_of_them() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from boneage_cli.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"own = {{'boneage_cli.cli.' + name.replace('-', '_') for name in {COMMANDS!r}}}\n"
        "sys.exit(', '.join(own & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"--help loads {result.stderr}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from boneage_cli.cli.app import app\n"
        f"for words in ([], *([name] for name in {COMMANDS!r})):\n"
        "    assert CliRunner().invoke(app, [*words, '--help']).exit_code == 0\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"--help imports {result.stderr}"


def test_the_installed_command_tells_its_version() -> None:
    command = [str(Path(sys.executable).with_name("boneage")), "--version"]
    assert __version__ in subprocess.run(command, capture_output=True, text=True).stdout


def test_a_user_error_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    result = runner.invoke(app, ["train", "--config", str(tmp_path / "absent.toml")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "absent.toml" in result.stderr


def test_a_gpu_without_room_is_told_in_one_line() -> None:
    full = typer.Typer(cls=CommandGroup)

    @full.callback()
    def top(debug: bool = False) -> None:
        pass

    @full.command()
    def fill() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB")

    result = runner.invoke(full, ["fill"])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "--batch-size" in result.stderr
    shown = runner.invoke(full, ["--debug", "fill"])
    assert isinstance(shown.exception, torch.OutOfMemoryError)


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EACCES, "check its permissions"),
        (errno.EIO, "fix this"),
    ],
)
def test_what_the_system_refuses_is_told_with_the_way_out(number: int, way_out: str) -> None:
    broken = typer.Typer(cls=CommandGroup)
    broken.command("first")(lambda: None)

    @broken.command()
    def write() -> None:
        raise OSError(number, os.strerror(number), "disk/file")

    result = runner.invoke(broken, ["write"])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: disk/file: {os.strerror(number)}; {way_out}")


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boneage_cli", "train", "--config", "absent.toml", "--debug"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Traceback" in result.stderr
    assert "absent.toml" in result.stderr


def test_a_misspelt_command_is_told_the_nearest() -> None:
    result = runner.invoke(app, ["tran"])
    assert result.exit_code == 2
    assert "Did you mean 'train'" in result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict", "missing argument 'INPUT'; see 'boneage predict --help'"),
        ("predict a.png --sex X", "invalid value for '--sex' / '-s': 'X' is not one of 'm', 'f', "),
        ("--nothing", "no such option: --nothing; see 'boneage --help'"),
        ("fetch demoo", "no such command 'demoo'. Did you mean 'demo'? See 'boneage fetch --help'"),
        ("train --epochs 3", "no such option: --epochs; did you mean --set training.epochs=…?"),
        ("sweep --batch-size 3", "--batch-size; did you mean --set training.batch_size=…?"),
        ("check-data --split train --split test", "'--split': given twice; give it once"),
        ("fetch demo --to a --to b", "'--to': given twice; give it once"),
        ("bench --seconds 1 --seconds 2", "'--seconds': given twice; give it once"),
        ("train --nothing", "no such option: --nothing; see 'boneage train --help'"),
    ],
)
def test_a_mistyped_command_line_is_one_line(line: str, said: str) -> None:
    result = runner.invoke(app, line.split())
    assert result.exit_code == 2
    (told,) = result.stderr.splitlines()
    assert told.startswith("error: ")
    assert said in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(shell: str) -> None:
    assert "--show-completion" in runner.invoke(app, ["--help"]).stdout
    completed = runner.invoke(
        app,
        [],
        env={
            "_BONEAGE_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "boneage pre",
            "COMP_CWORD": "1",
            "_TYPER_COMPLETE_ARGS": "boneage pre",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        prog_name="boneage",
    )
    assert "predict" in completed.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_a_command_in_one_line(demo_data: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "boneage_cli", "check-data", "--data", str(demo_data)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        "error: output: No space left on device; make room there, or write elsewhere\n"
    )


def test_a_terminal_that_lacks_characters_ends_no_command(demo_data: Path) -> None:
    command = [sys.executable, "-m", "boneage_cli", "check-data", "--data", str(demo_data)]
    done = [
        subprocess.run(
            command, capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": name}
        )
        for name in ("latin-1", "utf-8")
    ]
    assert done[0].stderr == done[1].stderr == b""
    assert done[0].returncode == done[1].returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_of_a_manual_breaks_in_a_terminal_of_80_columns(command: str) -> None:
    shown = runner.invoke(app, [command, "--help"], env={"COLUMNS": "80"}).stdout
    manual = shown.split("╭")[0].splitlines()
    wide = runner.invoke(app, [command, "--help"], env={"COLUMNS": "120"}).stdout
    assert [line.rstrip() for line in wide.split("╭")[0].splitlines()] == [
        line.rstrip() for line in manual
    ]


def test_an_empty_argument_is_not_the_current_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["predict", ""], ["locate-rois", "", "-o", "x"], ["clahe", "a", "--output", ""]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "error: an argument is empty, perhaps by an unset variable; fill it in or leave it out"
        ]


def test_names_of_files_are_shown_as_they_are_but_steer_no_terminal(tmp_path: Path) -> None:
    name = "a:m:[bold]\\[x]\x1b[31m\n.txt"
    result = CliRunner().invoke(app, ["predict", str(tmp_path / name)])
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/a:m:[bold]\\[x]?[31m?.txt: no such file")


def test_a_signal_while_an_error_is_printed_is_not_lost() -> None:
    # The first use of a bar makes locks, for which this module is imported.
    program = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "multiprocessing.synchronize":
            signal.raise_signal(signal.SIGTERM)
sys.meta_path.insert(0, Finder())
import tqdm
sys.argv = ["boneage", "check-data", "--data", "nowhere"]
from boneage_cli.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr
    assert done.returncode == 2
