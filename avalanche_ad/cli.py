"""The command line: ``avalanche-ad``. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TextIO

import typer
from rich.console import Console
from rich.table import Table

from avalanche_ad import __version__
from avalanche_ad.errors import AvalancheADError, RecipeError, counted

if TYPE_CHECKING:
    from avalanche_ad.features import FeatureCache
    from avalanche_ad.recipes.recipe import ExperimentRecipe

__all__ = ["app", "main"]

app = typer.Typer(
    name="avalanche-ad",
    help="Continual learning for industrial anomaly detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# what is printed comes from recipes and file names: never to be read as markup
_out = Console(markup=False, highlight=False)
_err = Console(stderr=True, markup=False, highlight=False)
_MAX_SEED = 2**32 - 1  # NumPy's
_INTERRUPTED = 130
_BROKEN_PIPE = 141  # as a shell reports of a process that the signal ended
# newer versions of typer bring their own copy of click, of which this is a part
_UsageError: type[Any] = typer.BadParameter.__mro__[1]

Benchmark = Annotated[
    str, typer.Option("--benchmark", "-b", help="Name of a stream, or a TOML file.")
]
Data = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this at run time
    typer.Option("--data", help="Folder of the data set; not for synthetic."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Threads = Annotated[
    int,
    typer.Option(min=1, help="CPU threads; more pay for large models."),
]
CacheFolder = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--cache", help="Folder of the feature cache."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="section.key=value, over the recipes; repeatable."),
]


Strategy = Annotated[
    str, typer.Option("--strategy", "-s", help="Name of a strategy, or a TOML file.")
]
Seeds = Annotated[str, typer.Option(help="Seeds with commas.")]


class Listed(str, Enum):
    """What ``list`` can list."""

    strategies = "strategies"
    benchmarks = "benchmarks"
    datasets = "datasets"
    backbones = "backbones"
    metrics = "metrics"
    experiments = "experiments"


def _version(show: bool) -> None:
    if show:
        typer.echo(f"avalanche-ad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del debug, version  # main() and the callback read them


@app.command()
def run(
    benchmark: Benchmark = "synthetic_5x3",
    strategy: Strategy = "gmm_alignment",
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the run [runs/BENCHMARK/STRATEGY-seedN]."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=_MAX_SEED, help="Model start and data order.")
    ] = 0,
    device: Device = "auto",
    threads: Threads = 1,
    cache: CacheFolder = None,
    overrides: Overrides = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Make a finished run anew, or discard an interrupted one.",
        ),
    ] = False,
    start: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="A finished run to go on from: learn what is new."),
    ] = None,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, help="Between checkpoints in a task, at ends of epochs."),
    ] = 10.0,
) -> None:
    """Train a strategy on a stream, evaluate after every task, save the run."""
    _limit_threads(threads)
    from avalanche_ad.recipes.recipe import load_experiment

    recipe = load_experiment(benchmark, strategy, overrides or [])
    data = _used(data, recipe)
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.progress import RunProgress
    from avalanche_ad.experiments.runner import run_experiment
    from avalanche_ad.reporting.tables import (
        comparison_rows,
        comparison_table,
        task_table,
    )

    folder = out or (
        Path("runs") / recipe.benchmark_name / f"{recipe.strategy_name}-seed{seed}"
    )
    shown = ("image_auroc", "pixel_auroc", "aupro", "category_accuracy")

    backbone_calls: int | None = None

    def after_features(calls: int) -> None:
        nonlocal backbone_calls
        backbone_calls = calls

    def after_task(task: int, rows: Any) -> None:
        with suppress(OSError):  # whoever reads has gone: the run goes on
            _print_table(task_table(f"After task {task + 1}", rows, shown))

    _err.print(
        f"{recipe.benchmark.title} · {recipe.strategy.title} · seed {seed}",
        soft_wrap=True,
    )
    with RunProgress(_err) as progress:
        results = run_experiment(
            recipe,
            folder,
            data_root=data,
            seed=seed,
            device=pick_device(device, threads),
            cache=_cache(cache),
            progress=progress,
            announce=lambda text: _err.print(text, soft_wrap=True),
            after_features=after_features,
            after_task=after_task,
            fresh=fresh,
            checkpoint_minutes=checkpoint_minutes,
            start=start,
        )
    _print_table(
        comparison_table(
            comparison_rows([results]),
            "Final values, mean over categories (forgetting: positive = forgot)",
        )
    )
    if backbone_calls is None:  # it was there already
        return
    measured = {*results["per_category"]["image_auroc"]}
    if left := [
        name
        for names in results["categories"]
        for name in names
        if name not in measured
    ]:
        _err.print(
            "note: the means are of what has images here; not measured again: "
            f"{', '.join(left)}",
            soft_wrap=True,
        )
    seconds = results["seconds"]
    _err.print(
        f"features {seconds['features']:.0f} s "
        f"({counted(backbone_calls, 'backbone call')}), "
        f"training {seconds['train']:.0f} s, "
        f"evaluation {seconds['eval']:.0f} s; saved in {folder}",
        soft_wrap=True,
    )


@app.command()
def compare(
    strategies: Annotated[
        str, typer.Option(help="Names of strategies or TOML files, with commas.")
    ],
    benchmark: Benchmark = "synthetic_5x3",
    seeds: Seeds = "0",
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of all runs [runs/BENCHMARK]."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time, each of --threads threads.")
    ] = 1,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Test the others against this strategy, paired over seeds."),
    ] = None,
    published: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Show the published numbers of this benchmark beside."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: CacheFolder = None,
    overrides: Overrides = None,
) -> None:
    """Compare strategies over seeds; write tables and figures."""
    _limit_threads(threads)
    from avalanche_ad.recipes.recipe import load_experiment

    numbers = _numbers(seeds)
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    if not names:
        raise RecipeError("--strategies: expected at least one name")
    _refuse_repeated("--strategies", names)
    recipes = [load_experiment(benchmark, name, overrides or []) for name in names]
    data = _used(data, recipes[0])
    stream = recipes[0].benchmark
    shown = load_experiment(published, "naive").benchmark if published else stream
    if published and not shown.published:
        raise RecipeError(
            f"--published {published!r}: this benchmark lists no published numbers"
        )
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.progress import RunProgress
    from avalanche_ad.experiments.sweep import compare as sweep
    from avalanche_ad.experiments.sweep import published_note
    from avalanche_ad.reporting.comparison import against_section
    from avalanche_ad.reporting.published import published_sections
    from avalanche_ad.reporting.tables import (
        comparison_rows,
        comparison_table,
        terminal_table,
    )

    folder = out or Path("runs") / recipes[0].benchmark_name
    reference = against and Path(against).stem
    with RunProgress(_err) as progress:
        results = sweep(
            recipes,
            numbers,
            folder,
            data_root=data,
            device=pick_device(device, threads),
            cache=_cache(cache),
            progress=progress,
            announce=lambda text: _err.print(text, soft_wrap=True),
            jobs=jobs,
            threads=threads,
            against=reference,
            published=shown,
        )
    over = counted(len(numbers), "seed")
    title = f"{stream.title}, {over} (forgetting: positive = forgot)"
    _print_table(comparison_table(comparison_rows(results), title))
    tables = [against_section(results, reference)] if reference else []
    entries = [entry.model_dump() for entry in shown.published]
    beside = published_sections(results, entries, only_measured=True)
    for table in (*tables, *beside):
        _print_table(terminal_table(table))
        _out.print(table.caption, soft_wrap=True)
    if beside and (note := published_note(stream, shown)):
        _out.print(note, soft_wrap=True)
    _err.print(f"written: {folder}/compare.md and others beside it", soft_wrap=True)


@app.command()
def experiment(
    name: Annotated[
        str, typer.Argument(help="Which one; `list experiments` shows all.")
    ],
    benchmark: Benchmark = "synthetic_5x3",
    strategy: Strategy = "naive",
    seeds: Seeds = "0",
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of its files [runs/BENCHMARK/experiments]."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: CacheFolder = None,
    overrides: Overrides = None,
) -> None:
    """Measure what is forgotten and why: a controlled experiment with its figure."""
    _limit_threads(threads)
    from avalanche_ad.recipes.recipe import load_experiment

    numbers = _numbers(seeds)

    def load(strategy: str) -> ExperimentRecipe:
        return load_experiment(benchmark, strategy, overrides or [])

    recipe = load(strategy)
    data = _used(data, recipe)
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.progress import RunProgress
    from avalanche_ad.experiments.studies import find_study
    from avalanche_ad.experiments.studies.study import run_study
    from avalanche_ad.reporting.tables import terminal_table

    study = find_study(name)
    folder = out or Path("runs") / recipe.benchmark_name / "experiments"
    _err.print(
        f"{study.title} · {recipe.benchmark.title} · {recipe.strategy.title}",
        soft_wrap=True,
    )
    with RunProgress(_err) as progress:
        sections = run_study(
            study,
            name,
            load,
            strategy,
            numbers,
            folder,
            data_root=data,
            device=pick_device(device, threads),
            cache=_cache(cache),
            progress=progress,
            announce=lambda text: _err.print(text, soft_wrap=True),
        )
    for section in sections:
        _print_table(terminal_table(section))
        _out.print(section.caption, soft_wrap=True)
    _err.print(f"written: {folder}/{name}.md and {name}.png", soft_wrap=True)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run, or a folder of runs.")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The page, or a folder for it [DIR/report.html]."),
    ] = None,
) -> None:
    """Write a self-contained page of finished runs: figures, tables, settings."""
    from avalanche_ad.errors import writing
    from avalanche_ad.experiments.results import read_runs, write_whole
    from avalanche_ad.reporting.html import report_page

    results = read_runs(folder)
    page = report_page(results[0]["benchmark"], results)
    path = out or folder
    if path.is_dir() or not path.suffix:
        path /= "report.html"
    with writing(path, "the page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    _err.print(f"{counted(len(results), 'run')}: {path}", soft_wrap=True)


def _numbers(seeds: str) -> list[int]:
    """Return the seeds of an option."""
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= _MAX_SEED for number in numbers):
        raise RecipeError(
            f"--seeds {seeds!r}: expected whole numbers from 0 with commas, such as "
            "0,1,2"
        )
    _refuse_repeated("--seeds", numbers)
    return numbers


@app.command(name="list")
def list_(
    what: Annotated[Listed, typer.Argument(help="What to list.")] = Listed.strategies,
) -> None:
    """List strategies, benchmarks, datasets, backbones, metrics or experiments."""
    table = Table(box=None, pad_edge=False)
    table.add_column(what.value)
    if what is Listed.datasets:
        from avalanche_ad.datasets import DATASETS

        for name in DATASETS:
            table.add_row(name)
    elif what is Listed.backbones:
        from avalanche_ad.features import backbone_names

        for name in backbone_names():
            table.add_row(name)
    elif what is Listed.metrics:
        from avalanche_ad.evaluation.registry import METRICS

        table.add_column("from")
        for name in METRICS.names():
            table.add_row(name, METRICS.origin(name))
    elif what is Listed.experiments:
        from avalanche_ad.experiments.studies import STUDIES

        table.add_column("what it asks")
        for name, question in STUDIES.items():
            table.add_row(name, question)
    else:
        from avalanche_ad.recipes.recipe import list_recipes, read_toml

        table.add_column("what it is")
        for name, path in list_recipes(what.value).items():
            content = read_toml(path)
            table.add_row(name, content.get("summary") or content.get("title", ""))
    _print_table(table)


@app.command()
def check(
    benchmark: Benchmark = "synthetic_5x3",
    data: Data = None,
) -> None:
    """Validate a data set on disk: list every problem of it, or say what is there."""
    from avalanche_ad.datasets import check_dataset
    from avalanche_ad.recipes.recipe import load_experiment

    loaded = load_experiment(benchmark, "naive")
    recipe = loaded.benchmark
    if data is not None and recipe.dataset == "synthetic":
        raise RecipeError(
            f"--data {data} cannot be checked, since {loaded.benchmark_name} draws its "
            "own images: name the benchmark of your data with -b, such as -b mvtec_5x3"
        )
    from avalanche_ad.experiments.progress import RunProgress

    with RunProgress(_err) as progress:
        problems = check_dataset(
            recipe.dataset,
            data,
            recipe.selection,
            lambda done, total: progress.report("checking", done, total),
        )
    for problem in problems:
        typer.echo(_one_line(f"{problem.severity}: {problem}"))

    errors = sum(problem.severity == "error" for problem in problems)
    notes = len(problems) - errors
    if not errors:
        from avalanche_ad.experiments.build import open_data

        found = open_data(recipe, data)
        train = sum(sample.split == "train" for sample in found.samples)
        _err.print(
            f"{loaded.benchmark_name}: {counted(len(found.categories), 'category')}, "
            f"{train} training and {counted(len(found.samples) - train, 'test image')} "
            f"{'drawn' if data is None else f'in {data}'}",
            soft_wrap=True,
        )
    _err.print(f"{counted(errors, 'error')}, {counted(notes, 'note')}")
    if errors:
        raise typer.Exit(2)


@app.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    size: Annotated[int, typer.Option(help="Edge of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    categories: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Some categories, with commas."),
    ] = None,
) -> None:
    """Write the procedural data set to disk in MVTec AD's layout."""
    from avalanche_ad.datasets import SyntheticAD, write_mvtec_layout
    from avalanche_ad.experiments.progress import RunProgress

    chosen = [name.strip() for name in categories.split(",")] if categories else None
    made = SyntheticAD(size=size, seed=seed, categories=chosen)
    with RunProgress(_err) as progress:
        write_mvtec_layout(
            made, folder, lambda done, total: progress.report("writing", done, total)
        )
    _err.print(f"{counted(len(made.samples), 'image')} in {folder}", soft_wrap=True)


@app.command()
def cache(
    action: Annotated[str, typer.Argument(help="list or clear")] = "list",
    folder: CacheFolder = None,
    key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Clear this entry alone; its first letters will do."),
    ] = None,
) -> None:
    """List the feature cache with its sizes, or clear it."""
    store = _cache(folder)
    if action == "clear":
        freed = store.clear(None if key is None else [_full_key(store, key)])
        _err.print(f"{freed / 1e6:.1f} MB freed in {store.root}", soft_wrap=True)
        return
    if action != "list":
        raise RecipeError(f"cache {action!r}: expected list or clear")
    from datetime import datetime

    table = Table(box=None, pad_edge=False)
    for heading in ("key", "backbone", "data set", "images", "MB", "last used"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    entries = store.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            entry.key[:12],
            entry.backbone,
            entry.dataset,
            str(entry.images),
            f"{entry.bytes / 1e6:.1f}",
            used,
        )
    if entries:
        _print_table(table)
    total = sum(entry.bytes for entry in entries) / 1e6
    _err.print(
        f"{counted(len(entries), 'entry')}, {total:.1f} MB in {store.root}",
        soft_wrap=True,
    )


@app.command()
def predict(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the heat maps [RUN/predictions]."),
    ] = None,
    heat_maps: Annotated[
        bool, typer.Option("--heat-maps/--no-heat-maps", help="Write PNGs.")
    ] = True,
    threshold: Annotated[
        str,
        typer.Option(
            help="quantile (0.95 of new normals below), f1max (on the test split), "
            "another quantile as 0.99, or a score as 12.3 or score:0.5."
        ),
    ] = "quantile",
    device: Device = "auto",
) -> None:
    """Score images: a JSON line an image, and heat maps over the images.

    An image that cannot be read has a line that says so; the exit code is then 1.
    """
    from avalanche_ad.experiments.prediction import (
        Threshold,
        find_images,
        predict_images,
    )

    chosen = Threshold.parse(threshold)
    files = find_images(images)
    from avalanche_ad.experiments.device import pick_device

    folder = (out or run_folder / "predictions") if heat_maps else None
    failed = False
    for line in predict_images(
        run_folder,
        files,
        heat_maps=folder,
        threshold=chosen,
        device=pick_device(device),
    ):
        failed = failed or "error" in line
        try:
            typer.echo(json.dumps(line))
        except BrokenPipeError:
            # whoever reads has had enough; nothing is to be flushed at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_BROKEN_PIPE) from None
    if failed:
        raise typer.Exit(1)


@app.command()
def calibrate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="New normal images of any of its categories, or folders."),
    ],
    device: Device = "auto",
) -> None:
    """Take the thresholds of a run anew, from normal images it has never seen."""
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.fresh_normals import calibrate_run
    from avalanche_ad.experiments.prediction import find_images

    files = find_images(images)
    rows, unread = calibrate_run(run_folder, files, device=pick_device(device))
    table = Table(box=None, pad_edge=False)
    for heading in ("category", "images", "above before", "threshold", "false alarms"):
        table.add_column(heading, justify="left" if heading == "category" else "right")
    for row in rows:
        alarms, above = row.alarms, row.above_before
        table.add_row(
            row.category,
            str(alarms.images),
            "–" if above is None else f"{above:.0%}",
            f"{row.after:.4g}" if row.taken else "as before",
            f"{alarms.expected:.1%} [{alarms.low:.1%}, {alarms.high:.1%}]"
            if row.taken
            else "too few images",
        )
    _print_table(table)
    for line in unread:
        _tell(line)
    if unread:
        raise typer.Exit(1)


def _cache(folder: Path | None) -> FeatureCache:
    from avalanche_ad.features import FeatureCache

    return FeatureCache(folder)


def _limit_threads(threads: int) -> None:
    """Hold libraries to the threads that torch may use; before they are imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _full_key(store: FeatureCache, start: str) -> str:
    """Return the only key that begins so, or what was given."""
    keys = [entry.key for entry in store.entries() if entry.key.startswith(start)]
    return keys[0] if len(keys) == 1 else start


def _used(data: Path | None, recipe: ExperimentRecipe) -> Path | None:
    """Return the folder of the data set, none for images that are drawn."""
    if data is None or recipe.benchmark.dataset != "synthetic":
        return data
    _err.print(
        f"note: {recipe.benchmark_name} draws its own images and does not read --data "
        f"{data}",
        soft_wrap=True,
    )
    return None


def _refuse_repeated(option: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise RecipeError(f"{option}: {value} is given twice")


def _print_table(table: Table) -> None:
    # in a file or a pipe there is no edge that a table would have to fit in
    wide = Console(width=160, markup=False, highlight=False)
    (_out if _out.is_terminal else wide).print(table)


class _LineHandler(logging.Handler):
    """Print what the package logs as lines, like its warnings; each line once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        kind = "note" if hasattr(record, "note") else "warning"
        line = _one_line(f"{kind}: {record.getMessage()}")
        if line not in self.told:  # every run of a comparison opens the same data
            self.told.add(line)
            _err.print(line, soft_wrap=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the source it came from."""
    if issubclass(category, DeprecationWarning):
        return  # meant for programmers; Avalanche insists on showing its own
    _err.print(f"warning: {message}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a person's mistake is one line and exit code 2.

    :param arguments: instead of the process's own.
    :raises SystemExit: always, with the exit code.
    """
    # Threads that spin while they wait make a run on a busy machine many times slower;
    # read when torch is first imported, inside the commands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # one switch wherever it stands, before the command or after
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    if debug:
        raise SystemExit(app(given, prog_name="avalanche-ad", standalone_mode=False))
    log, handler = logging.getLogger("avalanche_ad"), _LineHandler()
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            # what libraries say to programmers
            warnings.filterwarnings("ignore", module=r"(avalanche|torch|timm)\b")
            warnings.showwarning = _show_warning
            raise SystemExit(_run(given))
    finally:
        log.removeHandler(handler)


def _run(arguments: list[str]) -> int:
    """Return the exit code of a command, its error told in one line."""
    try:
        code = app(arguments, prog_name="avalanche-ad", standalone_mode=False)
    except AvalancheADError as error:
        _tell(str(error))
        return 2
    except _UsageError as error:
        _tell(f"{error.format_message()} (avalanche-ad --help lists what there is)")
        return 2
    except MemoryError as error:
        _tell(f"memory ran out ({error or 'no more is known'}): take smaller sizes")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        resumes = arguments[0] in ("run", "compare")
        after = "; the same command resumes from its last checkpoint, if it has one"
        _err.print("interrupted" + (after if resumes else ""))
    return code if isinstance(code, int) else 0


def _tell(message: str) -> None:
    _err.print(f"error: {_one_line(message)}", style="red", soft_wrap=True)


def _one_line(message: str) -> str:
    """Join lines: names of files may hold any character, and what is no text."""
    line = " ".join(part.strip() for part in message.splitlines())
    return line.encode(errors="backslashreplace").decode()


if __name__ == "__main__":
    main()
