"""`python -m doorward.cli`."""

from doorward.cli.main import main

main()
