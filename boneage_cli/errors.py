"""Exceptions for errors that users can fix, and the package's warning class."""


class BoneageError(Exception):
    """Invalid input; the one-line message names the file or setting and how to fix it.

    The command line prints the message without a traceback and exits with status 2;
    ``--debug`` shows the traceback. Any other exception that leaves a command is a bug.
    """


class BoneageWarning(UserWarning):
    """A problem that does not stop the work; the command line prints it in one line."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the work; the message says what was finished and how to resume."""
