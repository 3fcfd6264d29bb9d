"""Names that rooms share through files: logged metrics, and what lies where in a run folder.

A writer and a reader that spell a name from here cannot drift apart. Standard library only, because the report and the
command line read these names on machines without torch.
"""

# The first name of every loss reduction, which is minimised, and the metrics made of it and of the run.
LOSS = "loss"  # named so for Lightning; written by training.module
STEP = "step"  # finished optimizer steps, of every row; written by training.logs; read by results (the x axis)
TRAIN_LOSS = "reduced_train_loss"  # NeMo's own name; written by training.module; read by results
VAL_LOSS = "val_loss"  # after each validation; read by results and by the choice of the best checkpoint
GRAD_NORM = "grad_norm"  # before clipping; written by training.module; read by results
LEARNING_RATE = "lr"  # written by training.module; read by results

# What the clock and the machine say of a training: never twice the same; written by training.speed; read by results.
PER_SECOND = "_per_second"  # ends the names of rates: of items, and of the pieces that a config names
ITEMS_PER_SECOND = f"items{PER_SECOND}"
MFU = "mfu"  # model FLOPs utilisation: the share of what the devices could compute, 0 to 1
MEMORY = "memory_gib"  # the most that the first rank has held: of its GPU, or of its process


def is_measured(name: str) -> bool:
    """Tell what the clock and the machine say from what the training does."""
    return name.endswith(PER_SECOND) or name in (MFU, MEMORY)


# Keys of EVALUATION_FILE, beside test_<name> of each figure and the STEP that was scored; written by results.evaluate,
# read with contracts.reading.
NUM_ITEMS = "num_items"  # items of the test set
COUNTS = "counts"  # figure -> what its mean is over, without padding
COUNTED = "counted"  # what the loss counts, in words: items, masked tokens
CHANGED = "changed"  # dotted name -> value, of settings that evaluate was given and the run itself has otherwise
REFERENCES = "references"  # name -> figure (without test_) -> value, of what the run is held against

# The array that OUTPUTS_FILE always has beside those that a config's `keep` names: one row an item in each.
IDX = "idx"  # [N] int64, the position in the test set; written by results.evaluate
NAME = "name"  # [N] text, after IDX in PREDICTIONS_FILE too; only of a dataset whose items have names

# Keys of SETTINGS_FILE that a reader other than contracts.settings needs.
FROM_RUN = "from_run"  # the run folder this one started from, or null; read by results.report

# Files and folders of a run.
SETTINGS_FILE = "settings.yaml"  # written by training; read by every command that takes up a run
METRICS_FILE = "metrics.csv"  # written by training.table; read with contracts.reading
EVALUATION_FILE = "evaluation.json"  # written by results.evaluate; read with contracts.reading
OUTPUTS_FILE = "outputs.npz"  # written by results.evaluate; read by results.report
PREDICTIONS_FILE = "predictions.csv"  # written by results.evaluate; read by the user
PREDICTED_ARRAYS_FILE = "predictions.npz"  # the same, of what has more than one number an item
TENSORBOARD_FOLDER = "tensorboard"  # written by Lightning's TensorBoardLogger; read by `tensorboard --logdir`
LOGGERS_FILE = "loggers.json"  # tool -> what it calls this run; written by runtime.loggers, read by it
CHECKPOINTS_FOLDER = "checkpoints"  # written by NeMo's ModelCheckpoint; read by training and results
EXPORT_FOLDER = "export"  # written by results.export; read by the user
WEIGHTS_FILE = "model.safetensors"  # in it; written by a config's `export`; read by model/plain.py
REPORT_FOLDER = "report"  # written by results.report; read by the user
REPORT_PAGE = "index.html"  # written by results.report into REPORT_FOLDER; read by the user's browser

# Files outside of a run.
LAYOUTS_FILE = "layouts.json"  # written by proof.layouts into the working folder; read by the user
