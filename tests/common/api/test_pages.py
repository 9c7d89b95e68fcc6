"""What a notebook shows."""

from matplotlib.figure import Figure

from common.api.pages import html_figure, html_table, html_text


def test_texts_are_escaped():
    assert html_text('<b>&"') == "&lt;b&gt;&amp;&quot;"
    assert html_table(["a<"], [["b>"]]) == ("<table><tr><th>a&lt;</th></tr><tr><td>b&gt;</td></tr></table>")


def test_a_figure_lies_in_the_page():
    page = html_figure(Figure(), 'a "figure"')
    assert page.startswith('<img alt="a &quot;figure&quot;" src="data:image/png;base64,iVBOR')
