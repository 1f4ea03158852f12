"""The machine beneath a run: files, terminal, signals, processes, random numbers, what cannot be trusted."""
