from common.paths import ROOT
from tests.scripts.conftest import run_script


def test_without_a_model_it_says_how_to_get_one(store):
    done = run_script("ask.py", "Who?", check=False)
    assert done.returncode == 2 and "register_best.py" in done.stderr


def test_every_script_explains_itself():
    for script in sorted((ROOT / "scripts").glob("[a-z]*.py")):
        text = run_script(script.name, "--help").stdout
        assert "usage:" in text and len(text) > 200, script
