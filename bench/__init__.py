"""What the project claims of itself, measured: how fast, how right, how alike, how robust. Nothing imports it.

speed/      time and memory by backend, stage and size; what the machine could do at best; the README's table
accuracy/   the paper's benchmark, a file a data set, and nano's own figures
parity/     where two backends differ
soak/       runs that are killed, files that are damaged, memory over thousands of frames
gpu_check/  all that has to be tried on a GPU
results/    what was found

`python bench/latency.py` and `python bench/evaluate.py` are commands; the others are run by their names, such as
`python -m bench.soak.kill`. They need what `make dev` installs, this checkout on the path included.
"""
