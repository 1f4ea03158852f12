"""Which runs belong together, and in what they differ. A group is the runs that differ in their seed alone: only over
such runs is a fraction of collapses a chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from vae.measure.verdict import DEAD
from vae.report.runs import Run

# In a configuration, but nothing that is compared: these change no weight.
NO_SETTINGS = (
    *("seed", "run_name", "metric", "evaluate", "resume", "allow", "experiment", "sweep"),
    *(f"train.{name}" for name in ("log_every", "eval_every", "checkpoint_every", "threads", "device")),
)
PARTS = ("model", "objective", "anneal", "dataset", "cure")  # groups of settings that are chosen as a whole


@dataclass
class Group:
    index: int  # its colour
    name: str
    runs: list[Run]

    @property
    def judged(self) -> list[Run]:
        return [run for run in self.runs if run.verdict is not None]

    @property
    def conclusive(self) -> list[Run]:
        """Those of which it can be told whether their code is dead."""
        return [run for run in self.runs if run.is_conclusive]

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.failed]

    @property
    def dead(self) -> list[Run]:
        return [run for run in self.judged if run.verdict in DEAD]

    @property
    def verdicts(self) -> list[str]:
        """The most frequent one first; of two that are as frequent, the one that is met first."""
        found = [str(run.verdict) for run in self.judged]
        return sorted(dict.fromkeys(found), key=lambda name: -found.count(name))

    @property
    def shown(self) -> Run:
        """The run whose pictures stand for the group: the first with its most frequent verdict."""
        return next((run for run in self.judged if run.verdict == self.verdicts[0]), self.runs[0])

    @property
    def examples(self) -> list[Run]:
        """The first run of each verdict."""
        return [next(run for run in self.judged if run.verdict == verdict) for verdict in self.verdicts]

    def number(self, key: str) -> list[float]:
        return [run.number(key) for run in self.runs]

    def setting(self, key: str) -> str:
        return str(self.runs[0].config.get(key, ""))

    @property
    def fate(self) -> str:
        """Of how many seeds what became: "collapsed", or "2 of 3 collapsed, 1 failed"."""
        if all(run.refused is not None for run in self.runs):
            return "cannot go together"
        if len(self.runs) == 1:
            return self.runs[0].fate or "no verdict"
        parts = [
            f"{sum(run.verdict == name for run in self.judged)} of {len(self.runs)} {words(name)}"
            for name in self.verdicts
        ]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        missing = len(self.runs) - len(self.judged) - len(self.failed)
        if missing:
            parts.append(f"{missing} without a verdict")
        return ", ".join(parts)


def words(verdict: str) -> str:
    return verdict.replace("_", " ")


def together(runs: Sequence[Run]) -> list[Group]:
    """The groups, in the order of their first runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(repr((run.group, sorted(_settings(run).items(), key=str))), []).append(run)
    return [
        Group(i, members[0].name if len(members) == 1 else members[0].group, members)
        for i, members in enumerate(found.values())
    ]


def _settings(run: Run) -> dict[str, object]:
    """What may change the training."""
    others = ("evaluation", "pictures", "tracking", "use", "explain")
    return {
        key: value
        for key, value in run.config.items()
        if key not in NO_SETTINGS and key.partition(".")[0] not in others
    }


def differences(runs: Sequence[Run]) -> pd.DataFrame:
    """The settings in which the runs differ, a column a run."""
    columns = {run.name: {key: str(value) for key, value in run.config.items()} for run in runs}
    table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    silent = [key for key in table.index if key in ("run_name", "evaluate") or key.startswith("tracking.")]
    table = table.drop(index=silent).fillna("")
    return table[table.nunique(axis=1) > 1]


@dataclass
class Difference:
    """One thing in which a run differs from another: an option of a group, or a value."""

    key: str
    value: str
    instead: str


def things(group: Group, base: Group) -> list[Difference]:
    """In what `group` differs from `base`: a part that is another option counts once, whatever comes with it."""
    own, other = _settings(group.runs[0]), _settings(base.runs[0])
    changed = [key for key in {**own, **other} if str(own.get(key)) != str(other.get(key))]
    parts = [part for part in PARTS if {f"{part}.name", f"{part}.kind"} & set(changed)]
    return [
        *(Difference(part, str(own.get(f"{part}.name")), str(other.get(f"{part}.name"))) for part in parts),
        *(
            Difference(key, str(own.get(key)), str(other.get(key)))
            for key in changed
            if key.partition(".")[0] not in parts
        ),
    ]


def controlled(groups: Sequence[Group]) -> tuple[Group, dict[str, Difference]] | None:
    """The group from which each other one differs in one thing, and that thing by the others' names; None where there
    is no such group."""
    if not 2 <= len(groups) <= 8 or not all(group.runs[0].config for group in groups):
        return None
    for base in groups:
        found = {group.name: things(group, base) for group in groups if group is not base}
        if all(len(differ) == 1 for differ in found.values()):
            return base, {name: differ[0] for name, differ in found.items()}
    return None


def varied(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The settings that vary over the groups, each with its values in their order; an option instead of what it
    brings."""
    found: dict[str, dict[str, None]] = {}
    for group in groups[1:]:
        for thing in things(group, groups[0]):
            found.setdefault(thing.key, {thing.instead: None})[thing.value] = None
    return {key: list(values) for key, values in found.items()}
