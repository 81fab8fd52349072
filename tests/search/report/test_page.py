"""The page in a real browser: every section, on a wide and a narrow screen, light and dark."""

import html
import json
import re
from pathlib import Path

import pytest

from search.report.page import write_page

DOCS = Path(__file__).resolve().parents[3] / "docs"
# What is asked of each frame that shows the page, once its plots are drawn.
HARNESS = """<!doctype html><body>FRAMES<script type="application/json" id="page">PAGE</script><pre id="answers"></pre><script>
const text = JSON.parse(document.getElementById('page').textContent);
const frames = [...document.querySelectorAll('iframe')];
const drawn = frame => new Promise(done => {
  const look = () => frame.contentDocument.body?.dataset.drawn ? done() : setTimeout(look, 50);
  frame.srcdoc = text;
  frame.onload = look;
});
const answer = frame => {
  const page = frame.contentDocument, root = page.documentElement;
  return {
    window: root.clientWidth,
    width: root.scrollWidth,
    paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    ink: page.querySelector('.plot .xtick text').style.fill,
    sections: [...page.querySelectorAll('section h2')].map(title => title.textContent),
    links: [...page.querySelectorAll('nav a')].every(link => page.querySelector(link.hash)),
    plots: [...page.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.main-svg').length > 0),
    verdict_ends: page.querySelector('.verdict').getBoundingClientRect().bottom,
  };
};
Promise.all(frames.map(drawn)).then(() => {
  document.getElementById('answers').textContent = JSON.stringify(frames.map(answer));
  document.getElementById('page').remove();
  frames.forEach(frame => frame.remove());
});
</script></body>"""
SCREENS = {(1280, "light"): "rgb(255, 255, 255)", (390, "dark"): "rgb(18, 22, 27)"}


@pytest.fixture
def screenshots(monkeypatch):
    """What makes the pictures in README.md, which knows how a browser is called."""
    monkeypatch.syspath_prepend(DOCS)
    import screenshots

    if screenshots.browser() is None:
        pytest.skip("no Chromium on the PATH to look at the page with")
    return screenshots


@pytest.fixture
def page(make_search):
    """A finished search of two classes, with a class name and a value that are wider than a narrow screen."""
    folder, ledger = make_search(*([0.1 * number, 0.05 * number + 0.2] for number in range(1, 6)))
    name = "a class whose name is longer than any screen of a telephone is wide, without a doubt"
    scores = {"recall": 0.5, "precision": 0.5, "f1": 0.5, "count": 4}
    test = {"trial": 4, "metrics": {"balanced_accuracy": 0.5}, "confusion": [[2, 2], [2, 2]]}
    ledger.note(test=test | {"per_class": {name: scores, "b": scores}})
    return write_page(folder)


def test_the_page_is_whole_and_no_wider_than_its_screen_light_and_dark(page, screenshots, tmp_path):
    assert page.stat().st_size < 3_000_000
    for (width, scheme), answer in answers_of_a_browser(page, browse=screenshots.browse, tmp_path=tmp_path).items():
        assert answer["width"] == answer["window"] <= width
        assert answer["paper"] == SCREENS[width, scheme]
        assert (answer["ink"] == "rgb(27, 31, 36)") == (scheme == "light")
        assert answer["sections"] == [
            "What limited it", "What to do next", "Best configuration", "Leaderboard", "What the best takes", "Learning curves",
            "Parallel coordinates", "Importances", "Timeline by slot", "Timeline by trial", "Classes on the test split",
            "Everything in words",
        ]  # fmt: skip
        assert answer["links"]
        assert answer["plots"] == [True] * 6
        assert answer["verdict_ends"] < 300


def answers_of_a_browser(page, *, browse, tmp_path):
    """What the page says in a frame of each width and colour scheme."""
    frames = "".join(
        f'<iframe style="border: 0; width: {width}px; height: 800px; color-scheme: {scheme}"></iframe>'
        for width, scheme in SCREENS
    )
    text = json.dumps(page.read_text()).replace("<", "\\u003c")
    (tmp_path / "frames.html").write_text(HARNESS.replace("FRAMES", frames).replace("PAGE", text))
    seen = browse(tmp_path / "frames.html", "--window-size=1400,1000", "--dump-dom")
    (answers,) = re.findall(r'<pre id="answers">(.*?)</pre>', seen)
    return dict(zip(SCREENS, json.loads(html.unescape(answers)), strict=True))
