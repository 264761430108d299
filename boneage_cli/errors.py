"""Errors that a user can mend."""


class BoneageError(Exception):
    """Bad input, told in one line that names the file or setting and the way out.

    The command line prints the message without a traceback and exits with status 2;
    ``--debug`` shows the traceback. Anything else that escapes a command is a bug.
    """


class Interrupted(KeyboardInterrupt):
    """Work that the user stopped; the message says what stands and how to go on."""
