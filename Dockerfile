# rewarm as an image: one process that is not root, one volume, no model inside.
#
#   docker build --tag rewarm .
#   docker build --tag rewarm --build-arg EXTRAS= .        (without transformers and s3fs)
#   docker build --tag rewarm --build-arg TORCH_INDEX=<address of an index with CPU wheels of torch> .
#   docker run --volume rewarm:/var/lib/rewarm --volume ./rewarm.yaml:/etc/rewarm/rewarm.yaml:ro rewarm
#
# Everything rewarm records lies in /var/lib/rewarm, which is also where it starts; a configuration is read
# from there or from /etc/rewarm/rewarm.yaml. Relative paths count from the file, so the one in /etc names
# absolute paths below /var/lib/rewarm.

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
WORKDIR /src
COPY requirements.lock pyproject.toml README.md rewarm.yaml ./

# uv and the build backend, as locked, in an environment that stays behind.
RUN python -m venv /opt/build \
    && awk '/^[^ #]/ { keep = /^(uv|hatchling|packaging|pathspec|pluggy|trove-classifiers)==/ } keep' \
        requirements.lock >/tmp/build.txt \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r /tmp/build.txt \
    && python -m venv --without-pip /opt/rewarm
COPY daemon/ daemon/
COPY policies/ policies/
COPY stages/ stages/
COPY kernels/ kernels/
COPY ops/ ops/
RUN /opt/build/bin/uv build --wheel --no-build-isolation --python /opt/build/bin/python --out-dir /tmp/wheel .

# The lock as a constraint: its versions and hashes hold, its development tools stay out.
ARG TORCH_INDEX=""
ARG EXTRAS="hf,s3"
RUN if [ -n "$TORCH_INDEX" ]; then \
        /opt/build/bin/uv pip install --python /opt/rewarm/bin/python --no-deps --default-index "$TORCH_INDEX" \
            "$(awk '/^torch==/ { print $1 }' requirements.lock)"; \
    fi \
    && /opt/build/bin/uv pip install --python /opt/rewarm/bin/python --constraint requirements.lock \
        "rewarm[$EXTRAS] @ file://$(echo /tmp/wheel/*.whl)"

FROM python:3.11.14-slim-bookworm
ARG REVISION=""
LABEL org.opencontainers.image.title="rewarm" \
      org.opencontainers.image.description="A daemon that keeps models fresh" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.14-slim-bookworm"
RUN groupadd --gid 10001 rewarm \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home \
        --home-dir /var/lib/rewarm --shell /usr/sbin/nologin rewarm \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/rewarm
COPY --from=build /opt/rewarm /opt/rewarm
ENV PATH=/opt/rewarm/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/rewarm
VOLUME ["/var/lib/rewarm"]
USER 10001:10001
EXPOSE 8420
# The daemon finishes what it is writing. Stages end with the container, unless a worker in another one runs them:
# with executor.on_drain checkpoint they save one first, and `docker stop --time` has to be longer than drain_seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["rewarm", "healthcheck"]
ENTRYPOINT ["rewarm"]
CMD ["serve"]
