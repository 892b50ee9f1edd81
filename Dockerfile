FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/qa-worker && python -m venv /opt/build
# The locks first: these layers stay as long as they do. What only builds the wheel doesn't come along.
COPY requirements.lock requirements-dev.lock /src/
RUN /opt/qa-worker/bin/pip install --require-hashes --requirement /src/requirements.lock
RUN /opt/build/bin/pip install --require-hashes --requirement /src/requirements-dev.lock
COPY pyproject.toml README.md LICENSE celeryconfig.py alembic.ini /src/
COPY migrations /src/migrations
COPY qa_worker /src/qa_worker
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels /src \
    && /opt/qa-worker/bin/pip install --no-deps /wheels/*.whl \
    && cd / && /opt/qa-worker/bin/python -c "import celeryconfig, migrations, qa_worker.celery_app"

FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm --recursive /var/lib/apt/lists/*
# A volume that is mounted here for the first time takes over the owner.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin qa \
    && install --directory --owner=qa --group=qa --mode=0700 /var/lib/qa-worker
COPY --from=build /opt/qa-worker /opt/qa-worker
ENV PATH=/opt/qa-worker/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
USER qa
# Celery and Flower read modules and settings from the working directory: not from one that they can write to.
WORKDIR /
# What "healthy" means differs by service: see docker-compose.yml.
HEALTHCHECK NONE
CMD ["qa-worker", "--help"]
