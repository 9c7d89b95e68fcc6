"""Open a page that asks registered models side by side: answers, their places, scores, latencies.

By default only this machine can open it. Without --models it shows the newest versions of bert-squad-qa, those with an
alias first. A model is loaded when it gets its first question.
"""

import logging
import socket
import sys
from pathlib import Path

import _path  # noqa: F401

from common.api_keys import Keys
from common.bounds import number
from common.cli import Parser, guarded
from common.errors import UserError


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="URI",
        default=[],
        help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/model",
    )
    parser.add_argument(
        "--port",
        type=number(minimum=0, maximum=65535),
        default=5002,
        help="port to listen on; 0: any free port (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than this machine's own let other people ask (default: %(default)s)",
    )
    parser.add_argument(
        "--host_names",
        nargs="+",
        metavar="NAME",
        default=[],
        help="other names under which the page is opened, if --host is not this machine's own",
    )
    parser.add_argument(
        "--api_keys",
        metavar="FILE",
        help="only who sends a key of this file may open the page and ask (docs/OPERATIONS.md)",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE.json",
        help="let readers correct answers, and keep what they correct in this file, which prepare_data.py reads",
    )
    args = parser.parse_args()
    keys = Keys(args.api_keys) if args.api_keys else None
    # Before the libraries are imported, because that takes seconds.
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host {args.host} --port {args.port} cannot be listened on ({error}); choose another."
        ) from None

    from common.page.corrections import Corrections

    corrections = Corrections(args.corrections) if args.corrections else None

    from common.page.catalogue import Catalogue
    from common.tracking import store

    store.configure()
    catalogue = Catalogue(args.models)
    for entry in catalogue.entries():
        print(f"  {entry.uri} {' '.join(entry.aliases)}")
    from common.page.app import create_app
    from common.page.guard import LOCAL

    name = f"[{args.host}]" if ":" in args.host else args.host
    app = create_app(catalogue, [*LOCAL, name, *args.host_names], keys=keys, corrections=corrections)

    from common.page.page_server import Server

    # One line for every request would hide the important ones.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    port = listening.getsockname()[1]
    server = Server(app, listening)
    print(f"http://{name}:{port} (Ctrl-C stops it)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(guarded(main))
