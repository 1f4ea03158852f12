"""From runs to files: report.html, which needs nothing beside it, summary.csv, and the plots as PNG and SVG."""

import base64
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from vae.measure.catalogue import CATALOGUE
from vae.measure.verdict import DEAD, VERDICTS
from vae.report import coding, cures, dimensions, over_time, phase, points
from vae.report.drawing import spread
from vae.report.runs import Run
from vae.runtime import commands, files
from vae.runtime import directory as names

COLUMNS = {
    **{name: CATALOGUE[name].title for name in ("mse", "kld")},
    "kl_weight": "KL weight",
    **{
        name: CATALOGUE[name].title
        for name in (
            "active_units",
            "mutual_information",
            "swap_gap",
            "predicted_active_units",
            "elbo",
        )
    },
    "seconds": "seconds",
}
log = logging.getLogger(__name__)

Draw = Callable[[Sequence[Run]], Figure | None]
CHARTS: dict[str, tuple[str, str, Draw]] = {  # heading, caption
    "curves": ("While they trained", "Means over the last few training batches.", over_time.curves),
    "bands": ("The latent space", "Minimum, mean and maximum over all test images and dimensions.", over_time.bands),
    "information": (
        "Does the code carry anything?",
        "On the whole test split, at every evaluation.",
        over_time.information,
    ),
    "rate_distortion": (
        "What a code costs and what it buys",
        "Each point a run, coloured by its verdict.",
        points.rate_distortion,
    ),
    "prediction": (
        "Predicted and measured",
        "What a linear VAE would keep at the KL weight that the run has reached.",
        points.prediction,
    ),
    "boundary": ("Where the code goes out", "Over the KL weight, beside the closed form.", points.boundary),
    "cures": ("Which cure helps which cause?", "The runs of each cure that live; empty: refused.", cures.matrix),
    "phase": ("Where it collapses", "Over the two settings that were swept; each cell over its seeds.", phase.diagram),
    "collapse_fraction": ("How often it collapses", "Runs that differ in their seed alone.", points.collapse_fraction),
    "heatmaps": ("Which dimensions live", "KL of each latent dimension, bright is much.", over_time.heatmaps),
    "kl_per_dimension": ("Where the nats are", "Mean KL over the images.", dimensions.kl_per_dimension),
    "spectrum": ("What the data offer", "A linear VAE keeps what lies above t.", dimensions.spectrum),
}
FILMS = 6  # at most, one of each kind of run first: they are what makes a page large
PATHS = ("run_name", "evaluate")  # in the config, but no setting of the training


@dataclass
class Row:
    """The runs that differ in their seed alone."""

    name: str
    runs: list[Run]
    cells: list[str]
    verdicts: list[str]
    collapsed: str


@dataclass
class Picture:
    key: str
    title: str
    caption: str
    source: str  # data: URL


def write(runs: Sequence[Run], output: Path, title: str, charts: Sequence[str] = tuple(CHARTS)) -> Path:
    """Write the report on `runs`, with these of CHARTS, into the directory `output`; the path of report.html."""
    output.mkdir(parents=True, exist_ok=True)
    table = summary(runs)
    files.replace(output / "summary.csv", table.to_csv(index=False).encode())
    of_cures = cures.table(runs)
    if not of_cures.empty:
        files.replace(output / "cures.csv", of_cures.to_csv(index=False).encode())
    pictures = [picture for key in charts if (picture := draw(key, runs, output)) is not None]
    loader = PackageLoader("vae.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("template.html").render(
        title=title,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        runs=runs,
        rows=rows(runs),
        columns=list(COLUMNS.values()),
        pictures=pictures,
        coding=coding.table(runs),
        cures={cause: cures.rows(of_cause) for cause, of_cause in cures.cells(runs).items()},
        cure_columns=cures.COLUMNS,
        follows=cures.what_follows(runs),
        coding_columns=list(coding.COLUMNS.values()),
        explained={run.name: explained(run) for run in runs},
        advice={run.name: commands.advised(run.record, run.directory) for run in runs},
        shown=[run for run in runs if run.images],
        images={run.name: {tag: data_url(png, "image/png") for tag, png in run.images.items()} for run in runs},
        films=films(runs),
        differences=differences(runs),
        every_measure={run.name: found for run in runs if (found := dimensions.measures(run))},
        commands={run.name: commands.run(run.overrides) for run in runs if "kl_per_dimension" not in run.record},
        versions=sorted({str(run.record["versions"]) for run in runs if "versions" in run.record}),
        datasets=sorted({str(run.record["dataset"]) for run in runs if "dataset" in run.record}),
        problems=[run for run in runs if run.problem],
        verdicts=VERDICTS,
    )
    report = output / names.REPORT
    files.replace(report, page.encode())
    return report


def draw(key: str, runs: Sequence[Run], output: Path) -> Picture | None:
    """The chart of this name as PNG and SVG in `output`, and for the page. None where it has nothing to show, or where
    what damaged runs hold cannot be drawn: that is said, and the other charts are there."""
    heading, caption, chart = CHARTS[key]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters that the font has not, of values that fill no axis
            figure = chart(runs)
            if figure is None:
                return None
            png, svg = rendered(figure, "png"), rendered(figure, "svg")
    except Exception as error:
        log.warning("report: %s not drawn (%s: %s)", key, type(error).__name__, error, exc_info=True)
        return None
    files.replace(output / f"{key}.png", png)
    files.replace(output / f"{key}.svg", svg)
    return Picture(key, heading, caption, data_url(png, "image/png"))


def films(runs: Sequence[Run]) -> dict[str, str]:
    """The films of a few runs, as data: URLs."""
    able = [run for run in runs if run.gif]
    return {run.name: data_url(run.gif, "image/gif") for run in spread(able, FILMS) if run.gif}


def heading(runs: Sequence[Run]) -> str:
    names = ", ".join(dict.fromkeys(run.group for run in runs))
    return f"Posterior collapse: {names if len(names) < 100 else f'{len(runs)} runs'}"


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run, in the order of the runs: its name and directory, the keys of result.json, what was wrong."""
    rows = [{"run": run.name, "directory": str(run.directory), **run.record, "problem": run.problem} for run in runs]
    return pd.DataFrame(rows)


def rows(runs: Sequence[Run]) -> list[Row]:
    """Runs that share all but their seed in one row: mean and standard deviation of each measure over the seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        setting = {key: value for key, value in run.config.items() if key not in ("seed", *PATHS)}
        groups.setdefault(repr((run.group, sorted(setting.items(), key=str))), []).append(run)
    table = []
    for members in groups.values():
        done = [run for run in members if "verdict" in run.record]
        dead = sum(run.record["verdict"] in DEAD for run in done)
        table.append(
            Row(
                name=members[0].name if len(members) == 1 else members[0].group,
                runs=members,
                cells=[
                    cell([run.number(key) for run in members]) + (one_step(members) if key == "mse" else "")
                    for key in COLUMNS
                ],
                verdicts=sorted({str(run.record["verdict"]) for run in done}),
                collapsed=f"{dead} of {len(done)}" if done else "",
            )
        )
    return table


def one_step(runs: Sequence[Run]) -> str:
    """Said of a squared error that is of each pixel predicted from those before it."""
    return " (one-step)" if runs and all(run.record.get("one_step") is True for run in runs) else ""


def cell(values: Sequence[float]) -> str:
    """Mean, and with more than one value the standard deviation (1 / (n - 1)), to four digits."""
    series = pd.Series(values, dtype=float).dropna()
    if series.empty:
        return ""
    mean = f"{series.mean():.4g}"
    return mean if len(series) == 1 else f"{mean} ± {series.std():.2g}"


def differences(runs: Sequence[Run]) -> pd.DataFrame:
    """The settings in which the runs differ, a column a run."""
    columns = {run.name: {key: str(value) for key, value in run.config.items()} for run in runs}
    table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    table = table.drop(index=[key for key in PATHS if key in table.index]).fillna("")
    return table[table.nunique(axis=1) > 1]


def explained(run: Run) -> str:
    """The verdict in words, or why there is none."""
    if "verdict" not in run.record:
        return run.problem or "no verdict"
    return str(run.record.get("explanation") or run.record.get("reason") or run.record["verdict"])


def rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "vae"}):  # ids inside an SVG would differ from one writing to the next
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
