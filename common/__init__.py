"""The library that the scripts share; docs/ARCHITECTURE.md explains its packages and which may import which."""

import os

# MLflow reads these once, while it is imported, which accelerate does before any module here.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# An unreachable server would otherwise hold a script for four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
# Threads that wait for each other soon give up their core instead of spinning on it: next to another busy process, spinning
# threads block the one that they wait for. Read once, while torch is imported; results are the same (docs/PERFORMANCE.md).
if not any(os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
    os.environ["GOMP_SPINCOUNT"] = "5000"


def _settle_user() -> None:
    """Give a name and a home to a user who has none, such as a number in a container: libraries ask for both while they are
    imported, and write caches below the home."""
    import pwd

    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ""
        if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            os.environ["USER"] = f"uid{os.getuid()}"
    home = os.environ.get("HOME") or home
    cache = os.path.join(home, ".cache")
    if home and os.access(cache if os.path.isdir(cache) else home, os.W_OK | os.X_OK):
        return
    import tempfile

    # One folder for all processes of this user; it is used only if nobody else can write to it.
    own = os.path.join(tempfile.gettempdir(), f"home-{os.getuid()}")
    try:
        os.mkdir(own, 0o700)
    except OSError:
        pass
    try:
        about = os.lstat(own)
        ours = os.path.isdir(own) and not os.path.islink(own)
        ours = ours and about.st_uid == os.getuid() and not about.st_mode & 0o022
    except OSError:
        ours = False
    os.environ["HOME"] = own if ours else tempfile.mkdtemp(prefix="home-")
    hub = os.path.join(cache, "huggingface", "hub")
    if os.path.isdir(hub):
        # Models that were downloaded there are still read.
        os.environ.setdefault("HF_HUB_CACHE", hub)


_settle_user()
