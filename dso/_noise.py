"""Silences one line: where bitsandbytes is installed, peft imports it, and on many CPUs that import
logs that an optional kernel is missing, which nothing here needs. Imported before all else."""

import logging

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
