"""Markdown as a model writes it: what becomes of a text is read off the elements."""

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader


def rendered(reader: Reader, text: str) -> str:
    return reader.page.evaluate(
        """async (text) => {
          const { renderMarkdown } = await import("/page/markdown.js");
          const node = document.createElement("div");
          node.append(...renderMarkdown(text));
          return node.innerHTML.replaceAll(/ (?:type|class|title)="[^"]*"/g, "");
        }""",
        text,
    )


def test_lines_are_read_as_what_they_are(reader: Reader):
    def code(text: str, language: str = "") -> str:
        return f"<div><div><span>{language}</span><button>Copy</button></div><pre><code>{text}</code></pre></div>"

    table = (
        "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2|3</td></tr></tbody></table></div>"
    )
    link = '<a href="https://a.b/c" target="_blank" rel="noopener noreferrer">'
    expected = {
        "# One": "<h1>One</h1>",
        "   ###  Three  ##  ": "<h3>Three</h3>",
        "## C#": "<h2>C#</h2>",
        "# ##": "<h1></h1>",
        "#none": "<p>#none</p>",
        "####### seven": "<p>####### seven</p>",
        "---": "<hr>",
        "* * *": "<hr>",
        "```python\nx = 1\n```\ny": code("x = 1", "python") + "<p>y</p>",
        "~~~ c++ `x`\n```\n~~~": "<p>~~~ c++ <code>x</code></p>" + code("~~~"),
        "```not `code`": "<p>```not <code>code</code></p>",
        "|a|b|\n|:-|-:|\n|1|2\\|3|": table,
        "a | b\n--- | ---\n1 | 2\\|3": table,
        "a | b\n- x": "<p>a | b</p><ul><li>x</li></ul>",
        "- a\n  - b\n- c": "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>",
        "2. a\n3. b": '<ol start="2"><li>a</li><li>b</li></ol>',
        "> a\n> b": "<blockquote><p>a\nb</p></blockquote>",
        "a  \nb": "<p>a  <br>b</p>",
        "**a *b* c** ` d ` `  ` ~~e~~": "<p><strong>a <em>b</em> c</strong> <code>d</code> <code>  </code> <del>e</del></p>",
        "see https://a.b/c).": f"<p>see {link}https://a.b/c</a>).</p>",
        "[x [y](https://a.b/c 'title')": f"<p>[x {link}y</a></p>",
        "<https://a.b/c> xhttps://a.b/c": f"<p>{link}https://a.b/c</a> xhttps://a.b/c</p>",
        f"https://a.b/{'c' * 3000}": f"<p>https://a.b/{'c' * 3000}</p>",
    }
    assert {text: rendered(reader, text) for text in expected} == expected
