# histoheads on CPUs, with the versions that the tests passed with. No model weights are inside.
#   docker build -t histoheads .
#   docker run --rm --shm-size 1g -v "$PWD:/data" histoheads --run reports/mine --data my_tiles --protocol random
FROM python:3.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/histoheads
WORKDIR /src
# torch first, from the index of builds without CUDA: this layer changes with the lock alone
COPY requirements.lock ./
RUN /opt/histoheads/bin/pip install --constraint requirements.lock torch torchvision \
    --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE ./
COPY pipeline ./pipeline
RUN /opt/histoheads/bin/pip install --constraint requirements.lock '.[cpu,slides,audit,conformal,large,cluster]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/histoheads /opt/histoheads
RUN useradd --create-home --uid 1000 histoheads
ENV PATH=/opt/histoheads/bin:$PATH
USER 1000
# runs are written below the folder that the user mounts here
WORKDIR /data
ENTRYPOINT ["histoheads"]
CMD ["--help"]
