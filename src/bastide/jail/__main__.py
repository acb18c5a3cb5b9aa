"""Started as ``python -I -S <this folder>``: finds the package without site-packages, and launches."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bastide.jail.launcher import main

main()
