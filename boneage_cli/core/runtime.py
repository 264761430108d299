"""Inference: OpenVINO on CPUs, torch on GPUs and where OpenVINO is not installed.

OpenVINO runs these networks 1.4 to 2.4 times as fast as torch on the same cores, predicts the same
months to a thousandth, and does not need torch, which takes seconds to import. A network is
converted once and cached in the user's cache folder; the cache key is a digest of everything that
affects the result.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import platformdirs

from boneage_cli.choices import Backend
from boneage_cli.code_digest import code_digest
from boneage_cli.core.hardware import Precision, autocast, cpu_has_bf16, device_type
from boneage_cli.core.mixed_precision import COARSE, PartsRequest, parts
from boneage_cli.errors import BoneageError, BoneageWarning
from boneage_cli.files import whole_file
from boneage_cli.interrupts import interrupts_wait
from boneage_cli.progress import track
from boneage_cli.threads import usable_threads

if TYPE_CHECKING:
    from openvino import InferRequest
    from torch import nn

_PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
CACHE_VARIABLE = "BONEAGE_CACHE"
# The code that turns settings and weights into a graph. It is part of the cache key, so that edits
# invalidate cached graphs (except the package's own, which are converted on shipping).
_CODE = (
    *(Path(__file__).with_name(name) for name in ("bundle.py", "graphs.py", "landmarks.py")),
    *(Path(__file__), Path(__file__).parents[1] / "models"),
)
# Number of converted networks that are cached (least recently used ones are deleted); each takes
# twice the space of its weights.
MOST_KEPT = 16
_FIRST = Lock()
SHIPPED_GRAPHS = Path(__file__).parents[1] / "weights" / "openvino"
"""The package's networks, already converted, so that the first start is as fast as later ones."""


@dataclass(frozen=True)
class Graph:
    """A network to run; the module is built only if no converted network is cached.

    Attributes:
        make: Builds the module in evaluation mode; it takes the inputs in order.
        inputs: Shape of one image, () for a number, and data type of each input.
        outputs: Names of the outputs.
        key: Cache key that identifies the network and its weights; None if it must not be cached.
    """

    make: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
    outputs: tuple[str, ...]
    key: str | None = None

    def example(self) -> dict[str, np.ndarray]:
        """Zero-filled inputs of batch size 2; tracing with size 1 would fix the batch dimension."""
        inputs = self.inputs.items()
        return {name: np.zeros((2, *shape), kind) for name, (shape, kind) in inputs}


class Runner(Protocol):
    """Runs a graph; safe to call from several threads.

    Attributes:
        backend: Name of the backend.
    """

    backend: str

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the outputs, float32, for inputs in order; the first axis is the batch."""
        ...


def choose_backend(name: str, device: str, precision: Precision) -> Backend:
    """Chooses the backend that runs the networks.

    ``auto`` means OpenVINO on a CPU that supports the precision in hardware, else torch.

    Raises:
        BoneageError: The backend is unknown, not installed, or does not run on the device.
    """
    if name not in get_args(Backend):
        raise BoneageError(f"--backend {name}: unknown; take {', '.join(get_args(Backend))}")
    on_cpu = device_type(device) == "cpu"
    if name == "auto":
        quick = on_cpu and find_spec("openvino") and (precision == "32" or cpu_has_bf16())
        return "openvino" if quick else "torch"
    if name in ("onnxruntime", "openvino"):
        if not on_cpu:
            raise BoneageError(f"--backend {name}: runs on the CPU here; add --device cpu")
        check_packages(f"--backend {name}", name)
    if name == "openvino" and precision == "bf16" and not cpu_has_bf16():
        raise BoneageError("--backend openvino: this CPU has no bf16; add --precision 32")
    if name == "onnxruntime" and precision != "32":
        raise BoneageError("--backend onnxruntime: runs in full precision; add --precision 32")
    if name in ("torch", "compiled") and precision == "mixed":
        raise BoneageError(f"--backend {name}: --precision mixed is OpenVINO's; take 32 or bf16")
    return name  # type: ignore[return-value]


def check_packages(asked: str, backend: str) -> None:
    """Checks that the packages needed to convert a network for a backend are installed.

    Args:
        asked: The option that needs the backend, for messages.
        backend: ``onnxruntime`` or ``openvino``.

    Raises:
        BoneageError: A package is missing; the message says how to install it.
    """
    missing = [name for name in _PACKAGES[backend] if find_spec(name) is None]
    if missing:
        raise BoneageError(
            f"{asked}: needs {', '.join(missing)}; install with: pip install {' '.join(missing)}"
        )


def run_graph(graph: Graph, backend: str, device: str, precision: Precision) -> Runner:
    """Loads a graph into a backend.

    Args:
        graph: The graph.
        backend: See ``choose_backend``; with ``auto``, torch runs graphs that OpenVINO cannot
            convert.
        device: As returned by ``choose_device``.
        precision: As returned by ``choose_precision``.

    Raises:
        BoneageError: As ``choose_backend``, or the backend cannot run this network.
    """
    chosen = choose_backend(backend, device, precision)
    try:
        if chosen == "openvino":
            with interrupts_wait():
                import openvino  # noqa: F401
            return _OpenVino(graph, precision)
        if chosen == "onnxruntime":
            return _OnnxRuntime(graph)
        runner = _Torch(graph, device, precision, compiled=chosen == "compiled")
        if chosen == "compiled":
            # Compiles now, so that a failure is reported here and not during the first batch.
            runner(*graph.example().values())
    except (BoneageError, ModuleNotFoundError):
        raise
    except Exception as error:
        # The backends raise many different exception types.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if chosen == "torch":
            raise
        if backend != "auto":
            raise BoneageError(
                f"--backend {backend}: cannot run this network ({reason}); take --backend torch"
            ) from error
        warnings.warn(
            f"{chosen} cannot run this network ({reason}); torch does, more slowly",
            BoneageWarning,
            stacklevel=2,
        )
        return _Torch(graph, device, precision)
    return runner


def is_on_disk(runner: Runner) -> bool:
    """Whether the converted network is on disk, so that a new process need not convert it."""
    return isinstance(runner, _OpenVino) and runner.kept


def cache_folder() -> Path:
    """Cache of converted networks: ``$BONEAGE_CACHE``, or ``boneage`` in the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("boneage"))


def convert_to_openvino(graph: Graph, batch: int = -1) -> Any:
    """Converts a graph to an ``openvino.Model`` with named inputs and outputs.

    Args:
        graph: The graph.
        batch: Batch size; -1 for a dynamic batch dimension.
    """
    import openvino
    import torch

    example = tuple(torch.from_numpy(array) for array in graph.example().values())
    with warnings.catch_warnings():
        # Tracing warns about every Python condition, because it is evaluated only once.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(graph.make(), example_input=example)
    for port, (name, (shape, kind)) in zip(model.inputs, graph.inputs.items(), strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape([batch, *shape]))
        port.get_node().set_element_type(openvino.Type(np.dtype(kind)))
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def write_onnx(graph: Graph, path: Path) -> None:
    """Writes the graph as an ONNX file with a dynamic batch dimension."""
    import torch

    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        # The exporter warns about its own internals.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.make(),
            tuple(torch.from_numpy(array) for array in graph.example().values()),
            path,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # A nested tuple, because the module takes its inputs as ``*inputs``.
            dynamic_shapes=(tuple({0: batch} for _ in graph.inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


class _Torch:
    """Runs a module on its device, with the batches as given."""

    def __init__(
        self, graph: Graph, device: str, precision: Precision, *, compiled: bool = False
    ) -> None:
        import torch

        module = graph.make().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: Any = torch.compile(module) if compiled else module
        self.device, self.precision = device, precision
        if precision == "32" and device_type(device) == "cuda":
            # Otherwise convolutions on GPUs use TF32, which keeps ten bits of the mantissa. Set for
            # the whole process, since other threads may be running networks of their own.
            torch.backends.cudnn.allow_tf32 = False
        self.backend = "compiled" if compiled else "torch"
        # torch.compile is not thread-safe, and on a CPU one pass uses all cores anyway.
        one_at_a_time = compiled or device_type(device) == "cpu"
        self.alone: AbstractContextManager[Any] = Lock() if one_at_a_time else nullcontext()

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        import torch

        with self.alone, torch.inference_mode(), autocast(self.precision, self.device):
            # Copies, since memory-mapped arrays are read-only.
            tensors = [torch.from_numpy(np.array(array)).to(self.device) for array in inputs]
            if self.backend == "compiled":
                # Only the batch dimension is dynamic: with dynamic height and width, torch analyses
                # the network's padding for minutes before it compiles anything.
                for tensor in tensors:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
            return tuple(output.float().cpu().numpy() for output in self.module(*tensors))


class _OpenVino:
    """Runs a graph on all cores, with one image per core at a time.

    Predictions therefore do not depend on the rest of the batch, and no new batch size has to be
    compiled. On CPUs, batches of these networks are no faster per image.
    """

    backend = "openvino"

    def __init__(self, graph: Graph, precision: Precision) -> None:
        import openvino

        streams = usable_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # The threads that read and preprocess need the cores, too.
            "ENABLE_CPU_PINNING": False,
        }
        self.mixed = precision == "mixed"
        self.requests: queue.SimpleQueue[InferRequest | PartsRequest] = queue.SimpleQueue()
        kept = _kept(graph)
        for request in self._compiled(openvino.Core(), graph, kept, settings):
            self.requests.put(request)
        self.kept = kept is not None and (kept.is_file() or shipped_graph(graph).is_file())
        self.outputs = len(graph.outputs)
        self.pool = ThreadPoolExecutor(streams, thread_name_prefix="network")
        # OpenVINO's Python bindings initialise at the first inference; two threads that do so at
        # the same time deadlock.
        with _FIRST:
            self._one([array[:1] for array in graph.example().values()])

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        images = [[each[row : row + 1] for each in inputs] for row in range(len(inputs[0]))]
        run = map if len(images) == 1 else self.pool.map
        found = list(run(self._one, images))
        return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))

    def _one(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        request = self.requests.get()
        try:
            request.infer([np.ascontiguousarray(each) for each in inputs])
            # Copies, since the next inference overwrites the request's output tensors.
            return [
                np.array(request.get_output_tensor(number).data, np.float32)
                for number in range(self.outputs)
            ]
        finally:
            self.requests.put(request)

    def _compiled(
        self, core: Any, graph: Graph, kept: Path | None, settings: dict[str, Any]
    ) -> Sequence[InferRequest | PartsRequest]:
        """Returns inference requests of the compiled network, one per thread."""
        if kept is not None:
            # The model compiled for this CPU is cached next to the graph, if that is writable.
            compiled = kept.with_suffix("")
            for path in filter(Path.is_file, (kept, shipped_graph(graph))):
                for beside in ({"CACHE_DIR": str(compiled)}, {}):
                    # Damaged files are rebuilt; OpenVINO raises RuntimeError on them.
                    with suppress(Exception):
                        requests = self._requests(core, path, settings | beside)
                        _mark_as_used(kept)
                        return requests
                    shutil.rmtree(compiled, ignore_errors=True)
        # Some systems cannot delete files that are still memory-mapped.
        with TemporaryDirectory(prefix="boneage-", ignore_cleanup_errors=True) as folder:
            made = Path(folder, "graph.xml")
            with track(total=1, description="convert network", unit="network"):
                _save(graph, made)
            if kept is not None:
                _keep(made, kept)
            return self._requests(core, made, settings)

    def _requests(
        self, core: Any, path: Path, settings: dict[str, Any]
    ) -> Sequence[InferRequest | PartsRequest]:
        streams = range(settings["NUM_STREAMS"])
        found = parts(core.read_model(path)) if self.mixed else []
        if not found:
            model = core.compile_model(path, "CPU", settings)
            return [model.create_infer_request() for _ in streams]
        takes = [part.takes for part in found]
        # Parts shared by threads run a third slower than one copy per thread.
        alone = settings | {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
        coarse = alone | {"INFERENCE_PRECISION_HINT": "bf16"}

        def request(number: int) -> InferRequest:
            chosen = coarse if number == COARSE else alone
            return core.compile_model(found[number].model, "CPU", chosen).create_infer_request()

        return [PartsRequest(list(map(request, range(len(found)))), takes) for _ in streams]


def shipped_graph(graph: Graph, folder: Path = SHIPPED_GRAPHS) -> Path:
    """Path of the converted graph in the package; it exists for the package's own networks only."""
    return folder / f"{hashlib.sha256(str(graph.key).encode()).hexdigest()[:16]}.xml"


def ship_graphs(graphs: Sequence[Graph]) -> None:
    """Replaces the package's converted graphs by these.

    Weights are stored as 16-bit floats, as they are in the package's bundles, so nothing is
    rounded.
    """
    import openvino

    with TemporaryDirectory() as temporary:
        for graph in graphs:
            path = shipped_graph(graph, Path(temporary))
            openvino.save_model(convert_to_openvino(graph, batch=1), path, compress_to_fp16=True)
        shutil.rmtree(SHIPPED_GRAPHS, ignore_errors=True)
        SHIPPED_GRAPHS.mkdir()
        for file in Path(temporary).iterdir():
            shutil.copyfile(file, SHIPPED_GRAPHS / file.name)


def _kept(graph: Graph) -> Path | None:
    """Path of the converted network in the cache; None if the graph has no cache key."""
    import openvino

    if graph.key is None:
        return None
    # Other versions of OpenVINO or timm may give other graphs. timm may be missing, since only
    # building a network needs it.
    timm = version("timm") if find_spec("timm") else None
    made_of = f"{openvino.__version__} {timm} {graph.key} {code_digest(*_CODE)}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()
    return cache_folder() / "openvino" / f"{digest[:24]}.xml"


def _save(graph: Graph, path: Path) -> None:
    import openvino

    openvino.save_model(convert_to_openvino(graph, batch=1), path, compress_to_fp16=False)


def _keep(made: Path, path: Path) -> None:
    """Writes a converted network to the cache, if that is writable, and deletes the oldest ones."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The .xml comes last, so that the weights exist wherever it does.
        for suffix in (".bin", ".xml"):
            with whole_file(path.with_suffix(suffix)) as temporary:
                temporary.write_bytes(made.with_suffix(suffix).read_bytes())
        used: dict[str, float] = {}
        for each in path.parent.iterdir():
            used[each.stem] = max(used.get(each.stem, 0.0), each.stat().st_mtime)
        for stem in sorted(used, key=lambda stem: used[stem])[:-MOST_KEPT]:
            for suffix in (".xml", ".bin"):
                path.with_name(stem + suffix).unlink(missing_ok=True)
            shutil.rmtree(path.with_name(stem), ignore_errors=True)


def _mark_as_used(path: Path) -> None:
    # Not the .xml: OpenVINO compares its mtime to decide whether the compiled model is up to date.
    with suppress(OSError):
        for file in (path.with_suffix(".bin"), path.with_suffix("")):
            if file.exists():
                os.utime(file)


class _OnnxRuntime:
    """Runs a graph in ONNX Runtime on the CPU."""

    backend = "onnxruntime"

    def __init__(self, graph: Graph) -> None:
        import onnxruntime

        with TemporaryDirectory() as folder:
            path = Path(folder, "graph.onnx")
            write_onnx(graph, path)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = usable_threads()
            self.session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        self.names = list(graph.inputs)

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        feed = {
            name: np.ascontiguousarray(array)
            for name, array in zip(self.names, inputs, strict=True)
        }
        return tuple(np.asarray(output, np.float32) for output in self.session.run(None, feed))
