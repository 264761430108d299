"""``boneage bench``: measures the speed of models, with tables and plots of several benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from boneage_cli.cli.bench_tables import print_benchmark, print_rankings, print_training
from boneage_cli.cli.commands import Command, Group
from boneage_cli.cli.console import print_fields, warn
from boneage_cli.cli.options import (
    BackendOption,
    BatchSizeOption,
    CacheOption,
    DeviceOption,
    ModelOption,
    PrecisionOption,
    Sex,
    WorkersOption,
    model_paths,
    refuse_beside,
)

app = typer.Typer(cls=Group, name="bench", add_completion=False, rich_markup_mode="rich")

# Load average per core of other programs at which a warning is printed: timings are then useless.
BUSY = 0.5
# Options that cannot be combined with --train, and what to do instead.
_NOT_OF_TRAINING = {
    "model": "networks are trained from random weights; name settings with --config",
    "images": "training reads a data set; name it with --data",
    "sex": "training reads it from the data set; leave it out",
    "reference": "there is no naive loop to train with; leave it out",
    "backends": "training always runs in torch; leave it out",
    "backend": "training always runs in torch; leave it out",
    "batch_sizes": "training has one; set training.batch_size in the file of --config",
    "batch_size": "set training.batch_size in the file of --config",
    "workers": "training reads no files once they are cached; leave it out",
}
_NOT_WITHOUT_TRAINING = {
    "data": "is for training; add --train, or name files with --images",
    "cache": "is for training; add --train, or leave it out",
}
_NOT_OF_BACKENDS = {
    "backbones": "one trained model is run in several ways; leave it out",
    "config": "one trained model is run in several ways; leave it out",
    "reference": "one trained model is run in several ways; leave it out",
    "backend": "name it in --backends",
    "batch_size": "radiographs are not read from files here; leave it out",
    "workers": "radiographs are not read from files here; leave it out",
}
_NOT_OF_NETWORKS = dict.fromkeys(
    ("images", "reference", "sex", "batch_size", "workers"),
    "networks are compared without files; leave it out, or --backbones and --config",
)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    model: ModelOption = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            "-i",
            metavar="PATH",
            help="Radiographs to read: files, folders, lists or tables, as for predict; the first "
            "32 are used. Repeatable. Default: 8 drawn hands of 1536 × 1920 pixels.",
            show_default=False,
        ),
    ] = None,
    sex: Annotated[
        Sex,
        typer.Option(
            "--sex", "-s", case_sensitive=False, help="The children's sex; does not affect timings."
        ),
    ] = Sex.M,
    batch_sizes: Annotated[
        str,
        typer.Option("--batch-sizes", metavar="N,N,…", help="Batch sizes of the forward passes."),
    ] = "1,4,8,16,32",
    backbones: Annotated[
        str | None,
        typer.Option(
            "--backbones",
            "-b",
            metavar="A,B,…",
            help="Compare untrained networks with these backbones, forward passes only; with "
            "--train, their training.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            help="Compare the untrained networks of these settings files, or with --backbones, "
            "these settings with each backbone. Repeatable.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also time the naive loop (see above).")
    ] = False,
    backends: Annotated[
        str | None,
        typer.Option(
            "--backends",
            metavar="A,B,…",
            help="Run the model with each of these runtimes: torch, compiled (torch.compile), "
            "onnxruntime, openvino; or all: every one available here.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Benchmark training instead (see above).")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="With --train: the data set's folder, or its name in data/. Default: drawn hands.",
            show_default=False,
        ),
    ] = None,
    cache: CacheOption = None,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            min=0.1,
            metavar="S",
            help="Approximate duration; at least 3 repetitions of each are timed.",
        ),
    ] = 60,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="The folder for bench.csv and bench.json, or with --train train-bench.csv and "
            "train-bench.json. Default: bench-DATE-TIME.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSizeOption = 32,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
) -> None:
    """Measure how fast a model is on this machine, or several networks side by side.

    \b
    Examples:
      boneage bench
      boneage bench --images scans/ --reference
      boneage bench --model runs/a --batch-sizes 1,64 --device cuda
      boneage bench --backbones tf_efficientnet_lite0,resnet50,convnext_tiny
      boneage bench --config configs/s1-global.toml --config configs/rsna.toml
      boneage bench --backends all --images scans/
      boneage bench --train --data rsna --config configs/rsna.toml --seconds 300
      boneage bench report bench-20260101-120000 laptop.csv

    [bold]What it measures[/bold]

    Latency: one radiograph at a time, from file to result, and how the time is
    divided: reading the file, preprocessing (key points, cropping, resize), the
    network, and the rest (batching, threads). The means of the parts add up to
    the mean of the total; percentiles do not.

    Forward passes: batches of uint8 pixels from memory to months, as in predict,
    for each of --batch-sizes, including the wait for the device to finish.

    Radiographs from files: images/s of predict with --batch-size and --workers,
    without start-up, which is reported separately; in several processes, as
    predict uses for hundreds of radiographs, if at least 10 s are available for
    it (--seconds 40). Peak memory: of all processes, and of the GPU.

    No image is refused, whatever it shows. Everything is run once before it is
    timed, so files are read from the disk cache. Other programs running at the
    same time slow it down; a warning reports this.

    [bold]Comparing networks[/bold]

    --backbones and --config rank untrained networks by their forward passes;
    speed does not depend on the weights. --model can be added. Without --config,
    the images have the size of the default settings. All share --seconds; large
    networks take longer.

    [bold]The naive loop[/bold]

    --reference also times what a short script would do with the same network on
    the same files: OpenCV's imread, a plain resize to the network's size, one
    forward pass in full precision, image by image. It locates no key points and
    normalises no contrast, so it does less, and its ages would be wrong.

    [bold]Backends[/bold]

    --backends runs the model with several runtimes, on the preprocessed pixels of
    all --images: the forward passes of each, and the mean and maximum difference
    in months from the ages of torch in full precision. The first time, a model is
    converted; this is included in the loading time.

    [bold]Training[/bold]

    --train trains the networks of --config and --backbones, or the default one,
    from random weights on the training images of --data, or on a few drawn hands.
    Nothing of the training is kept. The image cache is filled first, untimed.
    With --precision auto, the precision is that of the settings
    (training.precision).

    Images/s: epochs on the data set alternate with epochs on synthetic data that
    is already on the device; the first of each is not counted. The time per epoch
    is for all training images, without validation.

    The parts of a step are timed in separate passes: loading (including transfer
    to the device), augmentation, forward (including the loss), backward,
    optimiser (including clipping and weight averaging), and the rest.

    Arithmetic: the operations of the network's forward and backward pass, counted
    by torch, compared with the fastest multiplication of two large matrices on
    this device in the same precision. Below the table follows what limits the
    speed, and the torch operators that take most of the time.

    If --output already holds training benchmarks, the new ones are added.

    [bold]Exit status[/bold]: 0, or 2 if the command line, a model or an image is
    invalid.
    """
    if context.invoked_subcommand is not None:
        # Options before a subcommand would otherwise be ignored.
        refuse_beside(context, "with report", dict.fromkeys(context.params, "leave it out"))
        return
    from datetime import datetime

    folder = output or Path(f"bench-{datetime.now():%Y%m%d-%H%M%S}")
    if train:
        refuse_beside(context, "with --train", _NOT_OF_TRAINING)
        _bench_training(
            config or [],
            backbones,
            data,
            folder,
            cache=cache,
            seconds=seconds,
            device=device,
            precision=precision,
        )
        return
    refuse_beside(context, "without --train", _NOT_WITHOUT_TRAINING)
    from boneage_cli.core.bench.backends import benchmark_backends, parse_backends
    from boneage_cli.core.bench.benchmark import check_folder, write_benchmark
    from boneage_cli.core.bench.environment import load_per_core
    from boneage_cli.core.bench.model import benchmark_model
    from boneage_cli.core.bench.networks import (
        benchmark_networks,
        experiments,
        parse_batch_sizes,
        trained,
        untrained,
    )

    check_folder(folder)
    sizes = parse_batch_sizes(batch_sizes)
    _warn_if_busy(load_per_core())
    if backends:
        refuse_beside(context, "with --backends", _NOT_OF_BACKENDS)
        measured = benchmark_backends(
            model_paths(model),
            parse_backends(backends),
            [str(path) for path in images or ()],
            male=sex.is_male,
            batch_sizes=sizes,
            seconds=seconds,
            device=device,
            precision=precision,
        )
    elif backbones or config:
        networks = "--backbones" if backbones else "--config"
        refuse_beside(context, f"with {networks}", _NOT_OF_NETWORKS)
        measured = benchmark_networks(
            [
                *(trained(model_paths(model)) if model else []),
                *untrained(experiments(config or [], backbones)),
            ],
            batch_sizes=sizes,
            seconds=seconds,
            device=device,
            precision=precision,
            backend=backend,
        )
    else:
        measured = benchmark_model(
            model_paths(model),
            [str(path) for path in images or ()],
            male=sex.is_male,
            batch_sizes=sizes,
            seconds=seconds,
            reference=reference,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,
            backend=backend,
        )
    # Written first: a reader such as head may close the output before it is complete.
    try:
        files = write_benchmark(measured, folder)
    finally:
        print_benchmark(measured)
    _print_written(folder, files)


@app.command(cls=Command)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Folders written by bench, or their bench.csv files under any name.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", file_okay=False, help="The folder for the plots and the table."
        ),
    ] = Path("bench-report"),
) -> None:
    """Rank the networks of one or several measurements, and draw four plots.

    If a network was measured several times, with several image sizes, on several
    machines or in several precisions, its rows are labelled by what differs: the
    size, the hardware, the precision, or the name of the folder or file.

    \b
    Examples:
      boneage bench report bench-20260101-120000
      boneage bench report laptop.csv server.csv --output comparison/

    \b
    What it writes:
      ranking.csv           parameters, best batch size, images/s, images/s per
                            million parameters, time of a batch of one image
      throughput.png        images/s by batch size
      time-per-image.png    the same, as milliseconds per image
      best-throughput.png   images/s of each network at its best batch size
      efficiency.png        images/s per million parameters
    """
    from boneage_cli.core.bench.report import ranking, read_results, write_report

    table = read_results(results)
    try:
        files = write_report(table, output)
    finally:
        print_rankings(ranking(table))
    _print_written(output, files)


def _bench_training(
    configs: list[Path], backbones: str | None, data: Path | None, folder: Path, **options: Any
) -> None:
    from boneage_cli.core.bench.environment import load_per_core
    from boneage_cli.core.bench.networks import experiments
    from boneage_cli.core.bench.training import (
        benchmark_training,
        earlier_measurements,
        write_measurements,
    )
    from boneage_cli.datasets.find_dataset import find_dataset
    from boneage_cli.files import check_writable

    _warn_if_busy(load_per_core())
    chosen = experiments(configs, backbones)
    check_writable(folder)
    earlier = earlier_measurements(folder)
    found = find_dataset(data) if data else None
    drawn = "drawn hands in a temporary folder; use your own with --data"
    print_fields({"data": found or drawn})
    measured = benchmark_training(chosen, found, **options)
    try:
        files = write_measurements([*earlier, measured.to_dict()], folder)
    finally:
        print_training(measured)
    _print_written(folder, files)


def _warn_if_busy(load: float | None) -> None:
    if load is not None and load > BUSY:
        warn(f"other programs keep {min(load, 1):.0%} of the cores busy; timings are unreliable")


def _print_written(folder: Path, files: list[Path]) -> None:
    print_fields({"written": f"{folder}: {', '.join(file.name for file in files)}"})
