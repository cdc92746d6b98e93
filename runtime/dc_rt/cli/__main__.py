"""`python -m dc_rt.cli` is `dc-rt`."""

from dc_rt.cli import main

if __name__ == "__main__":
    main()
