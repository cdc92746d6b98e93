"""Time by layer, grouped by block of the network: see bench/speed/layers.py."""

from bench.speed.layers import main

if __name__ == "__main__":
    main()
