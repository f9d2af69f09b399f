"""`python -m glraster_cli`."""

from .main import main

main()
