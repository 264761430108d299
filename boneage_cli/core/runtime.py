"""Running trained networks: in OpenVINO on CPUs, in torch on GPUs and where OpenVINO is missing.

OpenVINO runs these networks 1.4 to 2.4 times as fast as torch does on the same cores, gives the
same months to a thousandth, and starts without torch, which takes seconds to import. A network is
converted once; what comes of it is kept in the user's cache folder under a digest of all that it
was made of.
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
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
import platformdirs

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

Backend = Literal["auto", "torch", "compiled", "onnxruntime", "openvino"]
_PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
CACHE_VARIABLE = "BONEAGE_CACHE"
# What turns settings and weights into a graph: whoever edits it must not meet old graphs (but for
# the package's own, which shipping converts).
_CODE = (
    *(Path(__file__).with_name(name) for name in ("bundle.py", "graphs.py", "landmarks.py")),
    *(Path(__file__), Path(__file__).parents[1] / "models"),
)
# Converted networks that are kept, those used last; each takes twice the space of its weights.
MOST_KEPT = 16
_FIRST = Lock()
SHIPPED_GRAPHS = Path(__file__).parents[1] / "weights" / "openvino"
"""The package's networks, converted: so a first start is as quick as any other."""


@dataclass(frozen=True)
class Graph:
    """A network to run, which is made only when no converted one is at hand.

    Attributes:
        make: Makes the module, in evaluation mode; it takes the inputs in order.
        inputs: Of each input the shape of one image, () for a number, and the type.
        outputs: Names of what it gives.
        key: Text that is equal only where the module is; None where nobody can tell.
    """

    make: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
    outputs: tuple[str, ...]
    key: str | None = None

    def example(self) -> dict[str, np.ndarray]:
        """Two of zeros; one alone would fix the batch of what is traced with it at 1."""
        inputs = self.inputs.items()
        return {name: np.zeros((2, *shape), kind) for name, (shape, kind) in inputs}


class Runner(Protocol):
    """What runs a graph; from several threads at a time.

    Attributes:
        backend: Its name.
    """

    backend: str

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs, float32, of inputs in order; the first axis of each is the batch."""
        ...


def choose_backend(name: str, device: str, precision: Precision) -> Backend:
    """What is to run networks.

    ``auto`` takes OpenVINO on a CPU that has the precision in hardware, else torch.

    Raises:
        BoneageError: It is unknown, not installed, or does not run on the device.
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
    """Finds out whether the packages are installed that converting for a backend takes.

    Args:
        asked: The option that asks for it, for messages.
        backend: ``onnxruntime`` or ``openvino``.

    Raises:
        BoneageError: Names what is missing, and says how to install it.
    """
    missing = [name for name in _PACKAGES[backend] if find_spec(name) is None]
    if missing:
        raise BoneageError(
            f"{asked}: needs {', '.join(missing)}; install with: pip install {' '.join(missing)}"
        )


def run_graph(graph: Graph, backend: str, device: str, precision: Precision) -> Runner:
    """Makes a graph ready to run.

    Args:
        graph: The graph.
        backend: See ``choose_backend``; with ``auto``, torch runs what OpenVINO cannot convert.
        device: As ``choose_device`` gives it.
        precision: As ``choose_precision`` gives it.

    Raises:
        BoneageError: As ``choose_backend``, or the backend cannot run such a network.
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
            # It is compiled now, where a failure has a name, and not in the midst of a batch.
            runner(*graph.example().values())
    except (BoneageError, ModuleNotFoundError):
        raise
    except Exception as error:
        # Each of them raises what its parts please.
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
    """Whether another process has the same network in a moment, without converting it again."""
    return isinstance(runner, _OpenVino) and runner.kept


def cache_folder() -> Path:
    """Where converted networks are kept: ``$BONEAGE_CACHE``, or boneage in the user's caches."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("boneage"))


def convert_to_openvino(graph: Graph, batch: int = -1) -> Any:
    """The graph as an ``openvino.Model``, its inputs and outputs named.

    Args:
        graph: The graph.
        batch: Images per pass; -1 to leave it open.
    """
    import openvino
    import torch

    example = tuple(torch.from_numpy(array) for array in graph.example().values())
    with warnings.catch_warnings():
        # Tracing warns of each check that it evaluates once.
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
    """Writes the graph as an ONNX file with a free batch."""
    import torch

    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        # The exporter warns of its own parts.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.make(),
            tuple(torch.from_numpy(array) for array in graph.example().values()),
            path,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            # One tuple: the module takes its inputs as one list of arguments.
            dynamic_shapes=(tuple({0: batch} for _ in graph.inputs),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


class _Torch:
    """Runs a module on its device, in batches as they come."""

    def __init__(
        self, graph: Graph, device: str, precision: Precision, *, compiled: bool = False
    ) -> None:
        import torch

        module = graph.make().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: Any = torch.compile(module) if compiled else module
        self.device, self.precision = device, precision
        if precision == "32" and device_type(device) == "cuda":
            # Full precision is just that: convolutions on GPUs would else keep ten bits of it. It
            # holds for the process, since other threads may be running networks of their own.
            torch.backends.cudnn.allow_tf32 = False
        self.backend = "compiled" if compiled else "torch"
        # Compiling is not safe in several threads at a time; and on a CPU one pass takes all cores.
        one_at_a_time = compiled or device_type(device) == "cpu"
        self.alone: AbstractContextManager[Any] = Lock() if one_at_a_time else nullcontext()

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        import torch

        with self.alone, torch.inference_mode(), autocast(self.precision, self.device):
            # A copy, since arrays that are mapped from disk cannot be written.
            tensors = [torch.from_numpy(np.array(array)).to(self.device) for array in inputs]
            if self.backend == "compiled":
                # Of any batch, but of one size: with heights and widths open, too, torch reasons
                # about the network's padding for minutes before it compiles anything.
                for tensor in tensors:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
            return tuple(output.float().cpu().numpy() for output in self.module(*tensors))


class _OpenVino:
    """Runs a graph on all cores, image by image on one core each.

    So months do not depend on what else is in a batch, and no shape has to be prepared anew. On
    CPUs, batches of these networks are no quicker per image.
    """

    backend = "openvino"

    def __init__(self, graph: Graph, precision: Precision) -> None:
        import openvino

        streams = usable_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # Threads that read and preprocess need the cores as well.
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
        # Its bindings set themselves up at the first inference, and two threads that come first
        # together wait for each other for ever.
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
            # The tensors are the request's own, which the next image overwrites.
            return [
                np.array(request.get_output_tensor(number).data, np.float32)
                for number in range(self.outputs)
            ]
        finally:
            self.requests.put(request)

    def _compiled(
        self, core: Any, graph: Graph, kept: Path | None, settings: dict[str, Any]
    ) -> Sequence[InferRequest | PartsRequest]:
        """Requests of the network, one for each thread that runs it."""
        if kept is not None:
            # What is compiled for this processor is kept beside it, if there is a place.
            compiled = kept.with_suffix("")
            for path in filter(Path.is_file, (kept, shipped_graph(graph))):
                for beside in ({"CACHE_DIR": str(compiled)}, {}):
                    # What is damaged is made anew; OpenVINO raises RuntimeError for it.
                    with suppress(Exception):
                        requests = self._requests(core, path, settings | beside)
                        _mark_as_used(kept)
                        return requests
                    shutil.rmtree(compiled, ignore_errors=True)
        # Some systems do not remove files that are still mapped into memory.
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
        # Parts that threads share run a third slower than each thread's own.
        alone = settings | {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
        coarse = alone | {"INFERENCE_PRECISION_HINT": "bf16"}

        def request(number: int) -> InferRequest:
            chosen = coarse if number == COARSE else alone
            return core.compile_model(found[number].model, "CPU", chosen).create_infer_request()

        return [PartsRequest(list(map(request, range(len(found)))), takes) for _ in streams]


def shipped_graph(graph: Graph, folder: Path = SHIPPED_GRAPHS) -> Path:
    """Where the package has a graph converted, if it is one of the package's."""
    return folder / f"{hashlib.sha256(str(graph.key).encode()).hexdigest()[:16]}.xml"


def ship_graphs(graphs: Sequence[Graph]) -> None:
    """Makes the package hold these graphs converted, and no others.

    Weights become 16-bit floats, which they are in the package's bundles: nothing is rounded.
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
    """Where the converted network is, or would be; None where nobody can tell which it is."""
    import openvino

    if graph.key is None:
        return None
    # Later versions may build, read or convert otherwise. What only predicts has no timm.
    timm = version("timm") if find_spec("timm") else None
    made_of = f"{openvino.__version__} {timm} {graph.key} {code_digest(*_CODE)}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()
    return cache_folder() / "openvino" / f"{digest[:24]}.xml"


def _save(graph: Graph, path: Path) -> None:
    import openvino

    openvino.save_model(convert_to_openvino(graph, batch=1), path, compress_to_fp16=False)


def _keep(made: Path, path: Path) -> None:
    """Puts a converted network where the next start finds it, if there is a place."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The .xml comes last: where it is, the weights are.
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
    # Not the .xml, by whose time OpenVINO tells whether what it compiled is of this file.
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
