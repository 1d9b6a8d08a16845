# Thin wrappers over CMake: each installs what is missing (as root) or says what to install.
#
#   make demo    build, make a bundle, start the service, route real prompts through it
#   make test    build and run the whole test suite
#   make asan | tsan | fuzz    the same suite under sanitizers; the fuzzers for FUZZ_SECONDS each

FUZZ_SECONDS ?= 20

.PHONY: build demo test asan tsan fuzz packages clean

packages:
	@cmake/install-packages.sh

build: packages
	@mkdir -p build && cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build --preset release

demo: build
	@examples/demo.sh build/release

test: build
	@ctest --preset release

asan: packages
	@cmake --preset dev
	@cmake --build --preset dev
	@ctest --preset dev

tsan: packages
	@cmake --preset tsan
	@cmake --build --preset tsan
	@ctest --preset tsan

fuzz:
	@cmake/install-packages.sh cmake/packages-fuzz.txt
	@cmake --preset fuzz
	@cmake --build --preset fuzz
	@tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

clean:
	rm -rf build
