# syntax=docker/dockerfile:1
# spectemp for the CPU: API, migrations, command line, and workers without a GPU.
#
#   docker build -t spectemp:0.1.0 .
#
# Debian 12 in both stages: the binary is linked with that release's FFmpeg 5.1.

FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        clang cmake libavcodec-dev libavformat-dev libavutil-dev libclang-dev libswresample-dev libswscale-dev \
        nasm pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the build, so that the next one compiles only what changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/target,sharing=locked \
    CARGO_TARGET_DIR=/target cargo build --release --locked -p spectemp-cli \
    && install -D -m 755 -s /target/release/spectemp /out/spectemp

FROM debian:12-slim
LABEL org.opencontainers.image.title="spectemp" \
      org.opencontainers.image.description="Answers questions about long videos in object storage, with evidence" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libavcodec59 libavformat59 libavutil57 libswresample4 libswscale6 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/spectemp --shell /usr/sbin/nologin spectemp \
    && install -d -o spectemp -g spectemp /var/lib/spectemp
COPY --from=build /out/spectemp /usr/local/bin/spectemp
COPY LICENSE /usr/share/doc/spectemp/LICENSE
# A build that lacks a library fails here, not at the first start.
RUN spectemp --version
USER 10001:10001
ENV SPECTEMP_HOME=/var/lib/spectemp \
    SPECTEMP_HEALTH_PORT=8080
VOLUME /var/lib/spectemp
EXPOSE 8080
# For Docker and Compose; Kubernetes has its own probes. A worker's port is another: set SPECTEMP_HEALTH_PORT.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${SPECTEMP_HEALTH_PORT} && printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n1 <&3 | grep -q ' 200 '"]
# tini hands SIGTERM on and reaps; the program's own exit code stays.
ENTRYPOINT ["tini", "--", "spectemp"]
CMD ["--help"]
