# Everything a person or CI calls. The logic is in scripts/.
.PHONY: help run code clean-data build test lint queries bench fuzz

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ## install what is missing, build, start the portal with a demo tenant on http://localhost:3000
	@scripts/run.sh

code: ## the one-time code for the demo login, now
	@scripts/run.sh code

clean-data: ## forget the demo's data
	@scripts/run.sh clean-data

build: ## release build of portal and agent
	@scripts/install-tools.sh run
	@scripts/build.sh

test: ## everything that CI runs
	@scripts/test.sh

lint: ## formatting, clippy, documentation, crate directions, dependencies
	@scripts/install-tools.sh test
	@scripts/test.sh lint

queries: ## check the SQL against migrations/ and write .sqlx, after a change of either
	@scripts/install-tools.sh test
	@scripts/test-postgres.sh scripts/check-queries.sh write

bench: ## measure, and compare with the targets
	@scripts/install-tools.sh bench
	@scripts/build.sh
	@SQLX_OFFLINE=true RUSTFLAGS="--cfg erase_components" scripts/test-postgres.sh cargo run --release --locked -p bench

fuzz: ## fuzz every target for a minute
	@fuzz/run.sh 60
