"""A team's MLflow server: PostgreSQL, accounts, artifacts through the server, all in one folder (docs/TEAM.md).

up, down, status                        start, stop, look
add-user, reset-password, remove-user   accounts; the server must run
backup, restore                         the whole store, while it runs; into a fresh folder
upgrade                                 after a new MLflow was installed
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401

from common.bounds import number
from common.cli import Parser, guarded
from common.errors import UserError
from common.paths import ROOT


def main() -> None:
    args = parser().parse_args()
    try:
        from common.team.server import Team
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install -r requirements-team.txt") from None
    args.run(Team(args.folder), args)


def parser() -> Parser:
    whole = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(run, name: str, help: str) -> Parser:
        one = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        one.add_argument(
            "--folder",
            type=Path,
            default=ROOT / "team",
            metavar="DIR",
            help="where the server keeps everything (default: team in the project)",
        )
        one.set_defaults(run=run)
        return one

    def settings(one: Parser) -> None:
        one.add_argument(
            "--port",
            type=number(minimum=1, maximum=65535),
            help="where the server listens on this machine (default: as before; 5000)",
        )
        one.add_argument(
            "--allowed_host",
            action="append",
            metavar="NAME",
            help="a name by which clients address it through a proxy; may be repeated (default: as before; none)",
        )
        one.add_argument("--workers", type=number(minimum=1), help="server processes (default: as before; 2)")

    def backups(one: Parser) -> None:
        one.add_argument(
            "--to",
            type=Path,
            default=ROOT / "team-backups",
            metavar="DIR",
            help="where backups go, each into a folder of its own (default: team-backups in the project)",
        )

    settings(command(up, "up", "start the server; the first time, make it"))
    command(down, "down", "stop the server and its database")
    command(status, "status", "tell what runs, and where")
    one = command(add_user, "add-user", "make an account and print what its owner sets")
    one.add_argument("name")
    one.add_argument(
        "--role",
        choices=("reader", "writer", "admin"),
        default="writer",
        help="reader: see everything; writer: also train, register and promote; admin: everything (default: writer)",
    )
    command(reset_password, "reset-password", "give an account a new password").add_argument("name")
    command(remove_user, "remove-user", "remove an account; what it logged stays").add_argument("name")
    backups(command(back_up, "backup", "copy the store, which may be in use"))
    one = command(restore, "restore", "make a server from a backup, in a fresh folder")
    one.add_argument("backup", type=Path, metavar="BACKUP", help="a folder that backup made")
    settings(one)
    backups(command(upgrade, "upgrade", "back up, then bring the databases to the installed MLflow's schema"))
    return whole


def up(team, args) -> None:
    if args.port is not None and not 0 < args.port < 65536:
        raise UserError(f"--port {args.port}: it must lie between 1 and 65535.")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: it must be 1 or more.")
    started = team.up(port=args.port, allowed_hosts=args.allowed_host, workers=args.workers)
    print(f"{'Started' if started else 'Running already'}: {team.settings.address}, kept in {team.folder}")
    print(f"The administrator is admin; the password is admin_password in {team.folder / 'team.json'}")


def down(team, args) -> None:
    print("Stopped." if team.down() else "Nothing was running.")


def status(team, args) -> None:
    settings, server = team.settings, team.server
    print(f"{settings.address}, kept in {team.folder}")
    print(f"server: {f'runs, process {server.pid}' if server else 'stopped'}")
    runs = "runs" if team.database_runs else "stopped"
    print(f"database: PostgreSQL {team.postgres.version}, {runs}")
    size = sum(file.stat().st_size for file in team.artifacts.rglob("*") if file.is_file())
    print(f"artifacts: {size / 2**20:,.0f} MiB")
    sys.exit(0 if server and runs == "runs" else 3)


def add_user(team, args) -> None:
    from common.team import accounts

    tell(team, args.name, accounts.add(team, args.name, args.role))


def reset_password(team, args) -> None:
    from common.team import accounts

    tell(team, args.name, accounts.reset_password(team, args.name))


def remove_user(team, args) -> None:
    from common.team import accounts

    accounts.remove(team, args.name)
    print(f"Removed {args.name}.")


def tell(team, name: str, password: str) -> None:
    hosts = team.settings.allowed_hosts
    print(f"export MLFLOW_TRACKING_URI={f'https://{hosts[0]}' if hosts else team.settings.address}")
    print(f"export MLFLOW_TRACKING_USERNAME={name}")
    print(f"export MLFLOW_TRACKING_PASSWORD={password}")


def back_up(team, args) -> None:
    from common.team import backup

    print(backup.backup(team, args.to))


def restore(team, args) -> None:
    from importlib.metadata import version

    from common.team import backup

    wrote = backup.restore(
        args.backup, team, port=args.port, allowed_hosts=args.allowed_host, workers=args.workers
    )
    print(f"Restored into {team.folder}; start it with up.")
    if wrote != version("mlflow"):
        print(f"The backup is MLflow {wrote}'s, and {version('mlflow')} is installed: upgrade before up.")


def upgrade(team, args) -> None:
    from common.team import backup

    print(f"Backed up: {backup.upgrade(team, args.to)}")
    print("The databases are up to date; start the server with up.")


if __name__ == "__main__":
    sys.exit(guarded(main))
