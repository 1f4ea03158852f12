"""Run directories on disk to a page that can be shared: `python -m vae.report DIR ... [--output DIR]`. Reads files
only, so it serves runs that were made elsewhere, and needs no torch."""
