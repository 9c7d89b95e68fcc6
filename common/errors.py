"""The exceptions whose message is written for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: the message names the file or flag and the remedy; scripts print it without a traceback."""


class NotHere(UserError):
    """What stands against a run on this machine, now: a hub or a store that cannot be reached, a part that it lacks. Elsewhere,
    or later, the same run may be possible."""
