# Print the latest Python that is found, 3.12 to 3.14, and python3 where there is none.
latest=python3
for python in python3.12 python3.13 python3.14 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9].*/bin/python; do
    if "$python" -m ensurepip --version >/dev/null 2>&1; then latest=$python; fi
done
echo "$latest"
