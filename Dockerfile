# The portal: a small image with one binary, its pages and no shell work at start. Needs a PostgreSQL (RINGFENCE__DATABASE__URL and
# RINGFENCE__DATABASE__OWNER_URL) and a master key file; see `ringfence check-config`.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends nodejs npm
WORKDIR /src
# Tools first: they change rarely, and take longest.
COPY scripts/lib.sh scripts/install-tools.sh scripts/
COPY Cargo.toml ./
RUN rustup target add wasm32-unknown-unknown && RINGFENCE_CACHE=/cache scripts/install-tools.sh build
COPY . .
RUN RINGFENCE_CACHE=/cache scripts/build.sh

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/ringfence --create-home ringfence
# The names of hashed files are read from hash.txt beside the binary.
COPY --from=build /src/target/release/ringfence /src/target/release/hash.txt /opt/ringfence/
COPY --from=build /src/target/site /opt/ringfence/site
ENV LEPTOS_SITE_ROOT=/opt/ringfence/site \
    RINGFENCE__HTTP__LISTEN=0.0.0.0:3000 \
    RINGFENCE__AGENTS__LISTEN=0.0.0.0:3443
USER ringfence
WORKDIR /var/lib/ringfence
EXPOSE 3000 3443
ENTRYPOINT ["/opt/ringfence/ringfence"]
CMD ["serve"]
