# Thin wrappers over CMake and its presets; `make help` lists them. Each target installs the packages that it
# needs (as root), or says what to install. All but the sanitizers and the fuzzers share the folder
# build/release, so that none builds again what another has built.
#
# BESTROUTE_CUDA=ON builds the CUDA engine also where no device is visible, OFF never; the folder keeps the
# choice.

.DEFAULT_GOAL := programs
.PHONY: programs demo bench build test asan tsan fuzz packages packages-test packages-fuzz clean help

FUZZ_SECONDS ?= 180

# Says no more than whether the CUDA engine is built, unless it fails.
define configure
@mkdir -p build
@cmake --preset release $(cuda) $(1) >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
@sed -n 's/^-- \(CUDA engine:\)/\1/p' build/configure.log
endef

cuda = $(if $(BESTROUTE_CUDA),-DBESTROUTE_CUDA=$(BESTROUTE_CUDA))

# In a new folder the tests are not even configured, since their packages may be missing. A folder with tests
# keeps them.
without_new_tests = $(if $(wildcard build/release/CMakeCache.txt),,-DBESTROUTE_TESTS=OFF)

programs: packages ## the service, the command, the load generator and the client library (plain `make`)
	$(call configure,$(without_new_tests))
	@cmake --build --preset release --target programs
	@echo "Built in build/release: bestrouted (the service), bestroute (the command),"
	@echo "bestroute-bench (the load generator) and libbestroute_client.a."
	@echo "Next: make demo, make test; make help lists the other targets."

demo: packages ## build the service and the command, start the service, route prompts through it
	$(call configure,$(without_new_tests))
	@cmake --build --preset release --target bestrouted bestroute
	@examples/demo.sh build/release

bench: packages ## the programs of bench/: bench_forward, bench_tokenizer, with the CUDA engine bench_cuda
	$(call configure,$(without_new_tests))
	@cmake --build --preset release --target bench

build: packages-test ## everything, the tests too, without running them
	$(call configure,-DBESTROUTE_TESTS=ON)
	@cmake --build --preset release

test: build ## build and run the test suite
	@ctest --preset release

asan: packages-test ## the test suite under AddressSanitizer and UBSan
	@cmake --preset dev
	@cmake --build --preset dev
	@ctest --preset dev -LE threads -j2
	@ctest --preset dev -L threads

tsan: packages-test ## the tests of threads under ThreadSanitizer
	@cmake --preset tsan
	@cmake --build --preset tsan
	@ctest --preset tsan

fuzz: packages-test packages-fuzz ## all fuzzers, FUZZ_SECONDS (180) together
	@cmake --preset fuzz
	@cmake --build --preset fuzz
	@tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

packages: ## install what building and running needs
	@cmake/install-packages.sh

packages-test: ## install what the tests need too
	@cmake/install-packages.sh cmake/packages-test.txt

packages-fuzz:
	@cmake/install-packages.sh cmake/packages-fuzz.txt

clean: ## remove the folder build
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1#/p' $(MAKEFILE_LIST) | \
		awk -F'#' '{ printf "%-21s %s\n", $$1, $$2 }'
