# The server on a CPU, with the bundled models.
#   docker build -t gram-server . && docker run -p 8000:8000 gram-server
# Settings are GRAM_* variables (docker run -e) or flags after `serve --host 0.0.0.0`.

FROM python:3.11.14-slim-bookworm AS base
ENV PATH=/venv/bin:$PATH


FROM base AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# torch from the default index brings CUDA with it, some gigabytes. For a small CPU image, give the address of PyTorch's
# index of CPU wheels: --build-arg TORCH_INDEX=...
ARG TORCH_INDEX=
WORKDIR /src
RUN python -m venv /venv
# In a layer of its own, so that a change of the code doesn't install it again.
COPY pyproject.toml ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep -o 'torch==[0-9.]*' pyproject.toml)"
COPY . .
RUN pip install .


FROM base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gram
# Root's files, which the server can't change. It writes none of its own, so the root file system can be read-only:
# docker run --read-only
COPY --from=build /venv /venv
# By number: Kubernetes' runAsNonRoot can't judge a name.
USER 10001:10001
EXPOSE 8000
# The empty ProxyHandler: where Docker hands HTTP_PROXY to containers, this must not go there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
# Without a shell between, so that SIGTERM reaches the server, which lets running requests finish.
ENTRYPOINT ["gram"]
CMD ["serve", "--host", "0.0.0.0"]
