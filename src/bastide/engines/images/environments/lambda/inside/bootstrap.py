"""Begins a function: in its own folder, its code and its layers found first, the platform's own last.

The order is that of AWS's Python runtimes (Lambda Developer Guide, "Working with layers for Python Lambda functions").
"""

import os
import sys


def main() -> None:
    """Becomes AWS's runtime interface client. The argument is the handler."""
    os.chdir("/var/task")
    asked = os.environ.get("AWS_EXECUTION_ENV", "").rpartition("_")[2]
    sys.path[:1] = ["/var/task", f"/opt/python/lib/{asked}/site-packages", "/opt/python"]
    sys.path.append("/var/runtime")
    from awslambdaric.__main__ import main as begin  # noqa: PLC0415 - found where it was looked for just now

    begin(["bootstrap", sys.argv[1]])


if __name__ == "__main__":
    main()
