"""From runs to files: report.html, which needs nothing beside it, summary.csv, and the charts as PNG and SVG.

The page is a list of sections, in the order in which a reader needs them: SECTIONS. Each is a function that gives its
heading and what its template shows, or None where the runs have nothing for it."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vae.measure.verdict import DEAD, VERDICTS
from vae.report import coding, cures, dimensions, gallery, measures, over_time, phase, points, words
from vae.report.drawing import COLOURS, Chart, colour, drawn, on_disk, on_page, style
from vae.report.groups import Group, controlled, differences, things, together, varied
from vae.report.groups import words as verdict_words
from vae.report.runs import Run
from vae.runtime import commands, files
from vae.runtime import directory as names
from vae.runtime.terminal import with_progress

log = logging.getLogger(__name__)

MANY = 8  # groups; with more, what the sweep asks comes first, and single runs are folded away


@dataclass
class Section:
    """A part of the page. `template`: a file of templates/, filled with `values`."""

    key: str
    title: str
    template: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Story:
    """What the sections tell: the runs, in groups, and where the files go."""

    runs: Sequence[Run]
    groups: list[Group]
    output: Path

    @property
    def is_large(self) -> bool:
        return len(self.groups) > MANY

    @cached_property
    def columns(self) -> list[gallery.Column]:
        return gallery.columns(self.groups)


Tell = Callable[[Story], Section | None]


def problems(story: Story) -> Section | None:
    found = [run for run in story.runs if run.problem]
    return Section("problems", "Not all runs are complete", "problems.html", {"runs": found}) if found else None


def pictures(story: Story) -> Section | None:
    if not story.columns:
        return None
    with style():
        poster = gallery.poster(story.columns)
        if poster is not None:
            files.replace(story.output / "pictures.png", poster)
    base = controlled(story.groups)
    differ = {name: words.difference(thing) for name, thing in base[1].items()} if base else {}
    title = "What each run draws" if len(story.groups) > 1 else "What it draws"
    values = {"columns": story.columns, "differ": differ, "of": len(story.groups)}
    return Section("pictures", title, "pictures.html", values)


def findings(story: Story) -> Section | None:
    told = [group for group in story.groups if group.judged]
    if not told:
        return None
    return Section(
        "findings",
        "What was found",
        "findings.html",
        {
            "groups": told,
            "sentence": words.sentence,
            "why": words.why,
            "on_the_way": words.on_the_way,
            "advice": lambda run: commands.advised(run.record, run.directory),
            "folded": story.is_large,
        },
    )


def traversals(story: Story) -> Section | None:
    columns = [column for column in story.columns if column.traversal]
    title = "What each number of the code does"
    return Section("traversals", title, "traversals.html", {"columns": columns}) if columns else None


def table(story: Story) -> Section | None:
    shown = measures.columns(story.groups)
    if not shown:
        return None
    kinds = set(measures.likelihoods(story.groups))
    values = {"columns": shown, "rows": measures.rows(story.groups, shown), "likelihoods": len(kinds)}
    values |= {"most": measures.MAX_LIKELIHOODS, "seeds": len(story.runs) > len(story.groups)}
    return Section("measures", "The measures", "measures.html", values)


def cost(story: Story) -> Section | None:
    rows = coding.table(story.runs)
    values = {"rows": rows, "columns": list(coding.COLUMNS.values())}
    return Section("coding", "What an image costs to send", "coding.html", values) if rows else None


def by_cause(story: Story) -> Section | None:
    found = cures.cells(story.runs)
    if not found:
        return None
    files.replace(story.output / "cures.csv", cures.table(story.runs).to_csv(index=False).encode())
    tables = {cause: cures.rows(of_cause) for cause, of_cause in found.items()}
    values = {"tables": tables, "columns": list(cures.COLUMNS), "follows": cures.what_follows(story.runs)}
    return Section("cures-by-cause", "Each cure on each cause", "cures.html", values)


def every_measure(story: Story) -> Section | None:
    found = {run.name: rows for run in story.runs if (rows := dimensions.measures(run))}
    return Section("every", "Every measure", "every.html", {"tables": found}) if found else None


def settings(story: Story) -> Section | None:
    found = differences(story.runs)
    return None if found.empty else Section("differences", "In what the runs differ", "settings.html", {"table": found})


def again(story: Story) -> Section | None:
    """Nothing of models that were trained elsewhere."""
    ours = [run for run in story.runs if not dimensions.measures(run)]
    if not ours:
        return None
    return Section(
        "again",
        "To run it again",
        "again.html",
        {
            "commands": [commands.again(run.directory, run.overrides) for run in ours],
            "changed": {run.name: run.record["changes"] for run in ours if isinstance(run.record.get("changes"), list)},
            "versions": sorted({str(run.record["versions"]) for run in ours if "versions" in run.record}),
        },
    )


def charted(draw: Callable[[Sequence[Group]], Chart]) -> Tell:
    """The section of a chart. It is on the disk as PNG and SVG too. Where what damaged runs hold cannot be drawn, that
    is said, and the other sections are there."""

    def tell(story: Story) -> Section | None:
        try:
            with warnings.catch_warnings(), style():
                warnings.simplefilter("ignore")  # of letters that the font has not, of values that fill no axis
                chart = draw(story.groups)
                if not chart.panels:
                    return None
                drawings = [drawn(panel) for panel in chart.panels]
                as_png, as_svg = on_disk(chart, drawings, story.groups)
        except Exception as error:
            log.warning("report: %s not drawn (%s: %s)", draw.__name__, type(error).__name__, error, exc_info=True)
            return None
        files.replace(story.output / f"{chart.key}.png", as_png)
        files.replace(story.output / f"{chart.key}.svg", as_svg)
        legend = chart.legend if 1 < len(chart.legend) <= len(COLOURS) else []
        wide = max(panel.size[0] for panel in chart.panels)
        values = {
            "caption": chart.caption,
            "panels": [Markup(on_page(one)) for one in drawings],
            "legend": legend,
            "columns": chart.columns,
        }
        values["least"] = round(wide * 4.6)
        return Section(chart.key, chart.title, "chart.html", values)

    return tell


ANSWERS: tuple[Tell, ...] = (  # to what a sweep asks
    charted(cures.matrix),
    by_cause,
    charted(phase.diagram),
    charted(points.boundary),
    charted(points.fraction),
)
SECTIONS: tuple[Tell, ...] = (
    pictures,
    findings,
    charted(over_time.curves),
    *ANSWERS,
    table,
    charted(over_time.information),
    charted(over_time.latent),
    charted(points.codes),
    traversals,
    charted(over_time.dimensions),
    charted(dimensions.kl_per_dimension),
    charted(dimensions.spectrum),
    charted(points.rate_distortion),
    charted(points.prediction),
    cost,
    every_measure,
    settings,
    again,
)
LARGE: tuple[Tell, ...] = (*ANSWERS, table, *(tell for tell in SECTIONS if tell not in (*ANSWERS, table)))


def write(runs: Sequence[Run], output: Path, title: str) -> Path:
    """Write the report on `runs` into the directory `output`; the path of report.html."""
    output.mkdir(parents=True, exist_ok=True)
    story = Story(runs, together(runs), output)
    environment = Environment(
        loader=PackageLoader("vae.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "colour": lambda group: colour(group, story.groups),
        "words": verdict_words,
        "url": gallery.url,
    }
    tells = with_progress(LARGE if story.is_large else SECTIONS, "writing the report")
    told = [section for tell in tells if (section := tell(story)) is not None]
    incomplete = problems(story)  # found while the others were told
    if incomplete is not None:
        told.insert(0, incomplete)
    files.replace(output / "summary.csv", summary(runs).to_csv(index=False).encode())
    page = environment.get_template("page.html").render(
        title=title,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        runs=runs,
        datasets=sorted({str(run.record["dataset"]) for run in runs if "dataset" in run.record}),
        verdicts=VERDICTS,
        answer=answer(story.groups),
        comparison=comparison(story.groups),
        glossary=words.GLOSSARY,
        sections=[
            (section, Markup(environment.get_template(section.template).render(section=section, **section.values)))
            for section in told
        ],
        marks={
            f"mark-{group.index}": {"name": group.name, "fate": group.fate, "differs": _differs(group, story.groups)}
            for group in story.groups
        }
        | {
            f"mark-{group.index}-{i}": {
                "name": run.name,
                "fate": run.fate or "no verdict",
                "differs": "",
            }
            for group in story.groups
            for i, run in enumerate(group.runs)
        },
    )
    report = output / names.REPORT
    files.replace(report, page.encode(errors="backslashreplace"))
    return report


def answer(groups: Sequence[Group]) -> list[str]:
    """The question answered in a few sentences."""
    counts = measures.tally(groups)
    total = sum(counts.values())
    if total == 1:
        run = groups[0].runs[0]
        if not run.verdict:
            return []
        return [words.sentence(run), words.why(run) + (_to_try(run) if run.verdict in DEAD else "")]

    def counted(name: str, count: int) -> str:
        """How many runs fared so; of few groups, which."""
        of_it = ", ".join(group.name for group in groups if name in measures.tally([group]))
        return f"{count} {count_words(name, count)}{f' ({of_it})' if 1 < len(groups) <= MANY else ''}"

    said = [f"Of {total} runs {', '.join(counted(name, count) for name, count in counts.items())}."]
    dead = [group for group in groups if group.dead]
    if len(groups) <= MANY:
        said += [f"{group.name}: {group.fate}. {words.why(group.dead[0])}{_to_try(group.dead[0])}" for group in dead]
    else:
        had = [run for group in dead for run in group.dead if not words.has_no_code(run)]
        causes = Counter(str(run.record.get("cause")) for run in had)
        if causes:
            told = [
                f"in {count} {'run' if count == 1 else 'runs'} {words.CAUSES.get(cause, 'it cannot be told yet')}"
                for cause, count in causes.most_common()
            ]
            said.append(f"Why codes are not used, as predicted or tested: {'; '.join(told)}.")
    found = controlled(groups)
    if found is not None and found[0].dead:
        base, differ = found
        helped = [group.name for group in groups if group is not base and group.verdicts == ["alive"]]
        said += [f"What helped: {name}, which has {words.difference(differ[name])}, is alive." for name in helped]
    return said


def _to_try(run: Run) -> str:
    """The first piece of advice on a run; its command stands where the run's own reasons are."""
    tips = commands.advised(run.record, run.directory)
    if not tips:
        return ""
    why, command = tips[0]
    return f" To try: {why}{'; the command is below, under What was found' if command else ''}."


def count_words(verdict: str, count: int) -> str:
    """A verdict as what so many runs are."""
    verb = "is" if count == 1 else "are"
    told = {"collapsed": "collapsed", "failed": "failed", "partly collapsed": "collapsed in part"}
    told["deterministic"] = "is an autoencoder in effect" if count == 1 else "are autoencoders in effect"
    ignores = "has a decoder that ignores the code" if count == 1 else "have decoders that ignore the code"
    told["decoder ignores code"] = ignores
    told["cannot go together"] = "cannot go together"
    told["without a verdict"] = "has no verdict" if count == 1 else "have no verdict"
    return told.get(verdict, f"{verb} {verdict}")


def comparison(groups: Sequence[Group]) -> list[str]:
    """In what the groups differ, a line each; of a controlled comparison the one thing of each."""
    if len(groups) < 2:
        return []
    found = controlled(groups)
    if found is not None:
        base, differ = found
        first = f"Each run differs from {base.name} in one thing"
        return [f"{first}:", *(f"{name} has {words.difference(thing)}" for name, thing in differ.items())]
    lines = [
        f"{key}: {', '.join(values) if len(values) <= 12 else f'{len(values)} values, {values[0]} to {values[-1]}'}"
        for key, values in varied(groups).items()
    ]
    return ["The runs differ in:", *lines[:12], *(["and more: see the table of settings"] if len(lines) > 12 else [])]


def _differs(group: Group, groups: Sequence[Group]) -> str:
    found = things(group, groups[0]) if group is not groups[0] else []
    return ", ".join(f"{thing.key}={thing.value}" for thing in found[:4])


def heading(runs: Sequence[Run]) -> str:
    named = ", ".join(dict.fromkeys(run.group for run in runs))
    return f"Posterior collapse: {named if len(named) < 100 else f'{len(runs)} runs'}"


def _as_text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run, in the order of the runs: its name and directory, the keys of result.json, what was wrong."""
    rows = [{"run": run.name, "directory": str(run.directory), **run.record, "problem": run.problem} for run in runs]
    # A path may have bytes that are no text, which pandas would refuse.
    rows = [{key: _as_text(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]
    return pd.DataFrame(rows)
