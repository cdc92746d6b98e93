"""Time of every stage on every backend that the machine has: see bench/speed/latency.py."""

from bench.speed.latency import main

if __name__ == "__main__":
    main()
