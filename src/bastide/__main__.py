"""`python -m bastide`."""

from bastide.main import main

main()
