"""What ends the program with one line for its user instead of a traceback."""


class InputError(Exception):
    """Something given to the program cannot be used. The message is the one line that its user reads:
    what was given, what is allowed, what to do."""


class Misfit(InputError):
    """Parts that are fine alone, and do not fit each other."""


class Inconsistent(InputError):
    """Values of one part that are fine alone, and do not fit each other."""


class RunFailed(InputError):
    """A run began and could not end well. What it had reached is saved."""


def one_line(error: BaseException) -> str:
    """What Hydra, OmegaConf or the system say in several lines, as one; with the full name of the key, if any."""
    text = f"{error}\n{error.__cause__ or ''}".split("Config search path")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    said = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    if keys and "missing mandatory value" in said.lower():
        return f"{keys[0]}: needs a value, as in {keys[0]}=..."
    return f"{keys[0]}: {said}" if keys and keys[0] not in said else said
