"""What run.py calls: how a call of the program begins and ends, and what it can be asked to do."""
