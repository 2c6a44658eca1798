"""`python3 -m sample_sidecar`: what the manifest runs."""

from rollout_plugin import run
from sample_sidecar import Sample

run(Sample)
