# malmoi-serve in a container; docs/docker.md is its manual.
#
#   docker build --target cpu --tag malmoi:cpu .        docker build --target gpu --tag malmoi:gpu .
#
# Both targets hold the wheel that the packaging test has passed, with the versions of deploy/install/constraints-*.txt.
ARG BASE=debian:bookworm-slim

# What every stage stands on: Python, PID 1, and a user of its own.
FROM ${BASE} AS system
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates libnuma1 libtcmalloc-minimal4 python3 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /cache --no-create-home --shell /usr/sbin/nologin malmoi \
    && install --directory --mode 0755 /models \
    && install --directory --mode 1777 /cache

# The packaging test, and the wheel it is about.
FROM system AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python3 -m venv /packaging \
    && /packaging/bin/python -m pip install --quiet --constraint deploy/install/constraints-cpu.txt \
        --editable . build pytest "$(sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml)" \
    && /packaging/bin/python -m pytest --noconftest -p no:cacheprovider tests/test_packaging.py \
    && /packaging/bin/python -m build --wheel --no-isolation --outdir /dist . \
    && rm -rf /packaging

# How both are run: root may be read-only; /cache (compiled kernels, Hub downloads) and /tmp are written to.
FROM system AS serving
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="malmoi" \
      org.opencontainers.image.description="One checkpoint behind an OpenAI-compatible API with latency metrics" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY deploy/image/entrypoint.sh /usr/local/bin/malmoi-container
ENV HOME=/cache \
    LANG=C.UTF-8 \
    PATH=/opt/malmoi/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1
VOLUME ["/models", "/cache"]
WORKDIR /cache
EXPOSE 8000
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["tini", "--", "malmoi-container"]
CMD ["--help"]

# The wheel takes the place of the editable install; pip and uv have then done their work. Triton, a gigabyte that
# compiles for GPUs, is not used on a CPU: xgrammar names it on every x86-64 Linux.
FROM build AS build-cpu
RUN PLATFORM=cpu deploy/install/install.sh /opt/malmoi cpu \
    && /opt/malmoi/bin/python -m pip install --quiet --no-deps --force-reinstall /dist/*.whl \
    && /opt/malmoi/bin/python -m pip uninstall --quiet --yes triton uv pip

# No compiler: the engine runs eager, as malmoi-serve says at its start.
FROM serving AS cpu
COPY --from=build-cpu /opt/malmoi /opt/malmoi

FROM build AS build-gpu
RUN PLATFORM=gpu deploy/install/install.sh /opt/malmoi gpu \
    && /opt/malmoi/bin/python -m pip install --quiet --no-deps --force-reinstall /dist/*.whl \
    && /opt/malmoi/bin/python -m pip uninstall --quiet --yes uv pip

# The driver is brought by the NVIDIA container toolkit; Triton compiles its launchers with a C compiler.
FROM serving AS gpu
USER 0:0
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-gpu /opt/malmoi /opt/malmoi
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
