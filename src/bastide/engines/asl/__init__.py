"""The Amazon States Language: definitions checked, executions taken from transition to transition.

Pure: it is given the time, and told what became of what it asks for. Who keeps its memory and history, makes the calls and
waits is somebody else.
"""

from bastide.engines.asl.confined import Confined
from bastide.engines.asl.frame import Frame, Memory
from bastide.engines.asl.interpreter import MOST_EVENTS, About, Interpreter
from bastide.engines.asl.validation import Diagnostic, check, check_state

__all__ = [
    "MOST_EVENTS", "About", "Confined", "Diagnostic", "Frame", "Interpreter", "Memory", "check", "check_state",
]  # fmt: skip
