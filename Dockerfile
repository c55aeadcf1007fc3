# The server with the bundled models, for a CPU or a GPU.
#   docker build -t gram-server --build-arg TORCH_INDEX=... . && docker run -p 127.0.0.1:8000:8000 gram-server
#   docker build -t gram-server:gpu --build-arg DEVICE=gpu . && docker run --gpus all -p 127.0.0.1:8000:8000 gram-server:gpu
# Settings are GRAM_* variables (docker run -e) or flags after `serve`.

# cpu or gpu
ARG DEVICE=cpu

FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/venv/bin:$PATH


FROM base AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# torch from the default index brings CUDA with it, some gigabytes. For a small CPU image, give the address of PyTorch's
# index of CPU wheels.
ARG TORCH_INDEX=
WORKDIR /src
# For the kernels of processors with AVX-512. Debian's own version: an image of a dated tag does not keep older ones for long.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /venv
# In layers of their own, so that a change of the code doesn't install them again.
COPY pyproject.toml requirements.lock ./
# hadolint ignore=DL3013
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep -o 'torch==[0-9.]*' pyproject.toml)"
RUN pip install --no-deps --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-deps .


FROM base AS cpu


FROM base AS gpu
# Triton compiles what launches its kernels. Debian's own version: an image of a dated tag does not keep older ones for long.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV TRITON_CACHE_DIR=/tmp/triton
# What NVIDIA's runtime mounts of the driver.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility


# hadolint ignore=DL3006
FROM ${DEVICE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gram && install -d -o 10001 -g 10001 /var/lib/gram
# Root's files, which the server can't change. It writes none of its own but Triton's and numba's, in /tmp, so the root file
# system can be read-only: docker run --read-only --tmpfs /tmp. /var/lib/gram is for a volume with its jobs.
COPY --from=build /venv /venv
ENV GRAM_HOST=0.0.0.0 GRAM_LOG_FORMAT=json NUMBA_CACHE_DIR=/tmp/numba
# By number: Kubernetes' runAsNonRoot can't judge a name.
USER 10001:10001
EXPOSE 8000
# The empty ProxyHandler: where Docker hands HTTP_PROXY to containers, this must not go there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
# Without a shell between, so that SIGTERM reaches the server, which lets running requests finish.
ENTRYPOINT ["gram"]
CMD ["serve"]
