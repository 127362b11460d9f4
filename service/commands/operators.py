"""Who runs a command beside the database."""

import getpass
import os
import socket

from service.domain.actors import Actor


def operator() -> Actor:
    """The user and the machine, as the audit log names them. A user without a name is a number, as in a container."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Actor.operator(user, socket.gethostname())
