"""``boneage bench``: how fast models are, and tables and plots of several measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneage_cli.cli.console import console, print_table, warn
from boneage_cli.cli.options import (
    BatchSizeOption,
    Device,
    DeviceOption,
    ModelOption,
    Precision,
    PrecisionOption,
    Sex,
    WorkersOption,
    model_paths,
)
from boneage_cli.errors import BoneageError

if TYPE_CHECKING:
    import pandas as pd

    from boneage_cli.core.benchmarking import Benchmark

app = typer.Typer(name="bench", rich_markup_mode="rich")

# Half the cores taken by others makes every figure worthless.
BUSY = 0.5
# What the rankings' columns are called in tables.
_FIGURES = {
    "images_per_s": "images/s",
    "single_ms": "ms",
    "images_per_s_per_million": "per million",
}


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
            help="Radiographs to read: files, folders, lists or tables, as predict takes them, of "
            "which the first 32 are used. Repeatable. Default: 8 drawn hands of 1536 × 1920 "
            "pixels.",
            show_default=False,
        ),
    ] = None,
    sex: Annotated[
        Sex,
        typer.Option(
            "--sex", "-s", case_sensitive=False, help="Of the children; it changes no time."
        ),
    ] = Sex.M,
    batch_sizes: Annotated[
        str, typer.Option("--batch-sizes", metavar="N,N,…", help="Of the passes of the network.")
    ] = "1,4,8,16,32",
    backbones: Annotated[
        str | None,
        typer.Option(
            "--backbones",
            "-b",
            metavar="A,B,…",
            help="Compare untrained networks with these backbones, passes alone.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            help="Compare the untrained networks of these settings files, or with --backbones "
            "these settings with each backbone. Repeatable.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also time the naive loop (see below).")
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            min=0.1,
            metavar="S",
            help="About how long to measure; at least 3 repetitions of each are timed.",
        ),
    ] = 60,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            file_okay=False,
            help="The folder for bench.csv and bench.json. Default: bench-DATE-TIME.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSizeOption = 32,
    workers: WorkersOption = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Measure how fast a model is on this machine, or several networks side by side.

    \b
    Examples:
      boneage bench
      boneage bench --images scans/ --reference
      boneage bench --model runs/a --batch-sizes 1,64 --device cuda
      boneage bench --backbones tf_efficientnet_lite0,resnet50,convnext_tiny
      boneage bench --config configs/s1-global.toml --config configs/rsna.toml
      boneage bench report bench-20260101-120000 laptop.csv

    [bold]What it measures[/bold]

    Latency: one radiograph at a time, from file to months, and where the time
    goes: reading the file, preprocessing (key points, cutting out, resize), the
    network, and the rest (batching, threads). Means of the parts add up to the
    mean of the total; percentiles do not.

    Passes of the network: batches of uint8 pixels from memory to months, as
    predict runs them, for each of --batch-sizes; the device waited for.

    Radiographs from files: images/s of predict with --batch-size and --workers,
    without the start, which is told apart. Peak memory: of the whole process, and
    of the GPU.

    Nothing is refused here, whatever the images look like. Everything is run
    before it is timed, so files come from memory, not from the disk. Other
    programs that run meanwhile slow it down; a warning says so.

    [bold]Comparing networks[/bold]

    --backbones and --config rank untrained networks by their passes: speed does
    not depend on the weights. --model may be given with them. Without --config
    the images have the default settings' size. All share --seconds; large
    networks take longer.

    [bold]The naive loop[/bold]

    --reference also times what a short script does with the same network on the
    same files: OpenCV's imread, a plain resize to the network's size, one
    forward pass in full precision, image by image. It finds no key points and
    corrects no contrast, so it does less, and its ages would be wrong.

    [bold]Exit status[/bold]: 0, or 2 when the command line, a model or an image
    makes no sense.
    """
    if context.invoked_subcommand is not None:
        return
    from datetime import datetime

    from boneage_cli.core.benchmarking import (
        benchmark_model,
        benchmark_networks,
        busy,
        parse_batch_sizes,
        trained,
        untrained,
        write_benchmark,
    )

    sizes = parse_batch_sizes(batch_sizes)
    if (load := busy()) is not None and load > BUSY:
        warn(f"other programs keep {min(load, 1):.0%} of the cores busy; the figures will suffer")
    if backbones or config:
        if reference or images:
            option = "--reference" if reference else "--images"
            raise BoneageError(
                f"{option}: networks are compared without files; leave out --backbones and --config"
            )
        measured = benchmark_networks(
            [
                *(trained(model_paths(model)) if model else []),
                *untrained(config or [], backbones, tell=warn),
            ],
            batch_sizes=sizes,
            seconds=seconds,
            device=device.value,
            precision=precision.value,
        )
    else:
        measured = benchmark_model(
            model_paths(model),
            [str(path) for path in images or ()],
            male=sex in (Sex.M, Sex.male),
            batch_sizes=sizes,
            seconds=seconds,
            reference=reference,
            batch_size=batch_size,
            workers=workers,
            device=device.value,
            precision=precision.value,
        )
    _print_benchmark(measured)
    folder = output or Path(f"bench-{datetime.now():%Y%m%d-%H%M%S}")
    files = write_benchmark(measured, folder)
    console.print(f"{'written':11}{folder}: {', '.join(file.name for file in files)}", markup=False)


@app.command()
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Folders that bench wrote, or their bench.csv, under any name.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", file_okay=False, help="The folder for plots and table."),
    ] = Path("bench-report"),
) -> None:
    """Rank the networks of one or several measurements, and draw four plots.

    A network that was measured with several image sizes, on several machines, in
    several precisions or several times is told apart by what differs: the size,
    the hardware, the precision, or the name of the folder or file.

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
    from boneage_cli.core.benchmark_report import ranking, read_results, write_report

    table = read_results(results)
    _print_rankings(ranking(table))
    files = write_report(table, output)
    console.print(f"{'written':11}{output}: {', '.join(file.name for file in files)}", markup=False)


def _print_benchmark(measured: Benchmark) -> None:
    if measured.latency is not None:
        _print_latency(measured)
    networks = {row["model"]: row for row in measured.throughput}
    for name, row in networks.items():
        print_table(
            f"Passes of {name}: {row['parameters']:,} parameters, {row['pixels']} pixels, ms",
            ("batch", "mean", "std", "min", "max", "median", "per image", "images/s", "passes"),
            [
                (
                    each["batch_size"],
                    *(
                        _digits(each[key])
                        for key in (
                            *("mean_ms", "std_ms", "min_ms", "max_ms", "median_ms"),
                            *("ms_per_image", "images_per_s"),
                        )
                    ),
                    each["passes"],
                )
                for each in measured.throughput
                if each["model"] == name
            ],
        )
    if len(networks) > 1:
        _print_rankings(_ranked(measured))
    for name, text in _lines(measured).items():
        console.print(f"{name:11}{text}", markup=False)
    for note in measured.notes:
        warn(note)


def _print_latency(measured: Benchmark) -> None:
    assert measured.latency is not None
    figures = measured.latency.to_dict()
    print_table(
        f"One radiograph from file to months, ms: {figures['repetitions']} of {measured.images}",
        ("", "mean", "share", "p50", "p95", "p99"),
        [
            (
                name,
                _digits(row["mean_ms"]),
                f"{row['share']:.0%}",
                *(_digits(row[key]) for key in ("p50_ms", "p95_ms", "p99_ms")),
            )
            for name, row in figures["parts"].items()
        ],
    )


def _lines(measured: Benchmark) -> dict[str, str]:
    about, files, memory = measured.about, measured.files, measured.memory
    lines = {}
    if files is not None:
        threads = "1 thread" if files["workers"] == 1 else f"{files['workers']} threads"
        lines["from files"] = (
            f"{_digits(files['images_per_s'])} images/s, {files['images']} radiographs in batches "
            f"of {files['batch_size']}, {threads} reading"
        )
        lines["start"] = f"{about['load_s']:.2f} s to load the model"
    if measured.reference is not None:
        naive = measured.reference
        lines["naive loop"] = (
            f"{_digits(naive['images_per_s'])} images/s, {naive['images']} radiographs; from files "
            f"is {naive['ratio']:.2f} times as fast"
        )
    if memory is not None:
        gpu = f", {memory['gpu']:,.0f} MB of the GPU" if "gpu" in memory else ""
        lines["memory"] = (
            f"at most {memory['files']:,.0f} MB ({memory['loaded']:,.0f} MB once loaded){gpu}"
        )
    lines["hardware"] = f"{about['hardware']}; {about['device']}, precision {about['precision']}"
    lines["versions"] = (
        f"boneage {about['boneage']}, torch {about['torch']}, Python {about['python']}; "
        f"{about['date']}"
    )
    return lines


def _ranked(measured: Benchmark) -> pd.DataFrame:
    import pandas as pd

    from boneage_cli.core.benchmark_report import ranking

    table = pd.DataFrame(measured.throughput)
    return ranking(table.assign(network=table["model"]))


def _print_rankings(networks: pd.DataFrame) -> None:
    from boneage_cli.core.benchmark_report import RANKINGS, by

    for column, more_is_better, heading in RANKINGS:
        ranked = by(networks, column, more_is_better)
        if ranked.empty:
            continue
        left_out = len(networks) - len(ranked)
        print_table(
            f"Networks {heading}",
            ("network", "rank", _FIGURES[column], "batch size", "parameters"),
            [
                (
                    row["network"],
                    rank,
                    _digits(row[column]),
                    1 if column == "single_ms" else row["best_batch"],
                    f"{row['parameters']:,}",
                )
                for rank, row in enumerate(ranked.to_dict("records"), 1)
            ],
            note=f"{left_out} without a batch of one image" if left_out else "",
        )


def _digits(value: float) -> str:
    """Three digits that tell something, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
