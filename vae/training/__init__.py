"""The loop, and all that steers it."""
