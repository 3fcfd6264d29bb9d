"""The command line: parse, show every problem at once, then import and run the one command that was asked for.

Heavy imports happen inside the functions, so that `--help` and a wrong setting are answered at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import importing
from .contracts.errors import LOST, LostError, ToldError, UserError
from .contracts.files import as_path
from .contracts.names import COUNTED, COUNTS, LAYOUTS_FILE, LOSS, NUM_ITEMS, REFERENCES
from .contracts.settings import ParallelSettings, RunSettings
from .importing import check_loggers, explained, import_planning, import_room, quiet_unless
from .model import settings as model
from .model.settings import Settings
from .parsing import did_you_mean, parse, rename, saved_settings
from .runtime import launch, signals
from .runtime.lock import check_unlocked
from .saying import PROG, Parser, complain, in_words, say, to_paste
from .status import show
from .training.run_settings import check_command, check_same_sizes, check_writable, holds_run, is_resumed, is_run

STOPPED = 75
"""Exit code of a training that ended early, by a signal: EX_TEMPFAIL of sysexits.h, try again."""

INTERRUPTED = 130
"""Exit code after Ctrl-C where nothing was being trained yet, as shells have it."""


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the words after the program's name; None for those of this process.

    Returns:
        0; 2 for a mistake of the user's, which is one line on stderr; 1 for a check that found something; STOPPED or
        INTERRUPTED after a signal; LOST if another rank was.
    """
    importing.is_command = argv is None
    command, arguments = _split(sys.argv[1:] if argv is None else argv)
    try:
        return COMMANDS[command](arguments)
    except UserError as error:
        if not isinstance(error, ToldError):
            complain(str(error))
        return LOST if isinstance(error, LostError) else 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """Take the command off the arguments; answer `--help` and unknown commands."""
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {_first_line(function)}" for name, function in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} COMMAND [settings]",
        description="Train a Megatron-Core model with NeMo 2, on CPU or GPU.",
        epilog=f"commands:\n{listing}\n\n{PROG} COMMAND --help lists the settings of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if argv and argv[0] in COMMANDS:
        return argv[0], argv[1:]
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        sys.exit(0 if argv else 2)
    guess = did_you_mean(argv[0], list(COMMANDS))
    complain(f"there is no command {argv[0]}{guess}; the commands are: {', '.join(COMMANDS)}")
    sys.exit(2)


def pretrain(argv: list[str]) -> int:
    """Train a network from random weights."""
    return _train("pretrain", argv, Settings())


def finetune(argv: list[str]) -> int:
    """Train a network that starts from the weights of another run: --from RUN."""
    argv = rename(argv, "--from", "--from_run")
    given = _parse("finetune", argv, model.FINETUNE)
    if given.from_run is None:
        if given.foreign_start or is_resumed(given):  # which knows where it started
            return _train("finetune", argv, model.FINETUNE)
        others = "" if Settings.foreign_start is RunSettings.foreign_start else "; --help says which others it takes"
        raise UserError(f"finetune needs --from RUN, the folder of the run whose weights it starts from{others}")
    start = saved_settings(Path(given.from_run))
    taken = {name: getattr(start, name) for name in model.FROM_START}
    return _train("finetune", argv, replace(model.FINETUNE, **taken))


def evaluate(argv: list[str]) -> int:
    """Score a run on the whole test set: --from RUN."""
    settings = _settings_of_run("evaluate", argv)
    result = import_room("results.evaluate", settings).evaluate(settings)
    say(in_words(result))
    for name, figures in result[REFERENCES].items():
        say(f"{name}: {in_words(figures)}")
    counted = "" if result[COUNTED] == "items" else f" with {result[COUNTS][f'test_{LOSS}']:,} {result[COUNTED]}"
    say(f"over {result[NUM_ITEMS]:,} test items{counted}; written to {settings.run_dir}")
    if is_run(settings.run_dir):  # else there is no run to report on
        say(f"Next: {to_paste('report', '--from', settings.run_dir)}")
    return 0


def predict(argv: list[str]) -> int:
    """Predict the whole test set into predictions.csv: --from RUN."""
    settings = _settings_of_run("predict", argv)
    say(f"wrote {' and '.join(map(str, import_room('results.evaluate', settings).predict(settings)))}")
    return 0


def report(argv: list[str]) -> int:
    """Draw the pictures of a run into RUN/report/index.html: --from RUN."""
    parser = Parser(prog=f"{PROG} report", description=_first_line(report))
    parser.add_argument("--from", dest="run", type=as_path, metavar="RUN", help="folder of the run")
    if (run := parser.parse_args(argv).run) is None:
        raise UserError("report needs --from RUN, the folder of a trained run")
    check_writable(run)
    with explained():
        from .results.report import make_report
    say(f"wrote {make_report(run)}")
    return 0


def export(argv: list[str]) -> int:
    """Write the network of a run for plain PyTorch, as safetensors: --from RUN [--output DIR]."""
    parser = Parser(
        prog=f"{PROG} export",
        description=_first_line(export),
        epilog="The settings of evaluate may follow.",
        allow_abbrev=False,
    )
    parser.add_argument("--from", dest="run", metavar="RUN", help="folder of the run")
    parser.add_argument("--output", type=as_path, metavar="DIR", help="folder to write; default: RUN/export")
    given, others = parser.parse_known_args(argv)
    settings = _settings_of_run("export", [*(["--from", given.run] if given.run else []), *others])
    quiet_unless(settings.verbose)
    with explained():
        from .results.export import export_run
    say(f"wrote {export_run(settings, given.output)}")
    return 0


def status(argv: list[str]) -> int:
    """Say how a run is doing, or how it ended: --from RUN, or just RUN."""
    return show(argv, _first_line(status))


def layouts(argv: list[str]) -> int:
    """Train in every layout of up to --parallel.devices processes, and prove that all are the same training."""
    settings = _parse("layouts", argv, model.LAYOUTS)
    most = ParallelSettings(devices=settings.parallel.devices)
    if settings.parallel != most or settings.training.micro_batch_size is not None:
        raise UserError(
            "layouts splits the work in every way itself: of --parallel give devices only, the most processes, and no "
            "--training.micro_batch_size"
        )
    if most.devices < 1 or settings.resume:
        raise UserError("layouts needs at least one of --parallel.devices, and starts every run anew: no --resume")
    _checked(replace(settings, parallel=ParallelSettings()))  # the first layout: one process
    quiet_unless(settings.verbose)
    with explained():
        from .proof.layouts import prove
    result = prove(replace(settings, loggers="none"))
    largest = {name: result[f"max_{name}_diff"] for name in ("loss", "grad_norm", "weight")}
    figures = ", ".join(f"{name} {'unknown' if value is None else f'{value:.1e}'}" for name, value in largest.items())
    say(f"\n{len(result['layouts'])} layouts; largest differences: {figures}; wrote {LAYOUTS_FILE}")
    if not_tried := result["not_tried"]:
        say(f"NOT tried, and so not proved: {', '.join(not_tried)} parallel; what was left out above says why")
    if not result["holds"]:
        complain("layouts differ by more than the bounds above, which were measured with this command's own settings")
    return 0 if result["holds"] else 1


def plan(argv: list[str]) -> int:
    """Say what a layout needs, without its machines: who holds what, memory, steps. Nothing is started."""
    settings = _checked(_with_foreign_sizes("plan", argv, Settings(), _parse("plan", argv, Settings())))
    for line in import_planning(settings).plan_in_words(settings):
        say(line)
    return 0


def doctor(argv: list[str]) -> int:
    """Check versions and devices, and say what will run here."""
    parser = Parser(prog=f"{PROG} doctor", description=_first_line(doctor))
    parser.add_argument("--run_dir", type=as_path, metavar="DIR", default="runs", help="where runs are to lie")
    runs = parser.parse_args(argv).run_dir
    from .doctor import diagnose

    return diagnose(runs)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "pretrain": pretrain,
    "finetune": finetune,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "export": export,
    "status": status,
    "layouts": layouts,
    "plan": plan,
    "doctor": doctor,
}

SOURCES = dict.fromkeys(("evaluate", "predict"), "folder of the trained run") | {
    "finetune": "run whose best weights this one starts from; the same as --from_run"
}
"""What `--from` is, for the help."""


@signals.kept()  # while everything is imported, too
def _train(command: str, argv: list[str], defaults: Settings) -> int:
    settings = _parse(command, argv, defaults)
    if is_resumed(settings):  # and keeps what it is not told to change
        saved = saved_settings(Path(settings.run_dir))
        check_command(command, replace(saved, run_dir=settings.run_dir))
        settings = _parse(command, argv, saved)
    else:
        settings = _with_foreign_sizes(command, argv, defaults, settings)
    check_loggers(_checked(settings))
    if launch.launcher() == "nobody":  # else the ranks look when they have met
        if settings.parallel.num_nodes == 1:  # else another machine may be the first, and hold it already
            check_unlocked(Path(settings.run_dir))
        holds_run(settings)  # which raises, before the imports, what would be raised after them
    result = import_room("training.train", settings).train(settings)
    if result.has_stopped:
        resume = to_paste(command, "--run_dir", result.run_dir, "--resume", "true")
        say(f"stopped after step {result.steps} of {settings.training.max_steps}; go on with {resume}")
        return STOPPED if launch.is_first_rank() else 0  # another code would be a failure to who started this rank
    say(f"trained to step {result.steps} in {result.seconds:.0f} s; the run is in {result.run_dir}")
    or_finetune = f", or {to_paste('finetune', '--from', result.run_dir)}" if command == "pretrain" else ""
    say(f"Next: {to_paste('evaluate', '--from', result.run_dir, *settings.to_test)}{or_finetune}")
    return 0


def _with_foreign_sizes(command: str, argv: list[str], defaults: Settings, settings: Settings) -> Settings:
    """Return what was parsed, or, if it starts from what another program wrote, the same over what that brings."""
    if not settings.foreign_start:
        return settings
    taken = {name: value for name, value in settings.from_start().items() if name in model.FROM_START}
    return _parse(command, argv, replace(defaults, **taken))


def _parse(command: str, argv: list[str], defaults: Settings) -> Settings:
    settings = parse(argv, defaults, f"{PROG} {command}", _first_line(COMMANDS[command]), SOURCES.get(command, ""))
    if command != "predict":
        for name, mend in Settings.ONLY_PREDICT.items():
            if getattr(settings, name) != getattr(Settings(), name):
                raise UserError(f"--{name} is for predict only: {mend}")
    return settings


def _settings_of_run(command: str, argv: list[str]) -> Settings:
    """Return the settings of the run that --from names, with this command line's changes, in a layout of its own."""
    argv = rename(argv, "--from", "--run_dir")
    given = _parse(command, argv, replace(Settings(), run_dir=""))
    if given.foreign_start:
        return _settings_of_foreign(command, argv, given)
    if not given.run_dir:
        raise UserError(f"{command} needs --from RUN, the folder of a trained run")
    saved = saved_settings(Path(given.run_dir))
    for size in (saved.micro_batch_size, None):  # that of the run has fitted into memory; here it may not fit the batch
        training = replace(saved.training, micro_batch_size=size)
        own = replace(saved, run_dir=given.run_dir, parallel=ParallelSettings(), training=training)
        if not (settings := _parse(command, argv, own)).problems():
            break
    check_same_sizes(settings, saved)
    return _checked(settings)


def _settings_of_foreign(command: str, argv: list[str], given: Settings) -> Settings:
    """Return the settings of a network that another program trained; what is made of it goes to a folder of no run."""
    start = given.foreign_start
    if not given.run_dir:
        raise UserError(f"{command} needs --run_dir DIR, a folder for what it makes of {start}")
    if is_run(given.run_dir):
        raise UserError(f"{given.run_dir} holds a run: name another --run_dir for what {command} makes of {start}")
    return _checked(_parse(command, argv, replace(Settings(), **given.from_start())))


def _checked(settings: Settings) -> Settings:
    if problems := settings.problems():
        for problem in problems[:-1]:
            complain(problem)
        raise UserError(problems[-1])
    return settings


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "\n").splitlines()[0]  # python -OO has none
