"""An exported folder becomes a repository of a hub: a server on this machine that speaks its protocol."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from common.api import export
from common.errors import UserError
from tests.scripts.conftest import run_script
from tests.support.exported import opened_here as opened_here
from tests.support.exported import saved

NAME = "acme/tiny-qa"


@pytest.fixture
def hub():
    """`url`; `repositories`, name → whether it is private; `private`, whether new ones are where nothing is asked for (None:
    whatever is asked for, they are public); `files`, path → bytes of what was committed; `refuses`, path of a request → status
    that it gets."""
    found = SimpleNamespace(repositories={}, private=False, files={}, refuses={}, tokens=set())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status, content, **headers):
            body = json.dumps(content).encode()
            self.send_response(status)
            for key, value in {
                "Content-Type": "application/json",
                "Content-Length": len(body),
                **headers,
            }.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(body)

        def _handle(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            found.tokens.add(self.headers.get("Authorization"))
            path = self.path.partition("?")[0]
            for part, status in found.refuses.items():
                if part in path:
                    return self._answer(status, {"error": "refused"})
            if path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted['organization']}/{wanted['name']}"
                asked = {"private": True, "public": False, None: found.private}[wanted.get("visibility")]
                found.repositories[name] = found.private is not None and asked
                return self._answer(200, {"url": f"{found.url}/{name}", "id": "1", "name": name})
            if path == "/api/validate-yaml":
                return self._answer(200, {"errors": [], "warnings": []})
            if path.endswith("/preupload/main"):
                files = [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for each in json.loads(body)["files"]
                ]
                return self._answer(200, {"files": files})
            if path.endswith("/commit/main"):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        found.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"{found.url}/{NAME}/commit/1"
                return self._answer(200, {"success": True, "commitUrl": url, "commitOid": "1" * 40})
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            if name in found.repositories:
                about = {"id": name, "modelId": name, "sha": "1" * 40, "private": found.repositories[name]}
                return self._answer(200, about | {"siblings": []})
            return self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

        do_GET = do_POST = do_HEAD = _handle

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def logged_in(hub, tmp_path, monkeypatch):
    """This process has a token and talks to the hub."""
    for name, value in (("HF_ENDPOINT", hub.url), ("HF_TOKEN", "hf_secret"), ("HF_HUB_OFFLINE", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.mark.long
def test_the_folder_is_uploaded_as_it_is(hub, tiny, tmp_path):
    """By the script, as somebody types it who has logged in."""
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    flags = ("--to", tmp_path / "out", "--push_to_hub", NAME, "--private")
    done = run_script("export.py", saved(tmp_path, tiny), *flags, env=env)
    assert f"Published: {hub.url}/{NAME} (private)" in done.stdout
    assert hub.repositories == {NAME: True} and "Bearer hf_secret" in hub.tokens
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert hub.files == files and "model.safetensors" in files
    assert f'name = "{NAME}"' in files["README.md"].decode()
    assert "# tiny-qa" in files["README.md"].decode() and "hf_secret" not in done.stdout + done.stderr


def test_what_can_be_known_beforehand_is_refused_unwritten(hub, logged_in, tiny, tmp_path, monkeypatch):
    bundle = saved(tmp_path, tiny)
    hub.repositories[NAME] = False
    for env, message in (
        ({}, f"{NAME} exists already"),
        ({"HF_TOKEN": ""}, "there is no token"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=message):
            for name, value in env.items():
                patch.setenv(name, value)
            export(bundle, tmp_path / "out", push_to_hub=NAME)
        assert not (tmp_path / "out").exists()
    assert not hub.files


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/repos/create", 403, "may not write there"),
        ("/api/repos/create", 401, "does not know the token"),
        ("/api/repos/create", 409, "exists already"),
        ("/commit/main", 403, "hf upload acme/tiny-qa"),
    ],
)
def test_a_refusal_leaves_the_folder_whole(
    path, status, message, hub, logged_in, tiny, tmp_path, opened_here
):
    hub.refuses[path] = status
    with pytest.raises(UserError, match=message) as refused:
        export(saved(tmp_path, tiny), tmp_path / "out", push_to_hub=NAME)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "out" / "model.safetensors").is_file() and not hub.files


@pytest.mark.parametrize("default", [False, True])
def test_without_the_flag_the_owners_default_decides_who_sees_it(
    default, hub, logged_in, tiny, tmp_path, opened_here
):
    """An organization may have set it to private: leaving a flag out is no wish to publish."""
    hub.private = default
    done = export(saved(tmp_path, tiny), tmp_path / "out", push_to_hub=NAME)
    assert hub.repositories == {NAME: default}
    assert done.lines[-1] == f"Published: {hub.url}/{NAME} ({'private' if default else 'public'})"


def test_what_should_be_private_is_not_uploaded_where_others_see_it(
    hub, logged_in, tiny, tmp_path, opened_here
):
    hub.private = None
    with pytest.raises(UserError, match=f"made it public .*nothing was uploaded.*hf upload {NAME}"):
        export(saved(tmp_path, tiny), tmp_path / "out", push_to_hub=NAME, private=True)
    assert (tmp_path / "out" / "model.safetensors").is_file() and not hub.files


def test_flags_that_do_not_belong_together(tiny, tmp_path):
    bundle = saved(tmp_path, tiny)
    with pytest.raises(UserError, match="--private is for --push_to_hub"):
        export(bundle, tmp_path / "out", private=True)
    with pytest.raises(UserError, match="write ORG/NAME"):
        export(bundle, tmp_path / "out", push_to_hub="my model")
    assert not (tmp_path / "out").exists()
