"""How the physical cores of a machine are shared. No torch."""


def share(workers: int) -> int:
    """The cores of each of so many workers on this machine, at least one."""
    from joblib import cpu_count  # a quarter of a second that only those wait for who ask

    return max(1, int(cpu_count(only_physical_cores=True)) // max(1, workers))
