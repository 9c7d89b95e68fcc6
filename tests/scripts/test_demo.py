"""The page as it is used: the real script, started on a port, in a real Chromium."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from common.data import prepared
from common.data.squad_json import read_squad_json
from common.paths import ROOT
from common.registry import register
from common.tasks.table import TASKS
from tests.scripts.conftest import run_here
from tests.support import stores, trained
from tests.support.questions import EXAMPLES

pytestmark = pytest.mark.slow

NAME = TASKS["extractive-qa"].registered
URIS = [f"models:/{NAME}/{version}" for version in (1, 2)]
CONTEXT = "😀 " + EXAMPLES[4]["context"]
XSS = "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>"


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny):
    """(address of the page, URI of a model that it lists and cannot load, its file of corrections)."""
    folder = tmp_path_factory.mktemp("demo")
    with stores.in_force(folder):
        record = trained.prepare_data(folder)
        test = prepared.load(folder / "data")[0]["test"].to_list()
        for i, (technique, f1) in enumerate((("lora", 50.0), ("ia3", 40.0))):
            made = {"technique": technique, "validation_f1": f1, "seed": i}
            run_id = trained.log_run(folder, tiny, record, test, experiment=f"demo-{i}", **made)
            with trained.checked_here():
                register.register_best(f"demo-{i}")
        missing = f"runs:/{run_id}/nothing"
        command = [
            sys.executable,
            str(ROOT / "scripts" / "demo.py"),
            "--port",
            "0",
            "--models",
            *URIS,
            missing,
            "--corrections",
            "corrections.json",
        ]
        with open(folder / "page.log", "w") as log:
            server = subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        # Reading a line would wait for ever.
        late = threading.Timer(300, server.kill)
        late.start()
        try:
            lines = []
            while not (lines and lines[-1].startswith("http://127.0.0.1:")):
                lines.append(server.stdout.readline())
                assert lines[-1], (folder / "page.log").read_text()[-3000:]
            late.cancel()
            yield lines[-1].split()[0], missing, folder / "corrections.json"
            server.terminate()
            assert server.wait(60) == 128 + signal.SIGTERM
        finally:
            late.cancel()
            server.kill()
            server.wait(30)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, or a skip that names what is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip(
            "no Chromium with its chromedriver is installed (apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # In a container there is no sandbox for root, and little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_page_load_timeout(60)
    yield browser
    browser.quit()


@pytest.fixture
def page(world, browser):
    """The browser at the page, of a desktop's size, with nothing remembered."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.set_window_size(1280, 900)
    browser.get(world[0])
    browser.execute_script("sessionStorage.clear()")
    browser.get(world[0])
    yield browser
    assert [e for e in browser.get_log("browser") if "Content Security Policy" in e["message"]] == []


def find(page, selector):
    return page.find_elements("css selector", selector)


def wait(page, met):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 60).until(lambda _: met())


def write(page, **fields):
    for name, text in fields.items():
        # send_keys cannot type what lies outside the basic plane.
        page.execute_script("document.forms[0].elements[arguments[0]].value = arguments[1]", name, text)


def ask(page, **fields):
    """The cards once all have their answer."""
    write(page, **fields)
    page.execute_script("document.querySelector('.cards').replaceChildren()")
    find(page, "form button")[0].click()
    wait(page, lambda: find(page, ".card") and not find(page, ".card.waiting"))
    return find(page, ".card")


def text(page, element):
    return page.execute_script("return arguments[0].textContent", element)


def test_two_models_are_asked_and_compared(page, world):
    cards = ask(page, question="Who shared the prize?", context=CONTEXT, truth="Marie Curie")
    assert [card.get_attribute("data-uri") for card in cards] == URIS
    told = page.execute_async_script(
        "const [body, done] = arguments; fetch('/answer', {method: 'POST', body, headers: {'Content-Type': "
        "'application/json'}}).then((r) => r.json()).then((told) => done(told.results))",
        json.dumps(
            {"question": "Who shared the prize?", "context": CONTEXT, "truth": "Marie Curie", "models": URIS}
        ),
    )
    for card, one in zip(cards, told, strict=True):
        (given,) = card.find_elements("css selector", ".given")
        assert text(page, given).strip() == (one["answer"] or "No answer")
        assert f"{100 * one['score']:.1f}%" in card.text and f"F1 {100 * one['f1']:.0f}" in card.text
        (context,) = card.find_elements("css selector", ".context")
        assert text(page, context) == CONTEXT
        marks = [text(page, mark) for mark in card.find_elements("css selector", "mark")]
        assert marks == [one["answer"]] * (one["start"] >= 0)
        # An answer behind an emoji is where the server says, in characters, whatever JavaScript counts.
        assert one["answer"] == (CONTEXT[one["start"] : one["end"]] if one["start"] >= 0 else "")
    # Beside each other, their parts in line.
    tops = [[part.rect["y"] for part in card.find_elements("css selector", ".context, dl")] for card in cards]
    assert tops[0] == tops[1] and cards[0].rect["x"] < cards[1].rect["x"]
    assert find(page, "#results h2")[0].text == "Who shared the prize?"
    came_from = page.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert came_from and all(name.startswith(world[0]) for name in came_from)


def test_what_was_asked_is_remembered_until_it_is_cleared(page):
    ask(page, question="Who shared the prize?", context=CONTEXT, truth="Pierre")
    ask(page, question="When was it?", context=CONTEXT, truth="")
    page.refresh()
    again = find(page, "#history .again")
    assert [button.text for button in again] == ["When was it?", "Who shared the prize?"]
    assert [row.text.split("1 of 2")[0] != row.text for row in find(page, "#history tbody tr")] == [
        True,
        True,
    ]
    again[1].click()
    assert find(page, "#question")[0].get_attribute("value") == "Who shared the prize?"
    assert find(page, "#truth")[0].get_attribute("value") == "Pierre"
    find(page, "#clear")[0].click()
    assert not find(page, "#history")[0].is_displayed()


def kept(world, question):
    """The corrected question as the file has it."""
    read = read_squad_json(world[2]).placed if world[2].exists() else []
    return next((e for e in read if e["question"] == question), None)


def test_an_answer_is_corrected_by_marking_the_right_one(page, world):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    (card, *_) = ask(page, question="Who had shared it?", context=CONTEXT)
    card.find_element("css selector", "summary").click()
    area = card.find_element("css selector", "[name=context]")
    area.click()
    # From the beginning over the emoji to the second word, as a keyboard marks.
    ActionChains(page).key_down(Keys.CONTROL).send_keys(Keys.HOME).key_up(Keys.CONTROL).perform()
    marking = ActionChains(page).send_keys(Keys.ARROW_RIGHT * 2).key_down(Keys.SHIFT)
    marking.send_keys(Keys.ARROW_RIGHT * len("Marie")).key_up(Keys.SHIFT).perform()
    right = card.find_element("css selector", "[name=answer]")
    wait(page, lambda: right.get_attribute("value") == CONTEXT[2:7])
    save, nothing = card.find_elements("css selector", "form button")
    save.click()
    told = card.find_element("css selector", ".told")
    wait(page, lambda: told.text)
    assert told.text == f"Saved: “{CONTEXT[2:7]}” is the right answer."
    assert kept(world, "Who had shared it?")["answers"] == {"text": [CONTEXT[2:7]], "answer_start": [2]}
    # Typed over: no place goes along, and this one does not stand there.
    right.send_keys(" von Trapp")
    save.click()
    wait(page, lambda: "does not stand in the text" in told.text)
    assert right.get_attribute("aria-invalid") == "true"
    nothing.click()
    wait(page, lambda: "does not answer it" in told.text)
    assert kept(world, "Who had shared it?")["answers"]["text"] == []


def test_it_is_used_with_the_keyboard_alone(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()

    def focused():
        return page.switch_to.active_element

    for _ in range(20):
        press(Keys.TAB)
        if focused().text == "No answer":
            break
    press(Keys.ENTER)
    assert focused().get_attribute("name") == "question" and "Gokstad" in focused().get_attribute("value")
    assert find(page, "[name=unanswerable]")[0].is_selected()
    assert page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused()) == "solid"
    ActionChains(page).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    wait(page, lambda: find(page, ".card") and not find(page, ".card.waiting"))
    assert len(find(page, ".card .verdict")) == 2
    assert "Version 1" in text(page, find(page, "#status")[0])


def test_mistakes_are_told_beside_the_form(page):
    write(page, context=CONTEXT)
    find(page, "form button")[0].click()
    wait(page, lambda: find(page, "#fault")[0].is_displayed())
    assert find(page, "#fault")[0].text == "The question is empty."
    question = find(page, "#question")[0]
    assert question.get_attribute("aria-invalid") == "true" and page.switch_to.active_element == question
    assert not find(page, ".card")
    for box in find(page, "[name=models]:checked"):
        box.click()
    find(page, "form button")[0].click()
    assert find(page, "#fault")[0].text == "Choose a model."


def test_a_model_that_does_not_load_leaves_the_others_their_answers(page, world):
    find(page, f'[value="{world[1]}"]')[0].click()
    cards = ask(page, question="Who shared the prize?", context=CONTEXT)
    assert ["failed" in card.get_attribute("class") for card in cards] == [False, False, True]
    assert "could not answer" in cards[2].text and "nothing" in cards[2].text


def test_whatever_is_typed_stays_text(page):
    cards = ask(page, question=f"Who {XSS}?", context=f"{CONTEXT} {XSS}", truth=XSS)
    assert text(page, cards[0].find_element("css selector", ".context")) == f"{CONTEXT} {XSS}"
    page.refresh()
    assert find(page, "#history .again")[0].text == f"Who {XSS}?"
    assert page.title == "Ask and compare" and not find(page, "img")
    assert len(find(page, "script")) == 1


@pytest.mark.parametrize("width", [320, 390, 820])
def test_nothing_runs_over_the_edge_of_a_narrow_screen(page, world, width):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def across():
        return page.execute_script("return document.documentElement.scrollWidth")

    assert across() == width
    find(page, f'[value="{world[1]}"]')[0].click()
    many = "shared the prize of many words with her husband Pierre " * 20
    ask(page, question="Who " + "w" * 300, context=f"{CONTEXT} {many} {'w' * 3000}", truth="w" * 300)
    assert across() == width
    for summary in find(page, ".card summary"):
        summary.click()
    assert across() == width
    spilt = (
        "return [...document.querySelectorAll('.card')].map((card) => card.scrollWidth - card.clientWidth)"
    )
    assert page.execute_script(spilt) == [0, 0, 0]
    assert len({card.rect["x"] for card in find(page, ".card")}) == (1 if width < 700 else 2)


def contrast(first, second):
    """WCAG's, of two colours as the browser names them."""

    def luminance(colour):
        channels = [int(c) / 255 for c in colour.split("(")[1].rstrip(")").split(",")[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_in_the_light_and_in_the_dark(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    ask(page, question="Who shared the prize?", context=CONTEXT, truth="Marie Curie")
    selectors = (
        "body, .quiet, .given, .legend mark, .verdict span, .alias, button, textarea, nav a, td, dt, .true"
    )
    seen = page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => { let b = e; while "
        "(getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentElement; return "
        "[e.className || e.tagName, getComputedStyle(e).color, getComputedStyle(b).backgroundColor]; })",
        selectors,
    )
    assert len(seen) > 20
    assert [one for one in seen if contrast(one[1], one[2]) < 4.5] == []
    ground = next(one for one in seen if one[0] == "BODY")[2]
    assert (contrast(ground, "rgb(0, 0, 0)") < 1.5) == (scheme == "dark")


def test_without_a_registered_model_it_ends_with_the_remedy(tmp_path):
    with stores.in_force(tmp_path):
        done = run_here("demo.py", "--port", 0, check=False)
    assert done.returncode == 2 and "scripts/register_best.py" in done.stderr


def test_a_file_of_other_questions_is_left_alone(tmp_path):
    file = tmp_path / "train.json"
    file.write_text('{"version": "v2.0", "data": []}')
    done = run_here("demo.py", "--port", 0, "--corrections", file, check=False)
    assert done.returncode == 2 and "train.json holds something else" in done.stderr
    assert (
        len(done.stderr.strip().splitlines()) == 1 and file.read_text() == '{"version": "v2.0", "data": []}'
    )


def test_a_taken_port_is_told_at_once(world):
    done = run_here("demo.py", "--port", world[0].rsplit(":")[-1], check=False)
    assert done.returncode == 2 and "--port" in done.stderr and "choose another" in done.stderr


def test_a_faulty_file_of_keys_is_refused_by_line(tmp_path):
    (tmp_path / "keys").write_text("ann secret\n")
    done = run_here("demo.py", "--port", "0", "--api_keys", tmp_path / "keys", check=False)
    assert done.returncode == 2 and "line 1: a line is NAME SHA256" in done.stderr
