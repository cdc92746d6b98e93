"""The benchmark of DepthCrafter: see bench/accuracy/evaluate.py."""

import sys

from bench.accuracy.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
