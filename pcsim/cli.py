"""The command ``pcsim``: list, show, simulate, test, run, collect, report, check, data.

Nothing heavy is imported before a command needs it. What goes wrong is said in one message.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

__all__ = ["app", "main"]

app = typer.Typer(
    name="pcsim",
    help="Predictive coding, run as rate circuits and tested against cortex.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

data_app = typer.Typer(
    help="Data sets: what is known of them, and downloads.", no_args_is_help=True
)
app.add_typer(data_app, name="data")

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

Scale = Annotated[str, typer.Option(help="quick, full or, for some experiments, gpu.")]
Seeds = Annotated[int | None, typer.Option(help="Number of replicas; the scale's if not given.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting.")]
Workers = Annotated[int | None, typer.Option(help="Processes; one a core if not given.")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="A Dask cluster: local, local:N, tcp://HOST:PORT, slurm or slurm:FILE.toml."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.")]


@app.command("list")
def list_(
    room: Annotated[
        str | None, typer.Argument(help="circuits, analysis, experiments, models, stimuli or data.")
    ] = None,
) -> None:
    """What there is, a line each."""
    from pcsim import cli_show

    typer.echo(cli_show.listing(room))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of 'pcsim list', a label, or a file.")],
) -> None:
    """Equations, sources, parameters, and what is expected or claimed."""
    from pcsim import cli_show

    typer.echo(cli_show.page(name))


@app.command()
def simulate(
    circuit: Annotated[str, typer.Argument(help="Name, label, file, or folder of a saved model.")],
    stimulus: Annotated[str, typer.Option(help="A function of pcsim.stimuli, such as bars.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the responses, .nc or .zarr.")],
    set_: Set = None,
    seed: Annotated[int, typer.Option(help="Of training, stimulus and noise.")] = 0,
    repeats: Annotated[int, typer.Option(help="Show every trial so often, with new noise.")] = 1,
    train: Annotated[bool, typer.Option("--train", help="Train it first, as for a test.")] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw rates, potentials, spectra: .pdf, .png or .svg.")
    ] = None,
) -> None:
    """Show a stimulus to a circuit and save its responses; draw them.

    Circuits with layers also leave local field potentials, from the synaptic currents of their
    pyramids. --set changes a parameter of the circuit or of the stimulus; say circuit.NAME or
    stimulus.NAME where both have it.
    """
    from pcsim import cli_simulate

    text = cli_simulate.simulate(
        circuit,
        stimulus,
        out,
        settings=_pairs(set_),
        seed=seed,
        trained=train,
        figure=figure,
        repeats=repeats,
    )
    typer.echo(text)


@app.command("test")
def put_to_test(
    hypotheses: Annotated[list[str], typer.Argument(help="Names, ids such as H10, or files.")],
    model: Annotated[list[str], typer.Option(help="Label, name or file; repeat for several.")],
    scale: Scale = "quick",
    seeds: Seeds = None,
    out: Out = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Put models to hypotheses, beside their controls; print the verdicts.

    Trained models are kept in a cache folder (PCSIM_CACHE) or in --out, and used again.
    """
    from pcsim import cli_battery

    text = cli_battery.put_to_test(
        hypotheses,
        model,
        scale=scale,
        seeds=seeds,
        out=out,
        workers=_workers(workers),
        scheduler=scheduler,
    )
    typer.echo(text)


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="Name or file.")],
    scale: Scale = "quick",
    seeds: Seeds = None,
    set_: Set = None,
    out: Out = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    only: Annotated[
        str | None, typer.Option(help="Run no more than the pieces that fit, 'levels/1/*'.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Take finished pieces that fit, 'train/*', though sources were edited."),
    ] = None,
) -> None:
    """Run an experiment; run it again to go on after a stop."""
    from pcsim import catalog
    from pcsim.cli_settings import fitted
    from pcsim.experiment import run_experiment

    loaded = catalog.load("experiments", experiment)
    done = run_experiment(
        loaded,
        scale=scale,
        seeds=seeds,
        settings=fitted(_pairs(set_), loaded.scales.get(scale, {})),
        out=out,
        workers=_workers(workers),
        scheduler=scheduler,
        only=only,
        keep=keep or (),
    )
    if left := len(done.missing):
        typer.echo(f"{done.folder}: {left} of {len(done.pieces)} pieces are left for another time.")
    else:
        typer.echo(f"{done.folder}: verdicts, figures and provenance are there.")


@app.command()
def collect(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a run, whole unless the experiment gathers parts.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where tables go; the folder if not given.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="File of the experiment, if it is not one of pcsim's own.")
    ] = None,
) -> None:
    """Write the tables of a run from its saved pieces; nothing is run."""
    from pcsim import catalog
    from pcsim.experiment import collect_run, open_run

    opened = open_run(folder)
    loaded = catalog.load("experiments", experiment or opened.experiment)
    run = collect_run(loaded, opened, out)
    typer.echo(f"{run.folder}: tables of {len(run.pieces) - len(run.missing)} pieces are there.")


@app.command()
def jobscript(
    file: Annotated[Path, typer.Argument(help="Settings of Slurm, a TOML file.")],
) -> None:
    """Print the job script that --scheduler slurm:FILE submits; nothing is submitted."""
    from pcsim.scheduler_slurm import job_script

    typer.echo(job_script(str(file)))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File; report.html in the first run if not.")
    ] = None,
) -> None:
    """Write one self-contained page: verdict table, figures, provenance."""
    from pcsim.report import write_report

    target = out if out is not None else runs[0] / "report.html"
    write_report(runs, target)
    typer.echo(str(target))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A circuit, hypothesis or experiment.")],
) -> None:
    """Say whether a file of your own is lawful, and what to do if not."""
    from pcsim.contract import check_file

    broken = check_file(file)
    for line in broken:
        typer.echo(line, err=True)
    if broken:
        raise ValueError(f"check: found {len(broken)} broken laws in {file}, expected none.")
    typer.echo(f"{file}: lawful.")


@data_app.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names of 'pcsim list data'.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to take elsewhere as PCSIM_DATA; else the cache."),
    ] = None,
) -> None:
    """Download data sets; what has arrived is kept, and checked."""
    from pcsim import data

    for name in names:
        data.record(name)
    for name in names:
        typer.echo(f"{name}: {data.fetch(name, folder=out)}")


@data_app.command("show")
def show_data(
    name: Annotated[str, typer.Argument(help="A name of 'pcsim list data'.")],
) -> None:
    """Contents, licence, citation, sources with checksums, and where it is."""
    from pcsim import data

    typer.echo(data.describe(name))


def _pairs(given: list[str] | None) -> dict[str, object]:
    from pcsim.cli_settings import pairs

    return pairs(given or [])


def _workers(given: int | None) -> int:
    if given is not None:
        return given
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; an error is one message and exit code 2, without a traceback.

    Set PCSIM_TRACEBACK=1 to see where it came from.
    """
    # Before numpy is loaded: several processes with several threads each are slow.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(_exit_code(list(sys.argv[1:] if arguments is None else arguments)))


def _exit_code(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name="pcsim", standalone_mode=False)
        if code != INTERRUPTED:
            return code if isinstance(code, int) else 0
        raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        _say("stopped. What was finished is kept; run again to go on.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone: leave quietly, and keep Python from trying again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("PCSIM_TRACEBACK"):
            raise
        # Errors of the command line itself say what they mean by a method of their own.
        usage = getattr(error, "format_message", None)
        known = isinstance(error, ValueError | TypeError | RuntimeError | OSError)
        bug = f"{type(error).__name__}: {error}. This is a bug."
        _say(usage() if usage else str(error) if known else bug)
        return 2


def _say(message: str) -> None:
    print(f"pcsim: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
