"""Training: `train.py` puts a run together; read it first. `run_settings.py` alone needs no torch."""
