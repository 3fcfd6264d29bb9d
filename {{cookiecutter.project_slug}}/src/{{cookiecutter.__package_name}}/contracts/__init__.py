"""What the rooms agree on. A page each says what a part of `model/` must give, why, and how it is checked.

    item.py      one piece of data, and what a dataset answers
    settings.py  what can be set, and the defaults of each command; settings_check.py holds a model's against it
    stage.py     what a stage of a network takes and gives
    start.py     how its weights start
    loss.py      what a loss gives: sums and counts
    config.py    the pairing of network, data, loss and results
    names.py     files of a run and names of figures
    errors.py, files.py   how a mistake is told, how a file is written whole
    reading.py   how a run's files are read by all who read them

What `model/figures.py` must give says `drawing/theme.py`, and what `model/plain.py` must, `results/export.py`.

`item.py`, `settings.py`, `settings_check.py`, `names.py`, `errors.py`, `files.py` and `reading.py` need no torch, so
that `--help` is answered at once.
"""
