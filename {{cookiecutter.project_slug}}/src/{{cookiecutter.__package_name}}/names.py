"""Names that rooms share through files: logged metrics, and what lies where in a run folder.

A writer and a reader that spell a name from here cannot drift apart. Standard library only, because the report and the
command line read these names on machines without torch.
"""

# Metrics: the columns of METRICS_FILE. NeMo logs some of them under names we cannot choose.
STEP = "step"  # finished optimizer steps, of every row; written by logs; read by report (the x axis)
TRAIN_LOSS = "reduced_train_loss"  # written by module; read by report
VAL_LOSS = "val_loss"  # written by module after each validation; read by report and the choice of the best checkpoint
TRAIN_ACCURACY = "train_accuracy"  # written by module; read by report
VAL_ACCURACY = "val_accuracy"  # written by module; read by report
GRAD_NORM = "grad_norm"  # written by the strategy, before clipping; read by report
LEARNING_RATE = "lr"  # written by NeMo's optimizer module; read by report

# Keys of EVALUATION_FILE.
TEST_LOSS = "test_loss"  # written by training.evaluate; read by report
TEST_ACCURACY = "test_accuracy"  # written by training.evaluate if there is a classifier; read by report
NUM_ITEMS = "num_items"  # written by training.evaluate: items behind the test figures; read by report

# Arrays in OUTPUTS_FILE, one row an item: IDX and LABEL always, IMAGE if items are pictures, the others as the network
# has them, and any other output of it under its own name.
IDX = "idx"  # [N] int64, the position in the split; written by training.evaluate; read by report
LABEL = "label"  # [N] int64; written by training.evaluate; read by report
IMAGE = "image"  # [N, height, width] uint8; written by training.evaluate; read by report
RECONSTRUCTION = "reconstruction"  # [N, height, width] uint8; written by training.evaluate; read by report
LATENT = "latent"  # [N, Z] float32; written by training.evaluate; read by report
TRUTH = "true_"  # begins the name of what an item itself says, [N]: a number of it beside the label; read by report
PROBABILITY = "probability"  # [N, classes] float32; written by training.evaluate; read by report

# Keys of SETTINGS_FILE that a reader other than settings.py needs.
FROM_RUN = "from_run"  # the run folder this one started from, or null; written by training; read by report

# Files and folders of a run.
SETTINGS_FILE = "settings.yaml"  # written by training; read by report, and by every command that takes up a run
METRICS_FILE = "metrics.csv"  # written by logs; read by report
EVALUATION_FILE = "evaluation.json"  # written by training.evaluate; read by report
OUTPUTS_FILE = "outputs.npz"  # written by training.evaluate; read by report
PREDICTIONS_FILE = "predictions.csv"  # written by training.predict; read by the user
TENSORBOARD_FOLDER = "tensorboard"  # written by Lightning's TensorBoardLogger; read by `tensorboard --logdir`
CHECKPOINTS_FOLDER = "checkpoints"  # written by NeMo's ModelCheckpoint; read by training
EXPORT_FOLDER = "export"  # written by export; read by the user
REPORT_FOLDER = "report"  # written by report; read by the user
REPORT_PAGE = "index.html"  # written by report into REPORT_FOLDER; read by the user's browser

# Files outside of a run.
LAYOUTS_FILE = "layouts.json"  # written by proof.layouts into the working folder; read by the user

# Keys of what a loss reduction returns for a global batch; the module logs them as <stage>_<name>.
LOSS = "loss"  # the mean loss, named so for Lightning; written by losses; read by module
ACCURACY = "accuracy"  # the share of right answers; written by losses; read by module
COUNT = "num_items"  # the items behind both, without padding; written by losses; read by module
