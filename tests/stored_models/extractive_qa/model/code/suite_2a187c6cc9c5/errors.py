"""The one exception whose message is written for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: the message names the file or flag and the remedy; scripts print it without a traceback."""
