# llmtrap for CPUs, run as an ordinary user: docker build -t llmtrap . && docker run --rm -v "$PWD:/work" llmtrap audit MODEL
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY requirements/action.txt requirements/
# The releases that CI runs with, each held to its hash; nothing is built from source.
RUN python -m venv /opt/llmtrap \
    && /opt/llmtrap/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/action.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/llmtrap/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
COPY --from=build /opt/llmtrap /opt/llmtrap
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin llmtrap && install -d -o llmtrap /work
# One BLAS thread in each worker: several on busy cores are many times slower.
ENV PATH=/opt/llmtrap/bin:$PATH OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
USER 10001
ENTRYPOINT ["llmtrap"]
CMD ["--help"]
