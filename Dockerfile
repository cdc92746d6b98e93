# dc-rt in a container, without PyTorch: docs/docker.md has the commands.
#
# An image with Python 3.11 or newer; or one of Debian's or Ubuntu's kind without, which then gets its distribution's.
ARG BASE=python:3.13-slim

# What is needed to install stays in this stage.
FROM ${BASE} AS build

# Extras of pyproject.toml, with commas between them and without spaces; "" for the runtime alone.
ARG EXTRAS=serve
# A mirror of the package index, if there is one; it is in no layer of the image.
ARG PIP_INDEX_URL

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# A distribution has one version of Python at a time.
# hadolint ignore=DL3008
RUN if ! python3 -m ensurepip --version; then \
        apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv; \
    fi

WORKDIR /source
COPY . .

# The versions that are tested. What installs goes again: who runs the image can install nothing.
RUN python3 -m venv /opt/dc-rt \
    && /opt/dc-rt/bin/pip install --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}" \
    && /opt/dc-rt/bin/pip uninstall --yes setuptools pip

FROM ${BASE}

LABEL org.opencontainers.image.title="DepthCrafter-RT" \
    org.opencontainers.image.description="Consistent depth for long videos, without PyTorch" \
    org.opencontainers.image.licenses="Apache-2.0"

# hadolint ignore=DL3008
RUN if ! command -v python3; then \
        apt-get update && apt-get install --yes --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*; \
    fi

# Whoever runs it has a home, for the cache, and a folder to work in: `--user "$(id -u):$(id -g)"` has results belong to
# the user of the machine, whom the image does not know.
RUN mkdir --mode=1777 /home/dc-rt /data

COPY --from=build /opt/dc-rt /opt/dc-rt

# The last two have NVIDIA's container toolkit put GPUs and the driver into the container.
ENV HOME=/home/dc-rt \
    PATH=/opt/dc-rt/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /data
USER 1000:1000

# `docker stop` is to be what Ctrl-C is: the first process of a container gets no signal that it does not ask for.
STOPSIGNAL SIGINT

# There is no HEALTHCHECK: of all commands `dc-rt serve` alone has something to ask after, and docs/docker.md has the
# check with it.
ENTRYPOINT ["dc-rt"]
CMD ["--help"]
