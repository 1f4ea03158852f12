"""What a run may be told, checked. No torch, so that `--help` and `--cfg job` answer at once."""
