"""Print the addresses of MLflow's pages with each task's runs, scores and costs, and save these views if they are missing."""

import sys

import _path  # noqa: F401

from common.cli import Parser, guarded


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--address", default="http://127.0.0.1:5000", help="address of the server (default: %(default)s)"
    )
    address = parser.parse_args().address.rstrip("/")
    from common.tracking import experiment_pages, store

    store.configure()
    with store.explained():
        lines = experiment_pages.links(address)
    print("\n".join(lines) or "The store holds no run yet; train first, for example: make lora")


if __name__ == "__main__":
    sys.exit(guarded(main))
