"""The kind of error that is the user's to mend."""


class UserError(Exception):
    """Something the user can put right: the text is one line, what is wrong and how to mend it.

    The command line prints it and exits with 2; every other exception is a defect and keeps its traceback.
    """


class ToldError(UserError):
    """A UserError of a run of many ranks, which one of them has already printed."""
