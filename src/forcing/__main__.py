"""`python -m forcing` is `forcing`."""

from forcing.cli import main

main()
