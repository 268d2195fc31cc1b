# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# Modules are compiled as they are first imported, and kept: half of what an installation takes is to compile all.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test docs docs-serve clean

demo: .venv/installed
	rm -rf runs/demo
	$(BIN)/dvaepp train quick/rbm --size small --steps 2000 --seed 0 --out runs/demo
	$(BIN)/dvaepp evaluate runs/demo --all
	$(BIN)/dvaepp sample runs/demo -o runs/demo/samples.png
	$(BIN)/dvaepp report runs/demo
	@echo "Open runs/demo/report.html in a browser; the samples are in runs/demo/samples.png"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto --dist worksteal

docs: .venv/installed
	$(BIN)/python site/stage.py build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html in a browser"

docs-serve: .venv/installed
	$(BIN)/python site/stage.py build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv
