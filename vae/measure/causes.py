"""Why a code is dead, from what twins of the run have shown: the decision, its evidence and its sentences.

- The *kind start*: the KL weight stays near 0, then rises to the same. Alive with a lower loss: the optimiser was
  stuck. Dead as well, or no better: the objective asks for it.
- The *decoder without a code*: what log p(x|z) owes to z, against what z costs.
- Where the decoder predicts pixels from pixels: the *factorised decoder*, which sees none, with the same likelihood and
  KL weight. Alive, while the kind start is dead: the decoder does without the code. And the *code as a map*, where it
  was a bias of the channels, beside the same without a code: where that code is used and pays, the decoder needs a code
  that can say where, and a bias cannot.
- The *encoder trained on* with the decoder fixed, and q fitted to each image: what inference loses."""

from dataclasses import dataclass
from typing import Any

from vae.config.schema import Thresholds
from vae.measure.diagnostics import Paired
from vae.measure.verdict import DEAD, OPEN
from vae.measure.written import number, with_error

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
class OtherDecoder:
    """A twin with another decoder."""

    place: str
    changes: tuple[str, ...]  # as overrides
    verdict: str
    kld: float  # measured on test images, as the next one
    swap_gap: float
    pays: Paired | None  # how far its loss lies below that of what gets no code; None: not known


@dataclass(frozen=True)
class Comparison:
    """What was measured of a run and its twins; nats per image."""

    verdict: str  # of the run
    kl_weight: float  # at which all are compared
    steps: int  # of each twin
    images: int  # that losses are compared on
    loss: float  # of the run
    without_code: str  # where that twin is
    code_saves: Paired  # of log p(x|z), against what gets no code: the kind start's code, where there is one
    code_costs: float
    encoder_gains: Paired | None  # by training the encoder on; None: a point has no encoder of this kind
    inference_gap: Paired | None
    kind_start: KindStart | None  # None: the code is not dead
    factorised: OtherDecoder | None = None  # None: the decoder sees no pixels, or the code is not dead
    as_map: OtherDecoder | None = None  # None: the code is a map
    residual_eigenvalue: float | None = None  # the largest, of the decoder without a code: a code pays above kl_weight
    residual_kld: float | None = None  # what such a code would carry
    against_constant: bool = False  # code_saves: against one image for all, which does better than that twin

    def to_dict(self) -> dict[str, Any]:
        """Flat; each mean with its standard error beside it."""
        found: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, KindStart | OtherDecoder):
                found |= {name: value.place}
                found |= {f"{name}_{key}": item for key, item in vars(value).items() if key != "place"}
            else:
                found[name] = value
        for name, value in list(found.items()):
            if isinstance(value, Paired):
                found |= {name: value.mean, f"{name}_error": value.error}
            elif isinstance(value, tuple):
                found[name] = list(value)
        return found


def cause_of(found: Comparison) -> str | None:
    """Optimiser, objective or decoder; None where nothing is wrong, or it could not be told."""
    kind = found.kind_start
    if kind is None or kind.verdict in OPEN or not _reached(kind, found.kl_weight):
        return None
    if kind.verdict not in DEAD and kind.lower_by.mean > 3 * kind.lower_by.error:
        return "optimiser"
    # Something keeps the code small in the twin as well. Without a KL term, or with a code that is alive in part, that
    # may be the network.
    if found.kl_weight == 0 or found.verdict not in DEAD:
        return None
    if found.factorised is None:  # a decoder that sees no pixels draws one image without a code
        return "objective"
    if found.factorised.verdict in OPEN:
        return None
    return "objective" if found.factorised.verdict in DEAD else "decoder"


def would_use_a_map(found: Comparison, limits: Thresholds) -> bool:
    """Whether the same decoder uses a code that can say where, and it pays."""
    as_map = found.as_map
    if as_map is None or as_map.verdict in (*DEAD, *OPEN):
        return False
    return _pays(as_map, limits)


def _pays(other: OtherDecoder, limits: Thresholds) -> bool:
    pays = other.pays
    return pays is not None and pays.mean > max(3 * pays.error, limits.little_kld)


def sentences(found: Comparison, cause: str | None, limits: Thresholds) -> tuple[str, str, str]:
    """Which cause, on what evidence, which run to look at."""
    kind = found.kind_start
    whose = "Its code" if kind is None else "The kind start's code"
    saves = found.code_saves
    without = f"a decoder that gets none ({found.without_code})"
    bits = (
        f"{whose} saves {with_error(saves.mean, saves.error)} nats of log p(x|z) on training images, against "
        f"{f'one image for all, which does better than {without}' if found.against_constant else without}, and costs "
        f"{number(found.code_costs)}."
    )
    inferred = ""
    if found.encoder_gains is not None and found.inference_gap is not None:
        inferred = (
            f"Inference: training the encoder on, with the decoder fixed, gains {_amount(found.encoder_gains)}; "
            f"fitting q to each image by itself gains {_amount(found.inference_gap)}."
        )
    if kind is None:
        return f"The code is {found.verdict}, so no cause is sought.", bits, inferred
    return _told(found, kind, cause, limits), bits, f"{inferred} Look at {kind.place}.".strip()


def _reached(kind: KindStart, weight: float) -> bool:
    """A logistic curve comes no nearer than rounding to its end."""
    return kind.kl_weight >= REACHED * weight


def _told(found: Comparison, kind: KindStart, cause: str | None, limits: Thresholds) -> str:
    lower = kind.lower_by
    twin = f"twin with {kind.what}, at KL weight {kind.kl_weight:.3g} at its end, is {kind.verdict}"
    compared = (
        f"with a loss of {kind.loss:.2f} against {found.loss:.2f} nats, {with_error(abs(lower.mean), lower.error)} "
        f"{'lower' if lower.mean > 0 else 'higher'}"
    )
    if cause is not None:
        return f"Tested: the {cause}. A {twin}, {compared}.{_decoders(found, limits)}"
    blind = found.factorised
    if blind is not None and blind.verdict == "unfinished" and kind.verdict in DEAD:
        return f"Tested, cause not told: a {twin}, {compared}.{_decoders(found, limits)} Raise explain.steps."
    if not _reached(kind, found.kl_weight) or kind.verdict == "unfinished":
        return f"Tested, cause not told: a {twin} (the run had {found.kl_weight:.3g}); raise explain.steps."
    if kind.verdict == "undecided":
        return f"Tested, cause not told: a {twin}, {compared}; there are too few test images to tell."
    return f"Tested, cause not told: a {twin}, {compared}; the network itself may be what keeps the code small."


def _decoders(found: Comparison, limits: Thresholds) -> str:
    """What the twins with other decoders show."""
    factorised, as_map = found.factorised, found.as_map
    if factorised is None:
        return ""
    lives = factorised.verdict not in (*DEAD, *OPEN)
    said = [
        f"With a decoder that sees no pixels ({factorised.place}), the same likelihood and KL weight, the code is "
        f"{factorised.verdict}, with a KL of {number(factorised.kld)} nats"
        f"{_worth(factorised, 'that of a constant image')}: "
        + ("the objective does not ask for this." if lives else "the objective keeps it small.")
    ]
    if as_map is not None:
        told = (
            f"As a map ({as_map.place}), which can say where, the code is {as_map.verdict}, with a KL of "
            f"{number(as_map.kld)} nats{_worth(as_map, 'that of the best decoder without a code')}: "
        )
        if would_use_a_map(found, limits):
            meant = "this decoder would use a code, and cannot read one from a bias."
        elif as_map.verdict == "unfinished" or _pays(as_map, limits):
            meant = "more than such a code can buy, so these twins have not learnt alike; raise explain.steps."
        else:
            meant = "it is not the way in that shuts the code out; the decoder needs none."
        said.append(told + meant)
    elif lives:
        said.append("The code enters as a map, which could say where: the decoder needs none.")
    if found.residual_eigenvalue is not None and found.residual_kld is not None:
        said.append(
            "Predicted from what the decoder without a code leaves over: its largest eigenvalue is "
            f"{found.residual_eigenvalue:.3g} (1 for a decoder that is right; a small code pays above the KL weight), "
            f"so {number(found.residual_kld)} nats are to be had."
        )
    return " " + " ".join(said)


def _worth(other: OtherDecoder, than: str) -> str:
    if other.pays is None:
        return ""
    side = "below" if other.pays.mean > 0 else "above"
    return f", and the loss lies {with_error(abs(other.pays.mean), other.pays.error)} nats {side} {than}"


def _amount(found: Paired) -> str:
    if abs(found.mean) <= max(3 * found.error, 0.001):
        return "nothing that can be measured"
    return f"{with_error(found.mean, found.error)} nats"
