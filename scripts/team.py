"""A team's MLflow server: PostgreSQL, accounts, artifacts through the server, all in one folder (docs/TEAM.md).

up, down, status                        start the server, stop it, show its state
add-user, reset-password, remove-user   accounts; the server must be running
backup, restore                         copy the whole store while it runs; rebuild it in a fresh folder
upgrade                                 after the installation of a new MLflow
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser, guarded
from common.errors import UserError
from common.paths import ROOT

EXAMPLES = """examples:
  python scripts/team.py up
  python scripts/team.py add-user ann --role writer
  python scripts/team.py backup --to /backups
"""


def parser() -> Parser:
    whole = Parser(description=__doc__, epilog=EXAMPLES)
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.add_argument(
            "--folder",
            type=Path,
            default=ROOT / "team",
            metavar="DIR",
            help="folder for all data of the server (default: team in the project)",
        )
        return made

    _add_settings(command("up", "start the server; the first call creates it"))
    command("down", "stop the server and its database")
    command("status", "show what is running and where; the exit code is 3 unless everything runs")
    one = command("add-user", "create an account and print the settings for its owner")
    one.add_argument("name")
    one.add_argument(
        "--role",
        choices=("reader", "writer", "admin"),
        default="writer",
        help="reader: see everything; writer: also train, register and promote; admin: everything (default: writer)",
    )
    command("reset-password", "give an account a new password").add_argument("name")
    command("remove-user", "remove an account; its runs and models stay").add_argument("name")
    _add_target(command("backup", "copy the store; it may be in use"))
    one = command("restore", "create a server from a backup, in a fresh folder")
    one.add_argument("source", type=Path, metavar="BACKUP", help="a folder that `backup` wrote")
    _add_settings(one)
    _add_target(
        command("upgrade", "back up, then migrate the databases to the schema of the installed MLflow")
    )
    return whole


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--port",
        type=number(minimum=1, maximum=65535),
        help="port on this machine (default: as before, at first 5000)",
    )
    command.add_argument(
        "--allowed_host",
        action="append",
        metavar="NAME",
        dest="allowed_hosts",
        help="a name by which clients reach it through a proxy; may be repeated (default: as before, at first none)",
    )
    command.add_argument(
        "--workers", type=number(minimum=1), help="server processes (default: as before, at first 2)"
    )


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--to",
        type=Path,
        default=ROOT / "team-backups",
        metavar="DIR",
        help="folder for backups, each in a folder of its own (default: team-backups in the project)",
    )


def main() -> None:
    given = vars(parser().parse_args())
    name, folder = given.pop("command"), given.pop("folder")
    try:
        from common.team import commands
        from common.team.server import Team
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install -r requirements-team.txt") from None
    if name == "status":
        text, runs = commands.status(Team(folder))
        print(text)
        sys.exit(0 if runs else 3)
    print(getattr(commands, name.replace("-", "_"))(Team(folder), **given))


if __name__ == "__main__":
    sys.exit(guarded(main))
