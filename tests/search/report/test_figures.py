"""Plots on a page."""

import base64
import gzip
import json
import re

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from search.report.figures import THEMES, drawing_script, figure_html


def test_a_plot_has_its_data_and_no_look_of_its_own():
    text = figure_html(go.Figure(go.Scatter(x=[1, 2], y=[3, float("nan")])), title='a "plot"')
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    document = json.loads(data)
    assert (document["data"][0]["x"], document["data"][0]["y"]) == ([1, 2], [3, None])
    assert "template" not in document["layout"]
    assert 'aria-label="a &quot;plot&quot;"' in text


def test_a_name_in_a_plot_cannot_end_its_script():
    text = figure_html(go.Figure(go.Scatter(x=["</script><script>alert(1)"], y=[1])), title="x")
    assert text.count("</script>") == 1


def test_the_library_comes_along_once_compressed():
    script = drawing_script()
    (library,) = re.findall(r'id="library">(.*?)</script>', script)
    assert gzip.decompress(base64.b64decode(library)).decode() == get_plotlyjs()
    assert len(script) < 2_500_000


def test_light_and_dark_have_the_colours_that_everybody_can_tell_apart():
    assert THEMES["light"]["layout"]["colorway"] == THEMES["dark"]["layout"]["colorway"]
    assert THEMES["light"]["layout"]["font"] != THEMES["dark"]["layout"]["font"]
