import json

import pytest

from common.errors import UserError
from common.team import backup
from common.team.server import Settings, Team


@pytest.fixture
def made(tmp_path):
    """A folder as `backup` leaves one, with little in it."""
    folder = tmp_path / "2026-01-01T000000Z"
    (folder / "artifacts" / "1").mkdir(parents=True)
    (folder / "mlflow.dump").write_bytes(b"dump")
    (folder / "artifacts" / "1" / backup.MANIFEST).write_text("an artifact of that name")
    files = backup.digests(folder)
    (folder / backup.MANIFEST).write_text(json.dumps({"mlflow": "3", "files": files}))
    return folder


def test_a_whole_backup_passes(made):
    assert set(backup.check(made)["files"]) == {"mlflow.dump", f"artifacts/1/{backup.MANIFEST}"}


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "mlflow.dump").write_bytes(b"dumb"), "mlflow.dump differs"),
        (lambda folder: (folder / "mlflow.dump").unlink(), "mlflow.dump is missing"),
        (lambda folder: (folder / "artifacts/1" / backup.MANIFEST).unlink(), "is missing"),
        (lambda folder: (folder / backup.MANIFEST).unlink(), "is no backup"),
        (lambda folder: (folder / backup.MANIFEST).write_text("{"), "is no backup"),
    ],
)
def test_a_damaged_one_is_refused_before_anything_is_made(harm, reason, made, tmp_path):
    harm(made)
    with pytest.raises(UserError, match=reason):
        backup.restore(made, Team(tmp_path / "team"))
    assert not list(tmp_path.glob("team*"))


def test_a_backup_within_the_server_is_refused(tmp_path):
    team = Team(tmp_path / "team")
    team.folder.mkdir()
    team.save(Settings())
    with pytest.raises(UserError, match="choose a folder elsewhere"):
        backup.backup(team, team.artifacts)


def test_what_holds_files_is_not_restored_into(made, tmp_path):
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "mine").touch()
    with pytest.raises(UserError, match="is not empty"):
        backup.restore(made, Team(tmp_path / "team"))
