"""`python -m dc_rt.cli` is `dc-rt`."""

from dc_rt.cli import main

main()
