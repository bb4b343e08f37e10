# Two commands do all the set-up: `make demo` and `make test`. Both make .venv and install into it.
VENV := .venv
PYTHON := $(VENV)/bin/python
DATA ?= /usr/share/datasets/fashion-mnist
PUBLIC := pcmref $(addprefix pcmref., errors nn.functional nn.resnet nn.states nn.adabs pcm.model pcm.mapping pcm.chip pcm.gdc \
	pcm.moments pcm.crossbar training store strategies checks golden files.networks files.foreign files.datasets files.images \
	files.devices experiments.retention experiments.sensitivity experiments.recipes experiments.pictures experiments.times)

.PHONY: demo test test-slow lint wheel audit mutation costs readme retention noise-and-clipping cifar10 imagenet bench against-torch torch-device figures docs docs-links docs-outputs fuzz soak same-answer clean

$(VENV)/installed: pyproject.toml setup.py
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pcmref needs Python 3.11 or newer")'
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[show,test,dev]'
	touch $@

demo: $(VENV)/installed  ## the retention experiment on shipped weights and real images
	$(PYTHON) -m pcmref retention resnet32-fashionmnist-noise --chips 3 --images 1000 --calibration 800

test: $(VENV)/installed  ## the test suite
	$(PYTHON) -m pytest -m 'not slow' --numprocesses 2 --dist loadfile

test-slow: $(VENV)/installed  ## what takes minutes
	$(PYTHON) -m pytest -m slow

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

wheel: $(VENV)/installed  ## build a wheel, install it alone, load a shipped network from it
	rm -rf build dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .
	rm -rf dist/venv && python3 -m venv dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd dist && venv/bin/python -c "import pcmref; net, state = pcmref.load('resnet8-fashionmnist-noise'); print('loaded from the wheel:', pcmref.__file__)"
	cd dist && venv/bin/pcmref info

audit: $(VENV)/installed  ## write validation/AUDIT.md: constants, equations, and the tests that confirm them
	$(PYTHON) -m validation.audit.audit

mutation: $(VENV)/installed  ## plant mistakes in nn, pcm and fast and see which the tests notice (half an hour)
	$(PYTHON) -m validation.audit.mutate --json validation/results/mutation.json

costs: $(VENV)/installed  ## what discrepancies, converters and rare recalibration cost the shipped network, what more devices buy (hours; goes on where it was, all anew where code, sizes or what evaluates differ)
	$(PYTHON) -m validation.experiments.discrepancy_costs
	$(PYTHON) -m validation.experiments.converters
	$(PYTHON) -m validation.experiments.recalibration
	$(PYTHON) -m validation.experiments.devices

readme: $(VENV)/installed  ## run the demo of the README again and put its table and picture into it
	$(PYTHON) -m validation.experiments.readme

retention: $(VENV)/installed  ## an experiment like the paper's, on simulated chips, into validation/retention.md (a day or two; goes on where it was, all anew where code, sizes or what evaluates differ)
	$(PYTHON) -m validation.experiments.retention run --data $(DATA)
	$(PYTHON) -m validation.experiments.retention report

noise-and-clipping: $(VENV)/installed  ## noise against clipping in training, two by two, into validation/noise_and_clipping.md (hours; goes on)
	$(PYTHON) -m validation.experiments.noise_and_clipping run --data $(DATA)
	$(PYTHON) -m validation.experiments.noise_and_clipping report

cifar10: $(VENV)/installed  ## train and measure the paper's network on its own data, DATA=FOLDER of official files, into validation/cifar10.md (two days or three; goes on; what ships of its results is replaced)
	$(PYTHON) -m validation.experiments.cifar10 run --train --data $(DATA)
	$(PYTHON) -m validation.experiments.cifar10 report

imagenet: $(VENV)/installed  ## ResNet-18, -34 and -50 for ImageNet, from a file to logits inside 8 GB
	$(PYTHON) -m validation.experiments.imagenet

figures: $(VENV)/installed  ## draw every picture again, from the current code (the README's from its last result)
	$(PYTHON) docs/course.py figures
	$(PYTHON) -m validation.experiments.reads_in_time
	$(PYTHON) -m validation.experiments.readme picture
	$(PYTHON) -m validation.experiments.performance picture
	$(PYTHON) -m validation.experiments.retention report
	$(PYTHON) -m validation.experiments.cifar10 report

docs-outputs: $(VENV)/installed  ## run the pages of the course and write what their code prints into them
	$(PYTHON) docs/course.py outputs

docs-links: $(VENV)/installed  ## point the links of the course at the lines where the functions are now
	$(PYTHON) docs/course.py links

docs: $(VENV)/installed  ## the API reference from the docstrings, in build/api
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(PYTHON) -m pdoc --docformat markdown --output-directory build/api $(PUBLIC)

lab-picture: $(VENV)/installed  ## write the lab page and have Chromium draw docs/lab.png
	mkdir -p out
	$(PYTHON) -m pcmref lab --out out/lab.html --force
	chromium --headless --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync \
	  --disable-quic $(if $(filter 0,$(shell id -u)),--no-sandbox) --user-data-dir=out/chromium --hide-scrollbars \
	  --window-size=1180,1130 --force-device-scale-factor=0.7 --screenshot=docs/lab.png \
	  "file://$(CURDIR)/out/lab.html#time=86400&target=5&network=1&compensation=gdc"
	rm -rf out/chromium

bench: $(VENV)/installed  ## speed and memory of every step on this machine
	$(PYTHON) -m validation.peers.bench

against-torch:  ## compare with PyTorch autograd, where it is installed
	python3 -m validation.peers.against_torch

torch-device:  ## an independent device model in PyTorch beside pcmref's, on CIFAR-10's official files in DATA=FOLDER
	python3 -m validation.peers.torch_device resnet32-cifar10-baseline --data $(DATA) --chips 15 --reads 2
	python3 -m validation.peers.torch_device resnet32-cifar10-noise --data $(DATA) --chips 15 --reads 2

fuzz: $(VENV)/installed  ## 20,000 hostile files for the readers
	$(PYTHON) -m validation.robustness.fuzz --files 20000

soak: $(VENV)/installed  ## kill -9 during every command that writes, then ten minutes of mixed commands in one process
	$(PYTHON) -m validation.robustness.kill
	$(PYTHON) -m validation.robustness.soak

same-answer: $(VENV)/installed  ## the same bytes whatever the workers, executors, hash seeds, locales and time zones
	$(PYTHON) -m validation.robustness.same_answer

clean:
	rm -rf $(VENV) build dist out *.egg-info
