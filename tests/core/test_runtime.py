"""Tests of the backends that run trained networks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from boneage_cli.cli.app import app
from boneage_cli.core.bundle import Bundle, build_network, load_bundle
from boneage_cli.core.config import Experiment
from boneage_cli.core.conversion import Graph
from boneage_cli.core.conversion_cache import (
    CACHE_VARIABLE,
    MOST_KEPT,
    SHIPPED_GRAPHS,
    shipped_graph,
)
from boneage_cli.core.experiment_file import parse_experiment
from boneage_cli.core.landmarks import landmark_graph
from boneage_cli.core.prediction.cases import Case
from boneage_cli.core.prediction.predictor import Predictor
from boneage_cli.core.runs import SHIPPED_MODEL
from boneage_cli.core.runtime import choose_backend, run_graph
from boneage_cli.datasets.manifest import read_manifest
from boneage_cli.errors import BoneageError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for converted networks."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def cases(demo_data: Path) -> list[Case]:
    table = read_manifest(demo_data, "test")
    return [Case(path, bool(male)) for path, male in zip(table["path"], table["male"], strict=True)]


def months(bundle: Path, cases: list[Case], backend: str = "auto", **options: int) -> np.ndarray:
    predictor = Predictor.load([bundle], "cpu", "32", backend)
    return np.array(
        [found.months for found in predictor.predict_files(cases, force=True, **options)]
    )


NEEDS_EXTRA = pytest.param(
    "onnxruntime",
    marks=pytest.mark.skipif(
        find_spec("onnxruntime") is None, reason="the extra boneage[export] is not installed"
    ),
)


def chance(graph: Graph, batch: int) -> list[np.ndarray]:
    """Returns random pixels and sexes."""
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256 if shape else 2, (batch, *shape)).astype(kind)
        for shape, kind in graph.inputs.values()
    ]


@pytest.mark.parametrize("backend", ["openvino", NEEDS_EXTRA])
def test_every_backend_gives_the_same_months(
    backend: str, demo_bundle: Path, cases: list[Case], cache: Path
) -> None:
    expected = months(demo_bundle, cases, "torch")
    assert np.ptp(expected) > 1
    assert np.abs(months(demo_bundle, cases, backend) - expected).max() < 0.01


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler here")
def test_what_torch_compiles_takes_batches_of_every_size(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    graph = load_bundle(demo_bundle).graph()
    eager, compiled = (run_graph(graph, name, "cpu", "32") for name in ("torch", "compiled"))
    assert compiled.backend == "compiled"
    for batch in (1, 2, 5):
        inputs = chance(graph, batch)
        for mine, theirs in zip(compiled(*inputs), eager(*inputs), strict=True):
            assert mine == pytest.approx(theirs, abs=1e-3, rel=1e-5)
    assert len(list(tmp_path.rglob("*.cpp"))) > 0, "it was compiled"


class LargeInside(torch.nn.Module):
    """Multiplies numbers by 1, with values in between that fp16 cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
        torch.nn.init.constant_(self.up.weight, 2.0**10)
        torch.nn.init.constant_(self.down.weight, 2.0**-10)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.down(self.up(values)),)


def test_what_is_too_large_for_fp16_is_computed_in_fp32() -> None:
    graph = Graph(LargeInside, {"values": ((1,), np.float32)}, ("result",))
    run = run_graph(graph, "torch", "cpu", "fp16")
    small, large = (np.array([[value], [1.0]], np.float32) for value in (1.0 + 2**-14, 100.1))
    # It rounds, so it is fp16.
    assert run(small)[0].ravel().tolist() == [1.0, 1.0]
    assert run(large)[0].ravel().tolist() == pytest.approx([100.1, 1.0], rel=1e-6)


@pytest.mark.parametrize("backend", [NEEDS_EXTRA])
def test_a_model_of_registered_hands_runs_in_every_backend(
    backend: str, cases: list[Case], cache: Path
) -> None:
    expected = months(SHIPPED_MODEL, cases[:2])
    assert months(SHIPPED_MODEL, cases[:2], backend) == pytest.approx(expected, abs=0.01)


def test_the_package_s_converted_networks_are_those_of_its_weights(
    cases: list[Case], cache: Path
) -> None:
    graphs = [load_bundle(SHIPPED_MODEL).graph(), landmark_graph()[0]]
    assert {shipped_graph(graph) for graph in graphs} == set(SHIPPED_GRAPHS.glob("*.xml"))
    for graph in graphs:
        inputs = chance(graph, 2)
        eager = run_graph(graph, "torch", "cpu", "32")(*inputs)
        quick = run_graph(graph, "auto", "cpu", "32")(*inputs)
        for mine, theirs in zip(quick, eager, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-3, rel=1e-5)
    expected = months(SHIPPED_MODEL, cases, "torch")
    assert np.abs(months(SHIPPED_MODEL, cases) - expected).max() < 0.01
    assert not list(cache.glob("openvino/*.xml")), "nothing had to be converted"


def test_months_do_not_depend_on_what_else_is_in_a_batch(
    demo_bundle: Path, cases: list[Case]
) -> None:
    one_by_one = months(demo_bundle, cases, "openvino", batch_size=1, workers=1)
    together = months(demo_bundle, cases, "openvino", batch_size=16, workers=4)
    assert one_by_one.tolist() == together.tolist()


@pytest.mark.parametrize("own", [True, False])
def test_a_start_needs_no_torch_once_a_network_is_converted_as_the_package_s_is(
    own: bool, demo_bundle: Path, cases: list[Case], cache: Path
) -> None:
    arguments = ["predict", cases[0].path, "--sex", "F", "--force", "--device", "cpu"]
    arguments += ["--model", str(demo_bundle)] if own else []
    first = CliRunner().invoke(app, [*arguments, *([] if own else ["--backend", "torch"])])
    assert first.exit_code == 0, first.output
    program = (
        "import sys; from boneage_cli.__main__ import main\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    second = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    answer, imported = second.stdout.splitlines()
    assert answer == first.stdout.strip(), second.stderr
    assert imported == "False False"


@pytest.mark.parametrize("damaged", ["*.xml", "*.bin", "*/*"])
def test_a_damaged_network_in_the_cache_is_made_anew(
    damaged: str, demo_bundle: Path, cases: list[Case], cache: Path
) -> None:
    expected = months(demo_bundle, cases)
    # The compiled network is cached from the second start on.
    months(demo_bundle, cases)
    files = [file for file in (cache / "openvino").glob(damaged) if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert months(demo_bundle, cases).tolist() == expected.tolist()
    assert months(demo_bundle, cases).tolist() == expected.tolist()


def test_what_was_compiled_for_this_processor_is_used_from_then_on(
    demo_bundle: Path, cache: Path
) -> None:
    starts = [
        run_graph(load_bundle(demo_bundle).graph(), "openvino", "cpu", "32") for _ in range(4)
    ]
    compiled_before = [
        start.requests.get().get_compiled_model().get_property("LOADED_FROM_CACHE")
        for start in starts
    ]
    assert compiled_before == [False, False, True, True]


def test_a_cache_that_cannot_be_written_is_read(
    demo_bundle: Path, cases: list[Case], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = months(demo_bundle, cases)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError("read-only file system")

    # Mocked, because read-only folders do not stop root, who may run the tests.
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    made = {path: path.stat().st_mtime_ns for path in (cache / "openvino").glob("*.*")}
    assert made
    assert months(demo_bundle, cases).tolist() == expected.tolist()
    assert {path: path.stat().st_mtime_ns for path in (cache / "openvino").glob("*.*")} == made


VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "roi, no sex": {"model": {"family": "roi", "gender": False}},
    "fusion, GeM, cross attention": {
        "model": {"family": "fusion", "pooling": "gem", "sex_fusion": "cross_attention"}
    },
    "flatten, gated, sigmoid": {
        "model": {"pooling": "flatten", "sex_fusion": "gated", "head": "sigmoid"}
    },
    "attention, distribution": {"model": {"pooling": "attention", "head": "distribution"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["openvino", NEEDS_EXTRA])
def test_networks_of_every_make_run_alike(backend: str, variant: str, tiny: Experiment) -> None:
    values = tiny.model_dump(mode="json")
    values["regions"] |= {"height": 32, "width": 32}
    values["model"] |= VARIANTS[variant]["model"]
    experiment = parse_experiment(values, variant)
    torch.manual_seed(0)
    weights = build_network(experiment, 120, 40).state_dict()
    graph = Bundle(experiment, 120, 40, weights).graph()
    inputs = chance(graph, 5)
    expected = run_graph(graph, "torch", "cpu", "32")(*inputs)
    found = run_graph(graph, backend, "cpu", "32")(*inputs)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one == pytest.approx(other, abs=1e-3)


def test_threads_that_all_begin_at_once_do_not_wait_for_each_other_for_ever() -> None:
    program = (
        "import sys, threading, numpy as np\n"
        "from boneage_cli.core.landmarks import LandmarkLocator\n"
        "from boneage_cli.imaging.radiograph import Radiograph\n"
        "locator, start = LandmarkLocator.load(device='cpu'), threading.Barrier(8)\n"
        "image = Radiograph(np.random.default_rng(0).integers(0, 255, (300, 250), np.uint8))\n"
        "def work(): start.wait(); locator.locate([image]); sys.stdout.write('done ')\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "8"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )
    assert result.stdout.split() == ["done"] * 8


def test_only_so_many_networks_are_kept_those_used_last(
    demo_bundle: Path, cases: list[Case], cache: Path
) -> None:
    (cache / "openvino").mkdir(parents=True)
    for age in range(MOST_KEPT):
        old = cache / "openvino" / f"{age:02}.xml"
        for file in (old, old.with_suffix(".bin")):
            file.write_text("an old one")
            os.utime(file, (1e9 - age, 1e9 - age))
    months(demo_bundle, cases)
    for suffix in ("xml", "bin"):
        kept = {file.stem for file in (cache / "openvino").glob(f"*.{suffix}")}
        assert len(kept) == MOST_KEPT
        assert f"{MOST_KEPT - 1:02}" not in kept
        assert "00" in kept


def test_a_correction_is_not_answered_by_the_network_without_it(
    demo_bundle: Path, cases: list[Case], cache: Path
) -> None:
    plain = load_bundle(demo_bundle)
    later = replace(plain, correction={"F": (12.0, 1.0), "M": (12.0, 1.0)})
    found = [
        np.array([p.months for p in Predictor([bundle], "cpu").predict_files(cases, force=True)])
        for bundle in (plain, later)
    ]
    assert found[1] - found[0] == pytest.approx(np.full(len(cases), 12.0), abs=1e-3)


def test_without_a_place_for_its_cache_it_answers_all_the_same(
    demo_bundle: Path, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = months(demo_bundle, cases)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert months(demo_bundle, cases).tolist() == expected.tolist()
    assert (tmp_path / "file").read_text() == "no folder"


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(BoneageError, match=r"--backend tensorrt: unknown; take auto, torch, .*"):
        choose_backend("tensorrt", "cpu", "32")


def test_a_backend_of_cpus_is_refused_on_a_gpu() -> None:
    with pytest.raises(BoneageError, match="--backend openvino: runs on the CPU here; add --devic"):
        choose_backend("openvino", "cuda", "bf16")


def test_a_gpu_is_left_to_torch() -> None:
    assert choose_backend("auto", "cuda:1", "bf16") == "torch"
