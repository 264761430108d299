"""Errors that a user can mend, and warnings to heed."""


class BoneageError(Exception):
    """Bad input, told in one line that names the file or setting and the way out.

    The command line prints the message without a traceback and exits with status 2;
    ``--debug`` shows the traceback. Anything else that escapes a command is a bug.
    """


class BoneageWarning(UserWarning):
    """What a user should know though the work goes on; the command line prints it in one line."""


class Interrupted(KeyboardInterrupt):
    """Work that the user stopped; the message says what stands and how to go on."""
