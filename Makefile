# Two commands: `make serve` and `make test`. Each sets up all it needs, once.
VENV ?= .venv
PORT ?= 8000
MODEL ?= build/demo-gptq
OPTIONS ?=
TARGET ?= cpu
bin := $(VENV)/bin
install_inputs := pyproject.toml $(wildcard deploy/install/*)

.PHONY: serve test check check-slow check-gpu image image-test format clean

serve: $(VENV)/.installed-serve $(filter build/demo build/demo-gptq,$(MODEL))
	$(bin)/malmoi-serve $(MODEL) --port $(PORT) $(OPTIONS)

test: $(VENV)/.installed-test
	$(MAKE) --no-print-directory check

# The gates, cheapest first; all of them run in the same environment as `make test`.
check:
	@mkdir -p build
	$(bin)/ruff format --check --quiet .
	$(bin)/ruff check --quiet .
	$(bin)/lint-imports --no-logo >build/lint-imports.log || { cat build/lint-imports.log; exit 1; }
	$(bin)/mypy --no-error-summary
	$(bin)/pytest -m "not slow and not gpu"

check-slow: $(VENV)/.installed-test
	$(bin)/pytest -m slow

# With docker, podman or buildah, whichever works here; OPTIONS go to its build command. docs/docker.md
image:
	deploy/image/build.sh $(TARGET) $(OPTIONS)

# The CPU image as `make image` left it; with docker or podman.
image-test: $(VENV)/.installed-test $(filter build/demo build/demo-gptq,$(MODEL))
	MODEL=$(MODEL) $(bin)/pytest -rP tests/deploy/check_image.py

check-gpu: $(VENV)/.installed-test
	$(bin)/pytest -m gpu
	$(bin)/python -m benchmarks.gpu

format: $(VENV)/.installed-test
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

build/demo: | $(VENV)/.installed-serve
	$(bin)/malmoi-train demo --out $@

build/demo-gptq: | build/demo
	$(bin)/malmoi-quant export build/demo --out $@ --korean build/demo.work/conversations.jsonl

# What serves also needs to make the demo; tests need every room. The second includes the first.
$(VENV)/.installed-serve: $(install_inputs)
	deploy/install/install.sh $(VENV) train,quant
	touch $@

$(VENV)/.installed-test: $(install_inputs)
	deploy/install/install.sh $(VENV) train,quant,dev
	touch $(VENV)/.installed-serve $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
