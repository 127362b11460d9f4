# Two images: `runtime` (the default) is what is deployed, `sandbox` is a local world in a box.
ARG PYTHON=python:3.11-slim-bookworm
ARG NODE=node:22-bookworm-slim

# The wheel, built with the tools pinned for development; this stage is also what the sandbox runs from.
FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/countersign
ENV PATH=/opt/countersign/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/dev.lock requirements/
RUN pip install --quiet --require-hashes -r requirements/dev.lock
COPY pyproject.toml README.md ./
COPY service service
COPY workers workers
COPY migrations migrations
COPY sandbox sandbox
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist .

FROM ${PYTHON} AS install
RUN python -m venv /opt/countersign
ENV PATH=/opt/countersign/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/runtime.lock requirements/
RUN pip install --quiet --require-hashes -r requirements/runtime.lock
COPY --from=build /dist /dist
RUN pip install --quiet --no-deps --no-index /dist/*.whl

FROM ${PYTHON} AS base
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin countersign
ENV PATH=/opt/countersign/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /home/countersign

FROM ${NODE} AS node
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm install --no-save --omit=dev --loglevel=error

FROM base AS sandbox
COPY --from=build /opt/countersign /opt/countersign
COPY --from=build /dist /dist
RUN pip install --quiet --no-cache-dir --no-deps --no-index /dist/*.whl
COPY --from=node /src/node_modules node_modules
RUN install --directory --owner=countersign var
USER countersign
CMD ["countersign", "sandbox"]

FROM base AS runtime
COPY --from=install /opt/countersign /opt/countersign
USER countersign
EXPOSE 8080
CMD ["countersign", "serve"]
