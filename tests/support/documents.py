"""An HTML page as a browser sees it."""

from html.parser import HTMLParser


class Document(HTMLParser):
    """What a browser makes of a page: elements with their attributes and their text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in ("meta", "link", "input", "img"):
            self.open.append(element)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, text):
        for element in self.open:
            element["text"] += text

    def all(self, tag, **wanted):
        return [e for e in self.elements if e["tag"] == tag and wanted.items() <= e.items()]

    def one(self, tag, **wanted):
        (found,) = self.all(tag, **wanted)
        return found
