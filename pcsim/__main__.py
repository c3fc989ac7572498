"""``python -m pcsim`` is the command ``pcsim``."""

from __future__ import annotations

from pcsim.cli import main

if __name__ == "__main__":
    main()
