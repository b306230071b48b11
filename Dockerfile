# The command in a small image: `docker build -t grym-fetch .`, then `docker run --rm -v "$PWD:/project" grym-fetch sync`.
# `make test-dockerfile` does its steps without a daemon, in a Debian root.
FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels ".[speed,socks]"

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir --no-index --find-links /wheels "grym-fetch[speed,socks]" && rm -r /wheels
WORKDIR /project
ENTRYPOINT ["grym-fetch"]
CMD ["--help"]
