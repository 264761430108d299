"""Converted networks on disk: those of the package, and those in the user's cache folder.

A network is converted once; the cache key is a digest of everything that affects the result.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from boneage_cli.code_digest import code_digest
from boneage_cli.core.conversion import Graph, convert_to_openvino
from boneage_cli.files import whole_file

CACHE_VARIABLE = "BONEAGE_CACHE"
# The code that turns settings and weights into a graph. It is part of the cache key, so that edits
# invalidate cached graphs (except the package's own, which are converted on shipping).
_CODE = (
    *(
        Path(__file__).with_name(name)
        for name in ("bundle.py", "conversion.py", "graphs.py", "landmarks.py")
    ),
    Path(__file__).parents[1] / "models",
)
# Number of converted networks that are cached (least recently used ones are deleted); each takes
# twice the space of its weights.
MOST_KEPT = 16
SHIPPED_GRAPHS = Path(__file__).parents[1] / "weights" / "openvino"
"""The package's networks, already converted, so that the first start is as fast as later ones."""


def cache_folder() -> Path:
    """Cache of converted networks: ``$BONEAGE_CACHE``, or ``boneage`` in the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("boneage"))


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


def cached_path(graph: Graph) -> Path | None:
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


def save_graph(graph: Graph, path: Path) -> None:
    """Converts a graph and writes its .xml and .bin file."""
    import openvino

    openvino.save_model(convert_to_openvino(graph, batch=1), path, compress_to_fp16=False)


def keep(made: Path, path: Path) -> None:
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


def mark_as_used(path: Path) -> None:
    """Notes that a converted network in the cache was used, so that others are deleted first."""
    # Not the .xml: OpenVINO compares its mtime to decide whether the compiled model is up to date.
    with suppress(OSError):
        for file in (path.with_suffix(".bin"), path.with_suffix("")):
            if file.exists():
                os.utime(file)
