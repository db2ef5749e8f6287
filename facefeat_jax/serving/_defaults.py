"""What a server allows where nothing else is given; the command shows it without the packages of the extra `serve`."""

BATCH_SIZE = 16
"""Pictures that are computed together at most."""

QUEUE = 128
"""Pictures that may be in work or waiting."""

MAX_UPLOAD_MIB = 32
"""Largest request."""
