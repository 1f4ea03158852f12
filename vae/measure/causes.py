"""Why a code is dead, from what twins of the run have shown: the decision, its evidence and its sentences.

- The *kind start*: the KL weight stays near 0, then rises to the same. Alive with a lower loss: the optimiser was
  stuck. Dead as well, or no better: the objective asks for it.
- The *decoder without a code*: what log p(x|z) owes to z, against what z costs. Where such a decoder is far better than
  a constant image, and the kind start is dead, the decoder needs no code.
- The *encoder trained on* with the decoder fixed, and q fitted to each image: what inference loses."""

from dataclasses import dataclass
from typing import Any

from vae.config.schema import Thresholds
from vae.measure.diagnostics import Paired
from vae.measure.verdict import DEAD, number

REACHED = 0.999  # of a KL weight


@dataclass(frozen=True)
class KindStart:
    """A twin that differs from the run in its start alone."""

    place: str
    what: str  # how it started
    changes: tuple[str, ...]  # the same as overrides
    verdict: str
    kl_weight: float  # that it reached
    loss: float  # nats per image, at the run's KL weight, on the same training images
    lower_by: Paired  # than the run's


@dataclass(frozen=True)
class Comparison:
    """What was measured of a run and its twins; nats per image."""

    verdict: str  # of the run
    kl_weight: float  # at which all are compared
    steps: int  # of each twin
    images: int  # that losses are compared on
    loss: float  # of the run
    without_code: str  # where that twin is
    code_saves: Paired  # of log p(x|z), against that twin: the kind start's code, where there is one
    code_costs: float
    gain_without_code: Paired | None  # of that twin over a constant image; None: not known
    encoder_gains: Paired | None  # by training the encoder on; None: a point has no encoder of this kind
    inference_gap: Paired | None
    kind_start: KindStart | None  # None: the code is not dead

    def to_dict(self) -> dict[str, Any]:
        """Flat; each mean with its standard error beside it."""
        values = vars(self) | {"kind_start": None if self.kind_start is None else self.kind_start.place}
        if self.kind_start is not None:
            values |= {f"kind_start_{name}": value for name, value in vars(self.kind_start).items() if name != "place"}
        found: dict[str, Any] = {}
        for name, value in values.items():
            pair = {name: value.mean, f"{name}_error": value.error} if isinstance(value, Paired) else {name: value}
            found |= pair
        if self.kind_start is not None:
            found["kind_start_changes"] = list(self.kind_start.changes)
        return found


def cause_of(found: Comparison, limits: Thresholds) -> str | None:
    """Optimiser, objective or decoder; None where nothing is wrong, or it could not be told."""
    kind = found.kind_start
    if kind is None or kind.verdict == "unfinished" or not _reached(kind, found.kl_weight):
        return None
    if kind.verdict not in DEAD and kind.lower_by.mean > 3 * kind.lower_by.error:
        return "optimiser"
    # Something keeps the code small in the twin as well. Without a KL term, or with a code that is alive in part, that
    # may be the network.
    if found.kl_weight == 0 or found.verdict not in DEAD:
        return None
    gain = found.gain_without_code
    if gain is not None and gain.mean > max(3 * gain.error, limits.little_kld):
        return "decoder"
    return "objective"


def sentences(found: Comparison, cause: str | None) -> tuple[str, str, str]:
    """Which cause, on what evidence, which run to look at."""
    kind = found.kind_start
    whose = "Its code" if kind is None else "The kind start's code"
    saves = found.code_saves
    bits = (
        f"{whose} saves {number(saves.mean)} ± {saves.error:.2g} nats of log p(x|z) on training images, against a "
        f"decoder that gets none ({found.without_code}), and costs {number(found.code_costs)}."
    )
    inferred = ""
    if found.encoder_gains is not None and found.inference_gap is not None:
        inferred = (
            f"Inference: training the encoder on, with the decoder fixed, gains {_amount(found.encoder_gains)}; "
            f"fitting q to each image by itself gains {_amount(found.inference_gap)}."
        )
    if kind is None:
        return f"The code is {found.verdict}, so no cause is sought.", bits, inferred
    return _told(found, kind, cause), bits, f"{inferred} Look at {kind.place}.".strip()


def _reached(kind: KindStart, weight: float) -> bool:
    """A logistic curve comes no nearer than rounding to its end."""
    return kind.kl_weight >= REACHED * weight


def _told(found: Comparison, kind: KindStart, cause: str | None) -> str:
    lower = kind.lower_by
    twin = f"twin with {kind.what}, at KL weight {kind.kl_weight:.3g} at its end, is {kind.verdict}"
    compared = (
        f"with a loss of {kind.loss:.2f} against {found.loss:.2f} nats, {abs(lower.mean):.2g} ± {lower.error:.2g} "
        f"{'lower' if lower.mean > 0 else 'higher'}"
    )
    if cause is not None:
        return f"Tested: the {cause}. A {twin}, {compared}."
    if not _reached(kind, found.kl_weight) or kind.verdict == "unfinished":
        return f"Tested, and not told: a {twin} (the run had {found.kl_weight:.3g}); raise explain.steps."
    return f"Tested, and not told: a {twin}, {compared}; the network itself may be what keeps the code small."


def _amount(found: Paired) -> str:
    if abs(found.mean) <= max(3 * found.error, 0.001):
        return "nothing that can be measured"
    return f"{number(found.mean)} ± {found.error:.2g} nats"
