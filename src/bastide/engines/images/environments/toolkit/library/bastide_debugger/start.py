"""``python3 -m bastide_debugger.start SCRIPT ...``: runs a script of XGBoost's whose trainings are saved."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from bastide_debugger import boosting

if __name__ == "__main__":
    boosting.watch()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
