"""What Clarify's prebuilt image does: bias of data and of predictions, Shapley values, partial dependence.

Runs inside the sandbox on NumPy and SciPy, and reads data as :mod:`bastide_monitor` does.
"""
