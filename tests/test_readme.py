"""The code that README and docs show runs as it stands there.

Python blocks of one page run in order in one namespace and in an empty folder. A block that opens
with ``python file=mine.py`` is saved under that name instead. A block after
``<!-- not run: why -->`` is left alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
FENCE = re.compile(
    r"(<!-- not run: [^>]+ -->\n+)?^```python(?: file=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """A block of code, and where it starts."""

    line: int
    file: str | None
    code: str


def blocks(text: str) -> list[Block]:
    """Return the Python blocks of a page that are to be run."""
    return [
        Block(text[: match.start(3)].count("\n"), match[2], match[3])
        for match in FENCE.finditer(text)
        if match[1] is None
    ]


def run(text: str, page: str) -> dict[str, object]:
    """Run the blocks of a page; line numbers in errors are those of the page."""
    names: dict[str, object] = {"__name__": "__readme__"}
    for block in blocks(text):
        if block.file:
            Path(block.file).write_text(block.code)
        else:
            exec(compile("\n" * block.line + block.code, page, "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(page.read_text(), page.name)
    plt.close("all")


def test_the_readme_shows_code():
    assert len(blocks((ROOT / "README.md").read_text())) >= 1


PAGE = """# Title

```python
x = 4
```

<!-- not run: needs the network -->
```python
raise RuntimeError
```

```python file=mine.py
MODEL = 0.7
```

```sh
exit 1
```

```python
y = x + 1
```
"""


def test_blocks_share_a_namespace_and_files_are_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(PAGE, "page.md")
    assert names["y"] == 5
    assert (tmp_path / "mine.py").read_text() == "MODEL = 0.7\n"
    assert [b.line for b in blocks(PAGE)] == [3, 12, 20]


def test_errors_name_the_line_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError) as caught:
        run(PAGE + "\n```python\n1 / 0\n```\n", "page.md")
    assert caught.traceback[-1].lineno + 1 == 25
