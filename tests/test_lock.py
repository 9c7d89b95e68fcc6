"""requirements.lock is that of requirements.txt."""

import re

from common.paths import ROOT


def test_every_pinned_package_is_locked_with_hashes():
    locked = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert len(pinned) > 10
    for name, version in pinned:
        # make lock says why torch is not there.
        entry = rf"^{re.escape(name)}=={re.escape(version)} \\\n +--hash=sha256:[0-9a-f]{{64}}"
        found = re.search(entry, locked, re.MULTILINE | re.IGNORECASE)
        assert (found is None) == (name == "torch"), f"{name}=={version}: run make lock"
