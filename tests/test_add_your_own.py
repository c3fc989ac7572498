"""The page on adding a hypothesis, followed to the letter in a folder outside the repository."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pcsim.roster import variant
from pcsim.verdict import Outcome

PAGE = Path(__file__).resolve().parent.parent / "docs" / "add_your_own.md"
FILES = re.compile(r"^```python file=(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ pcsim (.+)$", re.MULTILINE)


def pcsim(arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a reader would; what is trained is kept in the folder."""
    environment = {**os.environ, "PCSIM_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "pcsim", *shlex.split(arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_page_leads_to_a_verdict(tmp_path):
    page = PAGE.read_text()
    for name, code in FILES.findall(page):
        (tmp_path / name).write_text(code)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    check, test = COMMAND.findall(page)
    assert (check, test) == ("check ./mine.py", "test ./mine.py --model rao_ballard_1999")

    checked = pcsim(check, tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "lawful" in checked.stdout

    tested = pcsim(test, tmp_path)
    assert tested.returncode == 0, tested.stderr
    _, row, reason = tested.stdout.splitlines()
    hypothesis, model, verdict = row.split()[:3]
    assert (hypothesis, model) == ("MINE", variant("rao_ballard_1999").label)
    # What the page says of a reference that is only remembered.
    assert verdict in set(map(str, Outcome)) - {str(Outcome.SUPPORTED), str(Outcome.NA)}
    assert "untrained" in row
    assert "3 replicas" in row
    assert reason.strip()

    again = pcsim(test, tmp_path)
    assert again.stdout == tested.stdout
    done = re.search(r"(\d+) of (\d+) pieces are there already", again.stderr)
    assert done, again.stderr
    assert done[1] == done[2], "trained anew"
