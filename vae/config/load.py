"""From what Hydra composes, or a run has saved, to one checked `RunConfig`, behind which no component sees a
DictConfig."""

import copy
import dataclasses
import difflib
import functools
import math
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from vae.config import legacy, schema
from vae.config.errors import Inconsistent, InputError, Misfit, one_line

GROUPS = {
    field.name: field.type
    for field in dataclasses.fields(schema.RunConfig)
    if isinstance(field.type, type) and issubclass(field.type, schema.Part)
}


PLACES = tuple(  # keys that say where data lie
    dict.fromkeys(
        f"dataset.{field.name}"
        for part in schema.kinds(schema.Dataset).values()
        for field in dataclasses.fields(part)
        if field.metadata.get("is_place")
    )
)
IMAGES = tuple(  # those that the images come from
    key for key in PLACES if key not in ("dataset.cache", "dataset.labels", "dataset.test_labels")
)
CONF = Path(__file__).parents[2] / "conf"
OPTION_GROUPS = tuple(path.name for path in CONF.iterdir() if path.is_dir()) if CONF.is_dir() else ()
OWN = (  # with _target_
    *("model.encoder", "model.decoder", "objective.likelihood"),
    *("anneal.schedule", "cure.rule", "dataset.data"),
)


def load(values: DictConfig | dict[str, Any]) -> schema.RunConfig:
    """The checked configuration of one run, from what this call was given. Raises InputError that names the key, the
    value and what is allowed."""
    given: dict[str, Any] = {}
    try:
        given = plain(values if isinstance(values, DictConfig) else OmegaConf.create(values))
        config = copy.deepcopy(_merged(pickle.dumps(given)))
    except ConfigKeyError as error:
        key = str(error.full_key)
        is_known = key in known_keys(schema.RunConfig)  # of another option, so set by an experiment, or with a +
        out = f"; {key}=0 '~{key}' leaves out what an experiment or a cause sets" if is_known else ""
        raise InputError(unknown_key(key) + out) from error
    except ValidationError as error:
        raise InputError(_of_another_type(error, given)) from error
    except (OmegaConfBaseException, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise InputError(one_line(error)) from error
    assert isinstance(config, schema.RunConfig)
    _check_fields(config, "")
    _check_together(config)
    return config


@functools.lru_cache(maxsize=8)  # OmegaConf takes long to merge, and a call asks several times for the same
def _merged(pickled: bytes) -> Any:
    """The dataclasses that `plain` values stand for."""
    given = pickle.loads(pickled)
    _check_groups(given)
    shape = _structured(schema.RunConfig).copy()
    for group, base in GROUPS.items():
        shape[group] = _shape(base, given.get(group), group)
    return OmegaConf.to_object(OmegaConf.unsafe_merge(shape, given))  # into `shape`, which nobody else has


def _check_groups(given: Mapping[str, Any], node: type = schema.RunConfig, path: str = "") -> None:
    """Raises InputError for a value where there should be a group of them."""
    for field in dataclasses.fields(node):
        of, key, value = field.type, path + field.name, given.get(field.name, {})
        if not isinstance(of, type) or not dataclasses.is_dataclass(of):
            continue
        if not isinstance(value, Mapping):
            raise InputError(no_group(key, value, known_keys(of, f"{key}.")))
        if not _is_part(of):
            _check_groups(value, of, f"{key}.")


def no_group(key: str, value: Any, below: Sequence[str]) -> str:
    """A line about a key that has others below it, and no value of its own."""
    example = f", as in {_as_typed(below[0])}=..." if below else ""
    return f"{_assigned(key, value)}: must be a group of settings, each by itself{example}"


def no_list(key: str, value: Any) -> str:
    return f"{_assigned(key, value)}: must be a list, as in [1,2]"


def _assigned(key: str, value: Any) -> str:
    return f"{key}={'null' if value is None else value}"


def keys_below(key: str) -> list[str]:
    return [name for name in known_keys(schema.RunConfig) if name.startswith(f"{key}.")]


WANTED = {  # types, by OmegaConf's names
    **{"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"},
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": ""},
}
WRONG_TYPE = re.compile(
    r"could not be converted to (\w+)|is not a valid (\w+)|Incompatible value 'None' for field of type '(\w+)'"
    r"|NoneType is not a subclass of (\w+)|Cannot convert '\w+' to (str)ing"
)
NULL = re.compile(r"field '([\w.]+)' is not Optional")


def _of_another_type(error: ValidationError, given: dict[str, Any], node: type = schema.RunConfig) -> str:
    """A line about a value that its key of `node` does not take, with what it takes."""
    null = NULL.search(str(error))
    key = str((null and null[1]) or error.full_key or "")
    if key and (null is not None or "is not a ListConfig" in str(error)):
        value = flat(given).get(key, getattr(error, "value", None))
        if get_origin(_field(key, given, node).type) is dict:  # of the user's own code
            return no_group(key, value, [f"{key}._target_"])
        return no_list(key, value)
    found = WRONG_TYPE.search(str(error))
    wanted = None if found is None else WANTED.get(next(filter(None, found.groups())))
    if wanted is None:
        return one_line(error)
    name = key.partition("[")[0]  # of a list, whose items count
    bounds = _field(name, given, node).metadata.get("allowed") if name in flat(given) else None
    value = flat(given).get(key, getattr(error, "value", ""))
    return f"{_assigned(key, value)}: must be {', '.join(filter(None, (wanted, bounds))) or 'a text'}"


def _field(key: str, given: dict[str, Any], node: type) -> dataclasses.Field[Any]:
    """The field of a key below `node`, in the kinds that were given."""
    *places, name = key.split(".")
    for place in places:
        given, kind = given[place], next(field.type for field in dataclasses.fields(node) if field.name == place)
        assert isinstance(kind, type)
        node = schema.kinds(kind)[given["kind"]] if _is_part(kind) else kind
    return next(field for field in dataclasses.fields(node) if field.name == name)


def measuring(**changes: Any) -> tuple[schema.Evaluation, schema.Pictures]:
    """How models are measured and drawn where no run says so: the values of conf/config.yaml, with `changes` to those
    of its evaluation. Raises InputError."""
    path = CONF / "config.yaml"
    _check_groups(changes, schema.Evaluation)
    try:
        values = OmegaConf.load(path)
        parts = (schema.Evaluation, OmegaConf.merge(values.evaluation, changes)), (schema.Pictures, values.pictures)
        evaluation, pictures = (
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(*part[:1]), part[1])) for part in parts
        )
    except OSError as error:
        raise InputError(
            f"{path}: not readable ({error.strerror}); install with pip install -e . from a clone"
        ) from error
    except ValidationError as error:
        raise InputError(_of_another_type(error, changes, schema.Evaluation)) from error
    except OmegaConfBaseException as error:
        raise InputError(one_line(error)) from error
    assert isinstance(evaluation, schema.Evaluation)
    assert isinstance(pictures, schema.Pictures)
    _check_fields(evaluation, "")
    return evaluation, pictures


@functools.cache
def cure(name: str) -> tuple[schema.Cure, Mapping[str, Any]]:
    """What conf/cure/<name>.yaml chooses: the cure with the values that stand there (no nested part, and nothing is
    computed), and the values of the model that it sets beside it."""
    given = OmegaConf.to_container(OmegaConf.load(CONF / "cure" / f"{name}.yaml"))
    assert isinstance(given, dict)
    own = given.get("cure", given)
    kind = schema.kinds(schema.Cure)[own["kind"]]
    values = {field.name: own[field.name] for field in dataclasses.fields(kind) if not _is_part(field.type)}
    found = kind(**values)
    assert isinstance(found, schema.Cure)
    return found, given.get("model", {})


def _shape(base: type[schema.Part], given: Any, key: str) -> DictConfig:
    """The dataclass that `given` says it is, with those of the parts in it. Raises InputError for a kind that `base`
    has not."""
    kind = given.get("kind") if isinstance(given, dict) else given
    known = schema.kinds(base)
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f"{key}.kind={kind}: must be one of {', '.join(known)}")
    part: type = known[kind]
    shape = _structured(part).copy()
    for field in dataclasses.fields(part):
        if _is_part(field.type):
            shape[field.name] = _shape(field.type, given.get(field.name), f"{key}.{field.name}")
    return shape


@functools.cache
def _structured(part: type) -> DictConfig:
    """The shape that a dataclass prescribes, to be copied, which is faster than making it."""
    shape: DictConfig = OmegaConf.structured(part)
    return shape


def _is_part(kind: Any) -> TypeGuard[type[schema.Part]]:
    return isinstance(kind, type) and issubclass(kind, schema.Part)


REFERENCE = re.compile(r"\$\{[\w.]+\}")  # to another value: the only interpolation that a saved configuration may have


def load_saved(values: Any, allow: Sequence[str], groups: Sequence[str] = tuple(GROUPS)) -> schema.RunConfig:
    """The checked configuration of a run that exists, from its checkpoint or its directory; also one that an earlier
    version has saved. What such a file names is not imported on its word: raises InputError where it wants a part
    from a module that is none of `allow` and below none of them; of `groups`, those whose parts will be made."""
    if not isinstance(values, dict):
        raise InputError("config: must be a dict")
    # Resolved here, before anything is looked at, and by references alone: a resolver could make a _target_ of a text.
    _refuse_interpolations(REFERENCE.sub("", text) for text in _texts(values))
    try:
        resolved = plain(OmegaConf.create(legacy.migrated(values)))
    except (OmegaConfBaseException, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise InputError(one_line(error)) from error
    _refuse_interpolations(_texts(resolved))
    check_allowed({group: resolved.get(group) for group in groups}, allow)
    return load({**resolved, "allow": None})  # that is for each call to say, not for a file


def check_allowed(values: Any, allow: Sequence[str]) -> None:
    """Raises InputError where nested values ask for code of the user's own from a module that is not allowed."""
    allow = [allow] if isinstance(allow, str) else allow
    for place, target in targets(values):
        module = str(target).rpartition(".")[0]
        if not is_below(module, allow):
            raise InputError(
                f"{place}: is {target}, code that did not come with this program; if you trust it, "
                f"allow={module or target} lets it be imported"
            )


def is_below(name: str, places: Iterable[str]) -> bool:
    """Whether a dotted name is one of these, or lies below one."""
    return any(name == place or name.startswith(place + ".") for place in places)


def _texts(values: Any) -> Iterator[str]:
    """All strings in nested values, keys too."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)


def _refuse_interpolations(texts: Iterable[str]) -> None:
    for text in texts:
        if "${" in text:
            raise InputError(f"config: {text!r} computes a value, which no saved configuration does")


BESIDE = {  # what goes with a file, and not with another one
    "dataset.train": ("dataset.labels", "dataset.key", "dataset.test", "dataset.test_labels"),
    "dataset.test": ("dataset.test_labels",),
}


def revise(
    before: schema.RunConfig,
    composed: DictConfig,
    keys: Sequence[str],
    allowed: Sequence[str],
    *,
    same_data: bool = False,
) -> schema.RunConfig:
    """A run's configuration with the `keys` of this call (groups or values) put in from `composed`; the places among
    them are those of this call's directory. The run's own option of dataset= brings these alone: how images are read
    stays the run's, but for what is given besides. `same_data`: a file that is named is the run's own in another place,
    and not one of other images, with which the run's labels and test images do not go. Raises InputError for a key that
    is none of `allowed` and below none of them."""
    for key in keys:
        if not is_below(key, allowed):
            may = f"; allowed: {', '.join(allowed)}" if allowed else ", nor can any other key here; leave it out"
            raise InputError(f"{key}: cannot be changed for a run that exists{may}")
    if "dataset" in keys and _is_own_option(before.dataset, composed.dataset):
        own = [f"dataset.{field.name}" for field in dataclasses.fields(before.dataset)]
        keys = [*(key for key in IMAGES if key in own), *(key for key in keys if key != "dataset")]
    config = OmegaConf.create(dataclasses.asdict(before))
    for beside in {beside for key in keys if not same_data for beside in BESIDE.get(key, ())}:
        if OmegaConf.select(config, beside) is not None:
            OmegaConf.update(config, beside, None)
    for key in keys:
        value = OmegaConf.select(composed, key)
        if key in PLACES and isinstance(value, str):
            value = str(at_home(value).absolute())
        OmegaConf.update(config, key, value, merge=False)
    return load(config)


def _is_own_option(before: schema.Dataset, composed: DictConfig) -> bool:
    """Whether a call chooses the dataset that the run has; a function of the user's own is all that there is of one."""
    is_same = (composed.kind, composed.name) == (before.kind, before.name)
    return is_same and not isinstance(before, schema.CustomDataset)


def with_values(
    config: schema.RunConfig, values: Mapping[str, Any], following: Mapping[str, str] | None = None
) -> schema.RunConfig:
    """The same with other values, by their full names, and with those `following` them; checked."""
    changed = OmegaConf.create(dataclasses.asdict(config))
    followed = {name: values[key] for name, key in (following or {}).items() if key in values}
    for key, value in {**values, **followed}.items():
        OmegaConf.update(changed, key, value, merge=False)
    return load(changed)


def references(config: schema.RunConfig, written: Any) -> dict[str, str]:
    """What `written`, the same configuration before its references were resolved, has as a reference to one other
    value: the names of both. Those that have come apart since are left out."""
    if isinstance(written, DictConfig):
        written = OmegaConf.to_container(written, resolve=False)
    values, found = flat(dataclasses.asdict(config)), {}
    for name, text in flat(written if isinstance(written, Mapping) else {}).items():
        key = text.strip()[2:-1] if isinstance(text, str) and REFERENCE.fullmatch(text.strip()) else None
        if name in values and key in values and values[name] == values[key]:
            found[name] = key
    return found


def at_home(path: str | Path) -> Path:
    """A path with ~ and ~user as a shell reads them; where nobody is meant they are part of a name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def located(config: schema.RunConfig, start: Path | None) -> schema.RunConfig:
    """The configuration of a run that was started in the directory `start`, whose data are found from any other: paths
    that were relative are those below `start`, where there is something."""
    if start is None:
        return config
    found = {}
    for field in dataclasses.fields(config.dataset):
        value = getattr(config.dataset, field.name)
        if field.metadata.get("is_place") and value is not None and (start / value).exists():
            found[field.name] = str(start / value)
    init = config.init
    if init is not None and (start / init).exists():
        init = str(start / init)
    return dataclasses.replace(config, init=init, dataset=dataclasses.replace(config.dataset, **found))


def targets(values: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each place in nested values that asks for code of the user's own, and what it asks for."""
    listed = isinstance(values, list | tuple)
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if listed else ()
    for key, value in items:
        if key == "_target_":
            yield place, value
        yield from targets(value, f"{place}.{key}".lstrip("."))


def modules(values: Any) -> list[str]:
    """The modules that the code of the user's own comes from which nested values ask for, each once."""
    return list(dict.fromkeys(str(target).rpartition(".")[0] for _, target in targets(values)))


def allowed_modules(config: schema.RunConfig) -> list[str]:
    """The modules that `allow=` names: one, or a list."""
    return [config.allow] if isinstance(config.allow, str) else list(config.allow or ())


def plain(config: DictConfig) -> dict[str, Any]:
    """Dicts, lists and values, with every reference resolved."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by their full names: {"train": {"lr": 1}} is {"train.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


PLUGINS = {"launcher": "hydra/launcher=joblib", "sweeper": "hydra/sweeper=optuna"}  # of Hydra, with an example of each


def unknown_key(key: str) -> str:
    """A line about a key that no configuration has, with the nearest one that there is."""
    if key in OPTION_GROUPS:
        return f"{key}: takes the name of an option; there are {', '.join(options_of(key))}"
    below = keys_below(key)
    if below:
        return f"{key}: has no such settings; it has {', '.join(name.removeprefix(f'{key}.') for name in below)}"
    part = next((spec for spec in OWN if key.startswith(spec + ".")), None)
    if part is not None:
        return f"{key}: {part} has no such argument yet; +{key}=... adds it"
    if key in known_keys(schema.RunConfig):
        group = key.partition(".")[0]
        if group not in GROUPS:  # all their options have all keys
            return f"{key}: was left out, by a ~ or an option of your own; +{key}=... adds it"
        having = ", ".join(f"{group}={option}" for option in _options_with(key))
        return f"{key}: the {group} that is chosen has no such key; it goes with {having}"
    for part, choice in PLUGINS.items():
        if key.startswith(f"hydra.{part}."):
            return f"{key}: the {part} that is chosen has no such key; choose one that has, as in {choice} {key}=..."
    near = nearest_keys(key)
    hint = f"did you mean {' or '.join(near)}?" if near else "all keys: python run.py --cfg job"
    return f"{key}: no such key; {hint}"


OTHER_NAMES = {  # of values, in other programs
    "epochs": "train.steps",
    "epoch": "train.steps",
    "max_steps": "train.steps",
    "iterations": "train.steps",
    "learning_rate": "train.lr",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "beta": "anneal.weight",
    "kl_weight": "anneal.weight",
    "weight_kl": "anneal.weight",
    "z_dim": "model.latent_dim",
    "latent_size": "model.latent_dim",
    "latents": "model.latent_dim",
    "sigma": "objective.sigma2",
    "variance": "objective.sigma2",
    "loss": "objective",
    "likelihood": "objective",
    "schedule": "anneal",
    "annealing": "anneal",
    "data": "dataset",
}


def nearest_keys(key: str) -> list[str]:
    """What may have been meant by a key that there is not: at most three keys or groups that there are."""
    known = [*GROUPS, "train", "experiment", "sweep", "explain", *map(_as_typed, known_keys(schema.RunConfig))]
    last = key.rpartition(".")[2]
    if last in OTHER_NAMES:
        return [OTHER_NAMES[last]]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    if close:
        return close
    paths = [path for name in known if last in (path := name.split("."))]  # its group is missing or another
    same = list(dict.fromkeys(".".join(path[: path.index(last) + 1]) for path in paths))
    if same:
        return same[:3]
    lasts = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.76)
    return [name for name in known if name.rpartition(".")[2] in lasts][:3]


def _as_typed(key: str) -> str:
    """What a finished run is used for goes without `use.` on the command line."""
    return key.removeprefix("use.")


def options_of(group: str) -> list[str]:
    """The names of a group's options in conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _options_with(key: str) -> list[str]:
    """The names of the options of its group that have a key."""
    group = key.partition(".")[0]
    own = {kind: known_keys(part, f"{group}.") for kind, part in schema.kinds(GROUPS[group]).items()}
    return [option for option in options_of(group) if key in own[str(kind_of(group, option_values(group, option)))]]


def option_values(group: str, option: str, places: Sequence[Path] = (CONF,)) -> dict[str, Any]:
    """What the file of an option says, in the first of these `places` that has it, on top of the options of its group
    that it begins with; empty where there is none. Raises what OmegaConf and YAML raise of a file that is none."""
    path = next((path for place in places if (path := place / group / f"{option}.yaml").is_file()), None)
    if path is None or not re.fullmatch(r"[\w-]+", option):
        return {}
    own: Any = OmegaConf.to_container(OmegaConf.load(path))
    bases = [base for base in own.get("defaults", ()) if isinstance(base, str) and base != "_self_"]
    layers = [layer for base in bases if (layer := option_values(group, base, places))]
    found: Any = OmegaConf.to_container(OmegaConf.merge(*layers, own))
    return {**found, "defaults": [item for layer in (*layers, own) for item in layer.get("defaults", ())]}


def kind_of(group: str, values: Mapping[str, Any]) -> Any:
    """The kind in what an option's file says, of its group alone, or of several."""
    return values.get(group, values).get("kind")


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    """A line about an option that a group does not have, with the nearest ones that it has."""
    near = [name for name in options if option in name] or difflib.get_close_matches(option, options, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(f'{group}={name}' for name in near[:3])}? " if near else ""
    return f"{group}={option}: no such option; {hint}there are {', '.join(options)}"


def without_value(word: str) -> str:
    """A line about a word that is no KEY=VALUE: a key, or the name of an option."""
    options = [f"{path.parent.name}={word}" for path in sorted(CONF.glob("*/*.yaml")) if path.stem == word]
    if options:
        return f"{word}: has no key before it; did you mean {' or '.join(options)}?"
    return f"{word}: needs a value; {' or '.join(f'{name}=...' for name in nearest_keys(word)) or 'KEY=VALUE'}"


def known_keys(node: type, path: str = "") -> list[str]:
    """The full names of all values that any option has."""
    keys: dict[str, None] = {}
    for field in dataclasses.fields(node):
        key = path + field.name
        if _is_part(field.type):
            for kind in schema.kinds(field.type).values():
                keys |= dict.fromkeys(known_keys(kind, key + "."))
        elif dataclasses.is_dataclass(field.type) and isinstance(field.type, type):
            keys |= dict.fromkeys(known_keys(field.type, key + "."))
        else:
            keys[key] = None
    return list(keys)


def _check_fields(node: Any, path: str) -> None:
    for field in dataclasses.fields(node):
        key, value = path + field.name, getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            _check_fields(value, key + ".")
            continue
        if isinstance(value, dict):  # the arguments of a custom part are its own business
            if not isinstance(value.get("_target_"), str):
                raise InputError(f"{key}: needs _target_, the place of its class or function, as in my_parts.Encoder")
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, list | dict):  # OmegaConf lets a list into a list of numbers
                raise InputError(f"{key}={value}: must be a list of single values")
            if isinstance(item, float) and not math.isfinite(item):
                raise InputError(f"{key}={item}: must be a finite number")
            if value is not None and "accepts" in field.metadata and not field.metadata["accepts"](item):
                raise InputError(f"{key}={item}: must be {field.metadata['allowed']}")
    if isinstance(node, schema.Part):
        try:
            node.check()
        except ValueError as error:
            raise Inconsistent(f"{path}{error}") from error


def _check_together(config: schema.RunConfig) -> None:
    """Parts that are fine alone and do not fit each other."""
    model, objective, anneal = config.model, config.objective, config.anneal
    bernoulli = isinstance(objective, schema.Bernoulli | schema.ContinuousBernoulli)
    refused = config.cure.refuses(config)
    if refused is not None:
        raise Misfit(f"cure={config.cure.name} with {refused}")
    misfit = model.misfit(objective)
    if misfit is not None:
        raise Misfit(misfit)
    if isinstance(model, schema.AutoencoderModel) and not isinstance(anneal, schema.NoKL):
        raise Misfit(
            f"anneal={anneal.name} with model={model.name}: the autoencoder has no KL term to weigh; leave anneal out, "
            "or take model=conv_vae"
        )
    if model.posterior == "dirac" and not isinstance(anneal, schema.NoKL):
        raise Misfit(
            f"model.posterior=dirac with anneal={anneal.name}: the KL term of a point is infinite; "
            "take anneal=no_kl or model.posterior=gaussian"
        )
    if bernoulli and model.output == "linear":
        raise Misfit(
            f"model.output=linear with objective={objective.name}: its outputs are logits; leave model.output out"
        )
    if isinstance(objective, schema.Categorical | schema.DiscretisedLogistic) and model.output is not None:
        raise Misfit(
            f"model.output={model.output} with objective={objective.name}: its outputs are no pixels; leave "
            "model.output out"
        )
    train = config.train
    if (train.lr_schedule == "steps") != bool(train.milestones):
        raise Misfit(
            f"train.lr_schedule={train.lr_schedule} with train.milestones={train.milestones}: steps needs milestones, "
            "and nothing else has them"
        )
    if train.centered and train.optimizer != "rmsprop":
        raise Misfit(f"train.centered=true with train.optimizer={train.optimizer}: only rmsprop can be centred")
    if isinstance(objective, schema.CustomObjective) and model.output is not None:
        raise Misfit(
            f"model.output={model.output} with objective={objective.name}: your likelihood says itself what the "
            "decoder's outputs mean; leave model.output out"
        )
    if isinstance(config.dataset, schema.Synthetic) and (bernoulli or model.output == "sigmoid"):
        raise Misfit(
            f"dataset={config.dataset.name} has pixels outside [0, 1]: take a Gaussian objective and "
            "model.output=linear"
        )
    allow = [config.allow] if isinstance(config.allow, str) else config.allow or []
    if not isinstance(allow, list) or not all(isinstance(name, str) and name.strip(".") for name in allow):
        raise InputError(f"allow={config.allow}: must be the name of a module, or a list of names")
    for verb, directory in config.verbs().items():
        if not directory.strip():
            raise InputError(f"{verb}=: names no directory; name that of a run")
    if config.init is not None and not config.init.strip():
        raise InputError("init=: names no directory; name that of a run")
    if allow and not config.verbs() and config.init is None:
        raise InputError(
            f"allow={config.allow}: goes with resume=, init=, evaluate= and their like; a new run imports what it names"
        )
    if len(config.use.between) != 2:
        raise InputError(f"between={config.use.between}: must be the places of two images, as in [0,1]")
    if config.explain.steps is not None and not config.explain.run:
        raise InputError(f"explain.steps={config.explain.steps}: goes with explain=DIR")
