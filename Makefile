# Everything runs in a cached set-up that scripts/bootstrap.py makes (COMFYUI_PATH: use your own ComfyUI instead).
PYTHON ?= python3
HOST = $(PYTHON) scripts/bootstrap.py host --
DEV = $(PYTHON) scripts/bootstrap.py dev --

.PHONY: demo test check bench bench-gpu assets templates sheet settings clean

demo:       ## three pictures steer the embedded base; see out/demo/overview.png
	@$(HOST) scripts/demo.py

test:       ## every test: pure, nodes in process, real server, browser
	@$(DEV) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check:      ## format, lint, types
	@$(DEV) scripts/check.py

bench:      ## measurements into benchmarks/RESULTS.md (about fifty minutes)
	@$(DEV) benchmarks/control_fidelity.py
	@$(DEV) benchmarks/get_control.py
	@$(DEV) benchmarks/apply_options.py
	@$(DEV) benchmarks/hint_lines.py
	@$(DEV) benchmarks/preprocessors.py
	@$(DEV) benchmarks/learned_preprocessors.py
	@$(DEV) benchmarks/training.py --threads 1
	@$(DEV) benchmarks/training.py
	@$(DEV) benchmarks/training_fidelity.py
	@$(DEV) benchmarks/startup.py

bench-gpu:  ## training on a CUDA device, into benchmarks/RESULTS.md
	@$(DEV) benchmarks/training_gpu.py

assets:     ## train the embedded base and its ControlNets again, into out/assets (two to three hours on two cores)
	@$(DEV) -m controlnet_kit.training.tiny.make out/assets --work out/assets-work

templates:  ## write example_workflows/*.json and their thumbnails from example_workflows/api
	@$(DEV) scripts/make_templates.py

sheet:      ## draw docs/preprocessors.jpg
	@$(DEV) scripts/make_preprocessor_sheet.py

settings:   ## write the tables of recipes and settings into docs/training.md
	@$(DEV) scripts/make_settings_table.py

clean:      ## what `make` wrote into the checkout; the cache of set-ups is kept
	rm -rf out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
